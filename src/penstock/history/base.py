"""The contract of a history store: append groups of rows, read pages.

Rows are plain tuples in the column orders published here, so that a group travels from the
recorder to the database without being rebuilt. Writing happens in one thread; readers open
stores of their own and only read.

Whoever builds the rows has cleaned all text in them (`penstock.history.text`) and cut it to its
limits. A store checks nothing, but it takes odd text without losing the group.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

from penstock.history.resumable import KeptRuns, Resumable
from penstock.runs import TaskRun
from penstock.states import StateType

if TYPE_CHECKING:
    from penstock.history.cache_store import CacheStore

SCHEMA_VERSION = 2
EPOCH_BITS = 40
"""The `seq` of a row is a number of a change; the bits above these are the epoch: how many drivers
the flow run had before the one that wrote it."""

FLOW_RUN_COLUMNS = (
    "id",  # 16 bytes
    "seq",  # number of the last change of this row within the flow run, from 1
    "name",
    "flow",  # name of the flow
    "flow_key",  # module and qualified name of the flow's function
    "version",
    "state",  # StateType text
    "state_name",  # None: the capitalised type
    "message",
    "created_at",  # integer nanoseconds since 1970, UTC
    "started_at",
    "ended_at",
    "attempt",
    "parameters",  # JSON object of previews
    "tags",  # JSON array of names, or None
    "runner",  # str(task_runner)
    "parent_task_run_id",  # of a subflow: the task run that stands for it in the parent
    "states",  # JSON array of [type, name, at, message], the present one last; None where the
    #            times tell it all: PENDING since created_at, RUNNING, final
    "error",  # JSON object {type, message, traceback}, or None
    "result",  # kept small result, or None
    "result_codec",  # "json" or "pickle"; None: not kept
    "host",
    "pid",
    "pid_started_at",  # start time of that process, to notice a pid that was used again
    "penstock_version",
    "arguments",  # the pickled arguments, or None: to continue it they must be given again
    "origin",  # JSON object that tells where the flow's function comes from; None for a subflow run
)
TASK_COLUMNS = ("flow_run_id", "number", "key", "name", "source")
# Tasks called outside any flow: `flow_run_id` is this in TASK_COLUMNS (and None in their task
# runs, which have no counts). All processes share it, so the number must follow from the key:
# `number_outside_flows(key)`.
OUTSIDE_FLOWS = bytes(16)
TASK_RUN_COLUMNS = (
    "id",  # 16 bytes, ascending in time
    "flow_run_id",  # None: a task called outside any flow
    "seq",
    "task",  # number of the task in its flow run, see TASK_COLUMNS
    "number",  # n of "<task>-<n>"
    "state",
    "attempt",
    "created_at",
    "started_at",
    "ended_at",
    "identity",  # digest of task and inputs, None: cannot be identified
    "parameters",  # JSON object of previews
    "result",
    "result_codec",  # "json", "pickle"; "stored": the result is JSON that tells where it lies
    "upstream",  # ids of the upstream task runs, 16 bytes each, one after another; or None
    # From here on empty in most rows; a row in which all of them are empty may end before.
    "name",  # None: "<task>-<number>"
    "state_name",
    "message",
    "states",
    "detail",  # JSON object of what is rare: error, tags, worker; cache ("hit", "miss", "expired",
    #            "refreshed", "unkeyed") and cache_key; parent_task_run_id, subflow_run_id,
    #            cached_from as 32 hexadecimal digits
)
ORDINARY_TASK_RUN_COLUMNS = TASK_RUN_COLUMNS[: TASK_RUN_COLUMNS.index("name")]
NO_TIME = -(2**63)
# What `task_run_columns` reads of each task run; a missing time is `NO_TIME`, other numbers 0.
TABLE_COLUMNS = (
    "id",  # 16 bytes
    "name",
    "task",  # its name; None where it was not recorded
    "number",
    "state",
    "state_name",  # None: the capitalised type
    "attempt",
    "worker",
    "created_at",
    "started_at",
    "ended_at",
    "message",
    "error_type",
    "error_message",
)
LOG_COLUMNS = ("flow_run_id", "task_run_id", "attempt", "at", "level", "logger", "message")
LEASE_COLUMNS = (
    "id",  # of an outermost flow run
    "epoch",
    "at",
    "host",
    "pid",
    "pid_started_at",
)
CACHE_COLUMNS = ("key", "task_run_id", "created_at", "expires_at")
CLAIM_COLUMNS = ("key", "claim")
COUNT_COLUMNS = ("flow_run_id", "task", "state", "number")


def number_outside_flows(key: str) -> int:
    """Give the number of a task in its task runs outside any flow: the same in every process.

    Example:
        >>> number_outside_flows("census.load")
        3830931680902374348
    """
    data = key.encode("utf-8", "surrogatepass")
    return (crc32(data) << 31) ^ crc32(data[::-1], 0x50656E73)


@dataclass(slots=True)
class Group:
    """Rows that are committed together, each list in order of creation.

    A group is refused whole unless all its leases are still their drivers'.

    Counts are absolute: how many task runs of a task are in a state after this group. The larger
    a group, the cheaper its rows: beside a busy main thread each group costs some 20 ms before
    its first row, and 15 µs a row in groups of thousands.

    Attributes:
        cache: values of cache keys, by the task runs that made them.
        claims_ended: claims on cache keys that are given up; unknown ones are nobody's.
        written: set by the store once the group is committed; writing it again does nothing.
    """

    flow_runs: list[tuple[Any, ...]] = field(default_factory=list)
    tasks: list[tuple[Any, ...]] = field(default_factory=list)
    task_runs: list[tuple[Any, ...]] = field(default_factory=list)
    logs: list[tuple[Any, ...]] = field(default_factory=list)
    counts: list[tuple[Any, ...]] = field(default_factory=list)
    leases: list[tuple[Any, ...]] = field(default_factory=list)
    cache: list[tuple[Any, ...]] = field(default_factory=list)
    claims_ended: list[tuple[Any, ...]] = field(default_factory=list)
    written: bool = field(default=False, init=False, compare=False)

    def add_cache(self, run: TaskRun) -> None:
        """Add what the end of a run with a cache key brings: its value, the end of its claim."""
        note = run.cache
        if note.claim is not None:
            self.claims_ended.append((note.key, note.claim))
        if note.key is None or note.found is not None or run.kept is None:
            return
        if run.type is StateType.COMPLETED:
            ended_at = run.ended_at or run.created_at
            self.cache.append((note.key, run.key, ended_at, note.expires_at(ended_at)))


class HistoryStore(abc.ABC):
    """Writes groups of rows. Used by one thread at a time, in the process that opened it."""

    @abc.abstractmethod
    def write(self, group: Group) -> None:
        """Commit a group in one transaction; wait while other programs hold the database.

        Writing the same group twice changes nothing. A row with an older `seq` never replaces
        a newer one, and a final state is never replaced.

        Raises:
            HistoryUnavailable: the database cannot be written now; nothing of the group is in it.
            HistoryError: a row does not fit, or the store was closed or opened before a fork;
                nothing of the group is in it, and writing it again will not help.
            LostLeases: other processes drive flow runs of the group; nothing of it is in it.
        """

    @abc.abstractmethod
    def take_over(self, flow_run_id: bytes, epoch: int, at: int, owner: tuple[Any, ...]) -> None:
        """Make this process the driver of a flow run, in one transaction.

        What its last driver left unfinished is closed: task runs that ran become CRASHED, those
        that never began are forgotten.

        Args:
            epoch: the new epoch; one more than the present one.
            at: the time in nanoseconds since 1970.
            owner: host, pid and start time of this process.

        Raises:
            LostLeases: another process was quicker; nothing was changed.
            HistoryUnavailable: the database cannot be written now; nothing was changed.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the database. A second call does nothing."""

    def open_cache(self) -> CacheStore | None:
        """Open what finds and claims the values of cache keys; None where there is no such."""
        return None


class HistoryReader(abc.ABC):
    """Reads runs as plain dictionaries in the shapes of `--json`. Never unpickles."""

    @abc.abstractmethod
    def find_flow_run(self, reference: str) -> dict[str, Any]:
        """Give the flow run that a reference means.

        Args:
            reference: an id, a unique prefix of at least 4 digits, a run name, `@last` or
                `@last-failed` (the latest failed or crashed one); the latter two leave out
                subflow runs.

        Raises:
            RunNotFound: there is none.
            AmbiguousRun: the prefix fits several; the text names them.
        """

    @abc.abstractmethod
    def flow_runs(
        self,
        *,
        state: str | None = None,
        flow: str | None = None,
        tag: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        """Give a page of top-level flow runs and subflow runs, newest first.

        Args:
            before: only runs created before this time (nanoseconds): the key of the next page.
        """

    @abc.abstractmethod
    def task_runs(
        self,
        flow_run_id: str,
        *,
        state: str | None = None,
        name: str | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Give the task runs of a flow run in order of creation."""

    @abc.abstractmethod
    def find_task_run(self, reference: str) -> dict[str, Any]:
        """Give the task run that an id, a unique prefix, or `RUN:TASK:NUMBER` means."""

    @abc.abstractmethod
    def task_runs_alike(self, task_run: dict[str, Any], limit: int = 20) -> list[dict[str, Any]]:
        """Give task runs of the same identity in the same flow run that were made before it.

        The latest ones, oldest first.
        """

    @abc.abstractmethod
    def logs(
        self,
        flow_run_id: str,
        *,
        task_run_id: str | None = None,
        task: str | None = None,
        level: int = 0,
        after: int = 0,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Give log lines in order; each has a `position` that `after` takes up again.

        Args:
            task_run_id: only those of this task run.
            task: only those of the task runs of the task of this name.
        """

    @abc.abstractmethod
    def counts(self, flow_run_id: str) -> dict[str, dict[str, int]]:
        """Give, for each task name of a flow run, how many task runs are in each state."""

    @abc.abstractmethod
    def resumable(self, flow_run_id: str) -> Resumable:
        """Give what it takes to continue a flow run."""

    @abc.abstractmethod
    def kept_runs(self, flow_run_id: str) -> KeptRuns:
        """Give the completed task runs of a flow run, to be found by their identities."""

    @abc.abstractmethod
    def subflow_runs(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Give the flow runs that a flow run called, in order of creation."""

    @abc.abstractmethod
    def task_run_columns(
        self, flow_run_id: str, *, state: str | None = None, name: str | None = None
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Give the task runs of a flow run as pages of rows of `TABLE_COLUMNS`.

        For many at once: a tenth of what the shapes cost.
        """

    @abc.abstractmethod
    def kept_result(self, run_id: str) -> tuple[bytes, str] | None:
        """Give a run's kept result and its codec, without decoding it; None: none was kept."""

    @abc.abstractmethod
    def select(self, query: str, **values: Any) -> list[Any]:
        """Give the rows of a query, whose columns are found by name.

        Args:
            query: the name of a file in `queries/`.
            values: what stands for its placeholders.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the database."""
