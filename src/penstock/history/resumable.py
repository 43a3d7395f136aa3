"""What the history knows of a flow run that is to be continued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class RecordedTask(NamedTuple):
    """A task that occurs in a flow run.

    Attributes:
        number: its number in the flow run.
        source: the digest of its code.
        last: the highest n of its "<task>-<n>"; -1 where it has none yet.
    """

    number: int
    key: str
    name: str
    source: str | None
    last: int


@dataclass(frozen=True)
class Resumable:
    """A flow run as it was left.

    Attributes:
        row: the columns of `resumable_flow_run.sql`.
        tasks: its tasks, in order of their numbers.
        counts: how many task runs are in each state, by the task's number.
        subflows: ids of the subflow runs that did not complete, by the identity of the task runs
            that stood for them.
    """

    row: dict[str, Any]
    tasks: tuple[RecordedTask, ...]
    counts: dict[int, dict[str, int]]
    subflows: dict[bytes, bytes]


class KeptRow(NamedTuple):
    """What is recorded of a completed task run.

    Attributes:
        key: its id, 16 bytes.
        task: the number of its task in its flow run.
        number: n of "<task>-<n>".
        name: where it has another name than that.
        result, codec: its result, or where that is; None where it was not kept.
    """

    key: bytes
    task: int
    number: int
    name: str | None
    attempt: int
    created_at: int
    started_at: int | None
    ended_at: int
    result: bytes | None
    codec: str | None


class KeptRuns(Protocol):
    """The completed task runs of one flow run. Thread-safe."""

    def __len__(self) -> int:
        """Give how many there are."""

    def find(self, identity: bytes) -> KeptRow | None:
        """Give the last completed task run of an identity; None when there is none."""
