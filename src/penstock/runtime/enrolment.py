"""Numbers and identities of the task runs of one flow run."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from penstock.core.identity import Ordinals, nested_digest, run_identity
from penstock.history.recorder import TASK, Recorder
from penstock.history.text import LONGEST_NAME, clean_text
from penstock.runtime.resumption import Resumption

Entry = tuple[int, itertools.count]  # type: ignore[type-arg]  # of int, as the next line says
"""The number of a task, and the n of its runs to come."""


class Enrolment:
    """Numbers the tasks of a flow run and their runs, and tells equal runs apart. Thread-safe.

    Attributes:
        entries: what was given to each task so far, by its key and name.
        names: the names of tasks by their numbers.
    """

    def __init__(
        self, flow_run_key: bytes, recorder: Recorder, resumption: Resumption | None
    ) -> None:
        self.entries: dict[tuple[str, str], Entry] = {}
        self.names: dict[int, str] = {}
        self._flow_run_key = flow_run_key
        self._recorder = recorder
        self._resumption = resumption
        self._lock = threading.Lock()
        self._ordinal_lock = threading.Lock()
        self._ordinals = Ordinals()
        if resumption is not None:
            self.names = {task.number: task.name for task in resumption.tasks}
        self._numbers = itertools.count(max(self.names, default=0) + 1)

    def add(self, task: Any) -> Entry:
        """Number a task at its first use in the flow run."""
        with self._lock:
            entry = self.entries.get((task.key, task.name))
            if entry is None:
                number, first = self._number_of(task)
                self.names[number] = name = clean_text(task.name, LONGEST_NAME)
                entry = self.entries[task.key, task.name] = (number, itertools.count(first))
                self._recorder.record(TASK, (self._flow_run_key, number, task.key, name, task))
            return entry

    def _number_of(self, task: Any) -> tuple[int, int]:
        if self._resumption is None:
            return next(self._numbers), 0
        recorded = self._resumption.recorded_task(task)
        number = next(self._numbers) if recorded is None else recorded.number
        return number, self._resumption.last_number(task) + 1

    def identify(self, digest: bytes, parent: Any) -> bytes | None:
        """Give the identity of a task run from its input digest and the run it is made in."""
        if parent is not None and parent.is_task_run:
            nested = nested_digest(digest, parent.identity)
            if nested is None:
                return None
            digest = nested
        with self._ordinal_lock:
            ordinal = self._ordinals.next(digest)
        return run_identity(digest, ordinal)

    def begin_again(self) -> None:
        """Count equal runs from the beginning: the flow function runs again from the top."""
        self._ordinals = Ordinals()
