"""What the contract's tests are given: the runner, files to leave evidence in, log records."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.task_runners import BaseTaskRunner, TaskConcurrencyType
from penstock.testing.ledger import Gate, Ledger


class RecordList(logging.Handler):
    """A logging handler that keeps the records it sees."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def texts(self) -> list[str]:
        """Give the messages, oldest first."""
        return [record.getMessage() for record in self.records]


@contextlib.contextmanager
def interrupts_fail() -> Iterator[None]:
    """Make an interrupt that escapes a failure of its test, not the end of the test session."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError) as error:
        pytest.fail(f"{type(error).__name__} escaped from a task run")


class ContractFixtures:
    """Fixtures of the contract; `task_runner` is the one a subclass must give.

    A subclass may also override `overlaps` (two task runs can be running at the same time),
    `one_worker` (the same kind of runner with room for one running task), and `resources` (what
    a task run may ask for).
    """

    @pytest.fixture
    def task_runner(self) -> BaseTaskRunner:
        """Give the runner under test, not started."""
        raise NotImplementedError(
            f"{type(self).__name__} must define a fixture `task_runner` that returns a task runner"
            " that is not started, for example `return ConcurrentTaskRunner()`"
        )

    @pytest.fixture
    def deferred(self, task_runner: BaseTaskRunner) -> bool:
        """Say whether `submit` gives a future before the task is done."""
        return task_runner.concurrency_type is not TaskConcurrencyType.SEQUENTIAL

    @pytest.fixture
    def overlaps(self, task_runner: BaseTaskRunner, deferred: bool) -> bool:
        """Say whether two task runs can be running at the same time."""
        return deferred and getattr(task_runner, "max_workers", None) != 1

    @pytest.fixture
    def in_process(self, task_runner: BaseTaskRunner) -> bool:
        """Say whether task runs share memory with the flow."""
        return task_runner.concurrency_type is not TaskConcurrencyType.PARALLEL

    @pytest.fixture
    def one_worker(self, task_runner: BaseTaskRunner) -> BaseTaskRunner:
        """Give a runner of the same kind with one worker, or the runner itself."""
        try:
            return type(task_runner)(max_workers=1)  # type: ignore[call-arg]
        except TypeError:
            return task_runner

    @pytest.fixture
    def resources(self, task_runner: BaseTaskRunner) -> dict[str, float]:
        """Say what a task run may ask for; nothing where the runner does not check it."""
        checks = type(task_runner).check_resources is not BaseTaskRunner.check_resources
        return {"cpu": 1} if checks else {}

    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Ledger:
        """Give an empty file for lines that task runs write."""
        return Ledger(tmp_path / "ledger.txt")

    @pytest.fixture
    def gate(self, tmp_path: Path) -> Iterator[Gate]:
        """Give a closed gate; it opens after the test, so that nothing stays behind."""
        gate = Gate(tmp_path / "gate")
        yield gate
        gate.open()

    @pytest.fixture
    def records(self) -> Iterator[RecordList]:
        """Give what reaches the logger `penstock` during the test."""
        handler, logger = RecordList(), logging.getLogger("penstock")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        yield handler
        logger.removeHandler(handler)
        logger.setLevel(level)

    @pytest.fixture(autouse=True)
    def own_history(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Keep the runs of the contract out of the user's own history."""
        if "PENSTOCK_HOME" not in os.environ and "PENSTOCK_DATABASE_URL" not in os.environ:
            home = tmp_path_factory.getbasetemp() / "penstock-contract"
            monkeypatch.setenv("PENSTOCK_HOME", str(home))
