"""Runs as the history has them: what all records have in common, task runs, and log lines.

A record is a snapshot of one run. What it does not hold (task runs, log lines, a kept result) it
reads when asked, through a connection that is opened for that and closed again. So a record may
be used in any thread and after a fork, holds nothing open, and never makes a writer wait. Nothing
is unpickled but by `result()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from penstock.errors import InvalidOptionError, ResultNotKept
from penstock.history.base import HistoryReader
from penstock.history.stores import open_reader
from penstock.record_cards import task_run_card
from penstock.results.kept import load_kept
from penstock.results.small import SMALL_RESULT_LIMIT
from penstock.states import State, StateType, failure_of

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


class LogLine(NamedTuple):
    """One recorded log line; `at` is an aware UTC time."""

    at: datetime
    level: str
    message: str
    logger: str | None
    flow_run_id: UUID | None
    task_run_id: UUID | None
    attempt: int | None

    def __str__(self) -> str:
        return f"{self.at:%H:%M:%S.%f} {self.level:<8} {self.message}"


class RunRecord:
    """What recorded flow runs and task runs have in common: a snapshot, until `refresh`.

    Times are aware UTC datetimes, None for what has not happened. Parameters are previews, as
    text: the values themselves are not kept.
    """

    __slots__ = ("_place", "_shape")

    def __init__(self, shape: Mapping[str, Any], place: str) -> None:
        self._shape = shape
        self._place = place

    @property
    def id(self) -> UUID:
        """The id of the run."""
        return UUID(self._shape["id"])

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self._shape["name"])

    @property
    def state(self) -> State:
        """The state when the run was read: type, name, message and time; it carries no data."""
        return self._states()[-1]

    @property
    def states(self) -> tuple[State, ...]:
        """All states in order, the present one last."""
        return tuple(self._states())

    def _states(self) -> list[State]:
        key = self.id.bytes
        return [
            State(
                StateType(entry["type"]),
                entry["name"],
                entry["message"],
                to_nanoseconds(to_time(entry["at"]) or _EPOCH),
                run_key=key,
            )
            for entry in self._shape["states"]
        ]

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters by name, each as a preview of its value."""
        return dict(self._shape["parameters"])

    @property
    def tags(self) -> frozenset[str]:
        """The tags of the run."""
        return frozenset(self._shape["tags"])

    @property
    def attempt(self) -> int:
        """The number of the last attempt, from 1; 0 before the first."""
        return self._shape["attempt"] or 0

    @property
    def created_at(self) -> datetime | None:
        """When the run was made."""
        return to_time(self._shape["created_at"])

    @property
    def started_at(self) -> datetime | None:
        """When its first attempt began."""
        return to_time(self._shape["started_at"])

    @property
    def ended_at(self) -> datetime | None:
        """When it reached its final state."""
        return to_time(self._shape["ended_at"])

    @property
    def duration(self) -> float | None:
        """Seconds from start to end, or until it was read; None where that is not known yet."""
        duration: float | None = self._shape["duration"]
        return duration

    @property
    def error(self) -> dict[str, Any] | None:
        """What it failed with: `type`, `message` and `traceback` as text; None for nothing."""
        error = self._shape["error"]
        return dict(error) if isinstance(error, Mapping) else None

    def to_dict(self) -> dict[str, Any]:
        """Give the run as `penstock … --json` prints it."""
        return dict(self._shape)

    def result(self) -> Any:
        """Load the kept value. This unpickles it, which may run code of the value's classes.

        Each call loads it anew. A run that had not ended when it was read is read again first.

        Raises:
            ResultNotKept: it completed, but its value was not kept; the text says what to do.
            ResultMissing, ResultCorrupt: it is not in its result storage any more, or is not what
                was stored; nothing was unpickled.
            ResultStorageError: the storage cannot be used, or the value not be rebuilt here.
            FailedRun, CrashedRun, CancelledRun, UpstreamFailed: it did not complete; the recorded
                traceback is a note of the exception.
            UnfinishedRun: it is not final yet.
        """
        if not self.state.is_final():
            self.refresh()
        if not self.state.is_completed():
            raise self._failure()
        with closing(open_reader(self._place)) as reader:
            kept = reader.kept_result(str(self._shape["id"]))
        if kept is None:
            raise ResultNotKept(
                f"The result of {self.name!r} was not kept: it takes more than "
                f"{SMALL_RESULT_LIMIT // 1024} KiB and nothing asked to keep it, or it cannot be "
                "pickled. persist_result=True keeps larger ones."
            )
        return load_kept(*kept)

    def _failure(self) -> BaseException:
        failure = failure_of(self.state)
        traceback = (self.error or {}).get("traceback")
        if traceback:
            failure.add_note(f"Recorded traceback:\n{traceback}")
        return failure

    def refresh(self) -> None:
        """Read the run again; in this one object, for all who hold it.

        Raises:
            RunNotFound: it is not in the history any more.
        """
        with closing(open_reader(self._place)) as reader:
            self._shape = self._read(reader)

    def _read(self, reader: HistoryReader) -> dict[str, Any]:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunRecord):
            return NotImplemented
        return (self._shape["id"], self._place) == (other._shape["id"], other._place)

    def __hash__(self) -> int:
        return hash(self._shape["id"])


class TaskRunRecord(RunRecord):
    """One recorded task run, to be read. See `FlowRunRecord.task_runs`."""

    __slots__ = ()

    @property
    def task(self) -> str:
        """The name of the task."""
        return str(self._shape["task"])

    @property
    def number(self) -> int | None:
        """The n of its name "<task>-<n>"."""
        number: int | None = self._shape["number"]
        return number

    @property
    def worker(self) -> str | None:
        """The worker of its last attempt; None where that was a thread of the driver."""
        worker: str | None = self._shape["worker"]
        return worker

    @property
    def flow_run_id(self) -> UUID | None:
        """The flow run it belongs to; None for a task that was called outside a flow."""
        return to_id(self._shape["flow_run_id"])

    @property
    def subflow_run_id(self) -> UUID | None:
        """The flow run that it stands for; None for an ordinary task run."""
        return to_id(self._shape.get("subflow_run_id"))

    @property
    def upstream(self) -> tuple[UUID, ...]:
        """The ids of the task runs whose results it was given, or was to wait for."""
        return tuple(UUID(id) for id in self._shape["upstream"])

    @property
    def identity(self) -> str | None:
        """The digest by which a resumed flow run knows it again; None: it has none."""
        identity: str | None = self._shape["identity"]
        return identity

    def logs(self, *, level: str | int = "DEBUG") -> Iterator[LogLine]:
        """Give its log lines in order, from a level on."""
        id, flow_run_id = self._shape["id"], str(self._shape["flow_run_id"])
        return read_logs(self._place, flow_run_id, level, task_run_id=id)

    def _read(self, reader: HistoryReader) -> dict[str, Any]:
        return reader.find_task_run(str(self._shape["id"]))

    def __repr__(self) -> str:
        return f"<TaskRunRecord {self.name!r} {self.state}>"

    def _repr_html_(self) -> str:
        return task_run_card(self._shape)


def to_time(text: str | None) -> datetime | None:
    """Read a time of a shape."""
    return None if text is None else datetime.fromisoformat(text)


def to_nanoseconds(at: datetime) -> int:
    """Give nanoseconds since 1970; a time without a zone is local."""
    past = at.astimezone(UTC) - _EPOCH
    return ((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds) * 1000


def to_id(text: str | None) -> UUID | None:
    """Read an id of a shape."""
    return None if text is None else UUID(text)


def _level(level: str | int) -> int:
    known = _LEVELS.get(level.upper()) if isinstance(level, str) else level
    if known is None:
        names = ", ".join(_LEVELS)
        raise InvalidOptionError(f"level is {level!r}; it must be a number or one of {names}.")
    return known


def read_through(
    place: str,
    rows: Callable[[HistoryReader], Iterator[Mapping[str, Any]]],
    make: Callable[[Mapping[str, Any]], T],
) -> Iterator[T]:
    """Read rows as long as somebody asks for them; then, or when dropped, close the history."""
    with closing(open_reader(place)) as reader:
        yield from map(make, rows(reader))


def read_logs(
    place: str,
    flow_run_id: str,
    level: str | int,
    *,
    task_run_id: str | None = None,
    task: str | None = None,
) -> Iterator[LogLine]:
    """Give log lines from a level on; of one task run, or of those of one task, where asked for."""
    lowest = _level(level)

    def rows(reader: HistoryReader) -> Iterator[dict[str, Any]]:
        return reader.logs(flow_run_id, level=lowest, task_run_id=task_run_id, task=task)

    return read_through(place, rows, _log_line)


def _log_line(shape: Mapping[str, Any]) -> LogLine:
    return LogLine(
        datetime.fromisoformat(shape["at"]),
        shape["level"],
        shape["message"],
        shape["logger"],
        to_id(shape["flow_run_id"]),
        to_id(shape["task_run_id"]),
        shape["attempt"],
    )
