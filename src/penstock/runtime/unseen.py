"""The failures of a flow run: all of them in order, and those that nobody has looked at."""

from __future__ import annotations

import threading

from penstock.core.outcomes import FAILURES
from penstock.runs import TaskRun
from penstock.states import State, describe_exception


class Failures:
    """What failed or crashed in a flow run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unseen: dict[TaskRun, None] = {}
        self._told: list[tuple[str, str, str]] = []

    def note(self, run: TaskRun, state: State) -> None:
        """Take in how a task run ended; only failures count."""
        if state.type not in FAILURES:
            return
        with self._lock:
            if not run.looked_at:
                self._unseen[run] = None
        problem = state.result(raise_on_failure=False)
        error = describe_exception(problem) if isinstance(problem, BaseException) else ""
        self._told.append((run.name, error or state.message or "", str(run.id)))

    def look_at(self, run: TaskRun) -> None:
        """Note that user code has received how a task run ended."""
        with self._lock:
            self._unseen.pop(run, None)

    def listed(self) -> list[tuple[str, str, str]]:
        """Give (task run name, error, task run id) of each, in order."""
        return list(self._told)

    def unseen(self) -> list[TaskRun]:
        """Give the task runs whose failures nobody looked at, in the order in which they ended."""
        return list(self._unseen.copy())

    def forget_unseen(self) -> None:
        """Count what failed so far as history: the flow is tried again."""
        self._unseen.clear()
