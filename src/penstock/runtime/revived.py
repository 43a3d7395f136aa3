"""Task runs that are not run again: revived from what the history keeps of them."""

from __future__ import annotations

from typing import Any

from penstock.history.resumable import KeptRow
from penstock.results.kept import load_kept
from penstock.results.references import STORED
from penstock.runs import TaskRun
from penstock.states import State, StateType

_NOTHING: Any = object()


class RevivedState(State):
    """The COMPLETED state of a run whose value is kept; its data is loaded when asked for.

    Attributes:
        kept, codec: the value as the history keeps it, or where it is.
    """

    __slots__ = ("_data", "codec", "kept")

    def __init__(
        self,
        kept: bytes,
        codec: str,
        at: int,
        key: bytes,
        name: str | None = None,
        message: str | None = None,
    ) -> None:
        self.kept = kept
        self.codec = codec
        self._data: Any
        super().__init__(StateType.COMPLETED, name, message, at, _NOTHING, key)

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
    assert row.result is not None
    assert row.codec is not None
    run.key = row.key
    run.created_at = row.created_at
    run.started_at = row.started_at
    run.attempt = row.attempt
    run.task_number = row.task
    run.number = row.number
    run.custom_name = row.name
    run.recorded = StateType.COMPLETED
    run.kept, run.kept_codec = row.result, row.codec
    state = RevivedState(row.result, row.codec, row.ended_at, row.key)
    run.close(state)
    run.outcome = state
