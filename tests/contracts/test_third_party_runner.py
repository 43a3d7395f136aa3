"""The contract over a runner that only has what every runner must have."""

from __future__ import annotations

import pytest

from penstock.task_runners import BaseTaskRunner
from penstock.testing import TaskRunnerContract
from tests.contracts.asyncio_runner import AsyncioTaskRunner


class TestAsyncioTaskRunner(TaskRunnerContract):
    """Nothing but the three that are abstract."""

    @pytest.fixture
    def task_runner(self) -> BaseTaskRunner:
        return AsyncioTaskRunner()
