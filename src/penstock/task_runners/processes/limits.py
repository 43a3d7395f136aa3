"""What a worker may take: watched from here, for code that holds its interpreter stops nobody.

A worker stops its own task runs, which is enough for nearly all of them. Code that goes on all
the same is found in the worker's black box, and the worker is killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import monotonic, monotonic_ns
from typing import NamedTuple

from penstock.remote.blackbox import Running
from penstock.task_runners.processes.supervisor import WorkerProcess

PATIENCE_SECONDS = 1.0
"""How long the code of a task run may go on that should have stopped."""


class Overdue(NamedTuple):
    """A worker whose code goes on.

    Attributes:
        running: what it runs.
        limit: the time limit that it has exceeded, in seconds; None for one that was called off.
    """

    worker: WorkerProcess
    running: Running
    limit: float | None


class Limits:
    """The time limits of what workers were sent, and what was called off. Not thread-safe."""

    def __init__(self) -> None:
        self._seconds: dict[WorkerProcess, dict[bytes, float]] = {}
        self._called_off: dict[WorkerProcess, dict[bytes, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._seconds or self._called_off)

    def expect(self, worker: WorkerProcess, seconds: dict[bytes, float]) -> None:
        """Take in the time limits of what a worker is sent, by the key of the task run."""
        self._seconds.setdefault(worker, {}).update(seconds)

    def call_off(self, worker: WorkerProcess, keys: Iterable[bytes]) -> None:
        """Take in that task runs are to stop, if they run at all."""
        now = monotonic()
        self._called_off.setdefault(worker, {}).update((key, now) for key in keys)

    def forget(self, worker: WorkerProcess) -> None:
        """Forget a worker that has nothing to do, or is dead."""
        self._seconds.pop(worker, None)
        self._called_off.pop(worker, None)

    def overdue(self) -> Iterator[Overdue]:
        """Give the workers whose code goes on."""
        for worker in {**self._seconds, **self._called_off}:
            running = worker.box.running()
            if running is None:
                continue
            called_off = self._called_off.get(worker, {}).get(running.key)
            if called_off is not None and monotonic() > called_off + PATIENCE_SECONDS:
                yield Overdue(worker, running, None)
                continue
            limit = self._seconds.get(worker, {}).get(running.key)
            if limit is not None and running.entered:
                seconds = (monotonic_ns() - running.entered) / 1e9
                if seconds > limit + PATIENCE_SECONDS:
                    yield Overdue(worker, running, limit)
