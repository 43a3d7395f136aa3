"""The whole contract on an engine of threads that gets everything as bytes.

It shows what all engines share, in seconds and without any of them.
"""

from __future__ import annotations

import pytest

from penstock.testing import TaskRunnerContract
from tests.remote.local_engine import LocalTaskRunner


class TestLocalEngine(TaskRunnerContract):
    @pytest.fixture
    def task_runner(self) -> LocalTaskRunner:
        return LocalTaskRunner(threads=4)

    @pytest.fixture
    def one_worker(self) -> LocalTaskRunner:
        return LocalTaskRunner(threads=1)


class TestLocalEngineWithoutBundles(TaskRunnerContract):
    @pytest.fixture
    def task_runner(self) -> LocalTaskRunner:
        return LocalTaskRunner(threads=4, bundle=False)
