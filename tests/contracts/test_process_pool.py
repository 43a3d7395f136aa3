"""The whole contract on worker processes of this machine."""

from __future__ import annotations

import pytest

from penstock.task_runners import ProcessPoolTaskRunner
from penstock.testing import TaskRunnerContract


class TestProcessPool(TaskRunnerContract):
    @pytest.fixture
    def task_runner(self) -> ProcessPoolTaskRunner:
        return ProcessPoolTaskRunner(max_workers=4)

    @pytest.fixture
    def one_worker(self) -> ProcessPoolTaskRunner:
        return ProcessPoolTaskRunner(max_workers=1)
