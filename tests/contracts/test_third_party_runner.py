"""The contract over runners that use nothing that is not open to everybody."""

from __future__ import annotations

import pytest

from penstock.task_runners import BaseTaskRunner
from penstock.testing import TaskRunnerContract
from penstock.testing.contract import FlowsContract
from penstock.testing.fixtures import ContractFixtures
from tests.contracts.asyncio_runner import AsyncioTaskRunner, MinimalTaskRunner


class TestAsyncioTaskRunner(TaskRunnerContract):
    """The whole contract."""

    @pytest.fixture
    def task_runner(self) -> BaseTaskRunner:
        return AsyncioTaskRunner()


class TestMinimalTaskRunner(FlowsContract, ContractFixtures):
    """All that a flow needs of a runner with only the three members that are abstract."""

    @pytest.fixture
    def task_runner(self) -> BaseTaskRunner:
        return MinimalTaskRunner()
