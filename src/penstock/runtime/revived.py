"""Task runs that are not run again: revived from what the history keeps of them."""

from __future__ import annotations

from typing import Any

from penstock.history.resumable import KeptRow
from penstock.results.kept import load_kept
from penstock.results.references import STORED
from penstock.runs import TaskRun
from penstock.states import State, StateType

COMPLETED = StateType.COMPLETED
_NOTHING: Any = object()


class RevivedState(State):
    """The COMPLETED state of a run whose value is kept; its data is loaded when asked for.

    Attributes:
        kept, codec: the value as the history keeps it, or where it is.
    """

    __slots__ = ("_data", "codec", "kept")

    def __init__(self, kept: bytes, codec: str, at: int, key: bytes) -> None:
        # All that `State` has, set here: this is made for each run that is not run again.
        self.type = COMPLETED
        self.name = "Completed"
        self.message = None
        self.at = at
        self.run_key = key
        self.kept = kept
        self.codec = codec
        self._data: Any = _NOTHING

    @property
    def is_at_hand(self) -> bool:
        return self.codec != STORED or self._data is not _NOTHING

    @property
    def data(self) -> Any:
        """The value; asking for it the first time may read it from its storage."""
        if self._data is _NOTHING:
            self._data = load_kept(self.kept, self.codec)
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (self.type, self.name, self.message, self.at, self.data, self.run_key)

    def small(self) -> tuple[bytes | None, str | None]:
        """Give the value as the history keeps it."""
        return self.kept, self.codec


def revive(run: TaskRun, row: KeptRow) -> None:
    """Make a task run that has just been made the one that was recorded."""
    key, task, number, name, attempt, created_at, started_at, ended_at, kept, codec = row
    assert kept is not None
    assert codec is not None
    run.key = key
    run.created_at = created_at
    run.started_at = started_at
    run.attempt = attempt
    run.task_number = task
    run.number = number
    if name is not None:
        run.custom_name = name
    run.kept = kept
    run.kept_codec = codec
    run.type = run.recorded = COMPLETED
    run.ended_at = run.changed_at = ended_at
    run.is_over = True
    run.last = run.outcome = RevivedState(kept, codec, ended_at, key)
