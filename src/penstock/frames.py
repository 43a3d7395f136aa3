"""Recorded runs as pandas DataFrames: the columns, their types, and how they are filled.

Columns grow as arrays, page by page, so that no row is held as objects: 100,000 task runs take
some tens of megabytes. The only file that loads pandas, and only when it is asked for a frame.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from time import time_ns
from typing import TYPE_CHECKING, Any

from penstock.errors import MissingDependencyError
from penstock.history.base import NO_TIME
from penstock.states import FINAL_TYPES, StateType
from penstock.wording import error_text

if TYPE_CHECKING:
    import pandas

TASK_RUN_COLUMNS = {
    "id": "str",
    "name": "str",
    "task": "category",
    "number": "int64",
    "state": "category",
    "state_name": "category",
    "attempt": "int64",
    "worker": "category",
    "created_at": "datetime64[ns, UTC]",
    "started_at": "datetime64[ns, UTC]",
    "ended_at": "datetime64[ns, UTC]",
    "duration": "float64",
    "message": "str",
    "error": "str",
}
"""The columns of task runs, in order, and their types."""

FLOW_RUN_COLUMNS = {
    "id": "str",
    "name": "str",
    "flow": "category",
    "state": "category",
    "state_name": "category",
    "attempt": "int64",
    "runner": "category",
    "created_at": "datetime64[ns, UTC]",
    "started_at": "datetime64[ns, UTC]",
    "ended_at": "datetime64[ns, UTC]",
    "duration": "float64",
    "stale": "bool",
    "task_runs": "int64",
    "completed": "int64",
    "failed": "int64",
    "crashed": "int64",
    "message": "str",
    "error": "str",
}
"""The columns of flow runs, in order, and their types."""

STATES = tuple(kind.value for kind in StateType)
"""The categories of `state`: always all of them, so that frames can be put together."""

_NAMES = {kind: kind.capitalize() for kind in STATES}
_FINAL = [kind.value for kind in FINAL_TYPES]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def task_runs_frame(pages: Iterable[Sequence[Sequence[Any]]]) -> pandas.DataFrame:
    """Make the frame of task runs from pages of rows of `history.base.TABLE_COLUMNS`.

    Missing text is None (or pandas' own sign for it), a missing time NaT, a duration not yet begun
    NaN; the duration of what still runs is up to now.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    frames = _Pandas()
    columns: dict[str, Any] = {name: frames.column(kind) for name, kind in TASK_RUN_COLUMNS.items()}
    add = {name: column.extend for name, column in columns.items()}
    for page in pages:
        ids, names, tasks, numbers, states, special, attempts, workers, *rest = zip(
            *page, strict=True
        )
        created, started, ended, messages, kinds, texts = rest
        add["id"](map(_id_text, ids))
        add["name"](names)
        add["task"](tasks)
        add["number"](numbers)
        add["state"](states)
        add["state_name"](map(_state_name, states, special))
        add["attempt"](attempts)
        add["worker"](workers)
        add["created_at"](created)
        add["started_at"](started)
        add["ended_at"](ended)
        add["message"](messages)
        add["error"](map(_error, kinds, texts))
    columns["duration"] = frames.durations(columns)
    return frames.frame(TASK_RUN_COLUMNS, columns)


def flow_runs_frame(shapes: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """Make the frame of flow runs from their shapes; see `task_runs_frame` for what is missing.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    frames = _Pandas()
    columns: dict[str, Any] = {name: frames.column(kind) for name, kind in FLOW_RUN_COLUMNS.items()}
    for shape in shapes:
        for name, value in _flow_run_values(shape).items():
            columns[name].append(value)
    return frames.frame(FLOW_RUN_COLUMNS, columns)


def _flow_run_values(shape: Mapping[str, Any]) -> dict[str, Any]:
    state, counts, error = shape["state"], shape["counts"], shape["error"]
    return {
        "id": shape["id"],
        "name": shape["name"],
        "flow": shape["flow"],
        "state": state["type"],
        "state_name": state["name"],
        "attempt": shape["attempt"] or 0,
        "runner": shape["runner"],
        "created_at": _time_of_text(shape["created_at"]),
        "started_at": _time_of_text(shape["started_at"]),
        "ended_at": _time_of_text(shape["ended_at"]),
        "duration": float("nan") if shape["duration"] is None else shape["duration"],
        "stale": shape["stale"],
        "task_runs": sum(counts.values()),
        "completed": counts.get("COMPLETED", 0),
        "failed": counts.get("FAILED", 0),
        "crashed": counts.get("CRASHED", 0),
        "message": state["message"],
        "error": error_text(error) if isinstance(error, Mapping) else None,
    }


class _Pandas:
    """pandas, loaded; makes columns to be filled, and of them a frame."""

    def __init__(self) -> None:
        try:
            import pandas
        except ImportError as problem:
            raise MissingDependencyError(
                '`to_pandas` requires `pandas`; install it with: pip install "penstock[pandas]"'
            ) from problem
        self._pandas = pandas

    def column(self, kind: str) -> Any:
        """Make an empty column; numbers and times lie in it as in C."""
        return array("q") if kind.startswith(("int", "datetime")) else []

    def durations(self, columns: Mapping[str, Any]) -> Any:
        """Work out how many seconds each run took; up to now for those that are not final."""
        pandas = self._pandas
        started = pandas.Series(memoryview(columns["started_at"]), dtype="int64")
        ended = pandas.Series(memoryview(columns["ended_at"]), dtype="int64")
        final = pandas.Series(columns["state"], dtype=object).isin(_FINAL)
        until = ended.where(final, time_ns())
        known = (started != NO_TIME) & (until != NO_TIME)
        return ((until - started).clip(lower=0) / 1e9).where(known)

    def frame(self, kinds: Mapping[str, str], columns: dict[str, Any]) -> pandas.DataFrame:
        """Make the frame; lets go of each column once it is in it."""
        series = {name: self._series(name, kind, columns.pop(name)) for name, kind in kinds.items()}
        return self._pandas.DataFrame(series, columns=list(kinds))

    def _series(self, name: str, kind: str, values: Any) -> Any:
        pandas = self._pandas
        if kind.startswith("datetime"):
            times = (
                pandas.Series(memoryview(values), dtype="int64").to_numpy().view("datetime64[ns]")
            )
            return pandas.Series(times).dt.tz_localize("UTC")
        if kind == "category":
            known = STATES if name == "state" else None
            return pandas.Series(pandas.Categorical(values, categories=known))
        if kind == "int64":
            return pandas.Series(memoryview(values), dtype=kind)
        return pandas.Series(values, dtype=kind)


def _id_text(id: bytes) -> str:
    digits = id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _state_name(kind: str, special: str | None) -> str:
    return special or _NAMES.get(kind) or kind.capitalize()


def _time_of_text(text: str | None) -> int:
    if text is None:
        return NO_TIME
    past = datetime.fromisoformat(text) - _EPOCH
    return ((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds) * 1000


def _error(kind: str | None, text: str | None) -> str | None:
    return None if kind is None else error_text({"type": kind, "message": text})
