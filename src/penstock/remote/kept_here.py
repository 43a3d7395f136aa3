"""What the driver answers to workers that ask for task runs that need not run again."""

from __future__ import annotations

from typing import Any, NamedTuple

from penstock.history.resumable import KeptRow
from penstock.remote.snapshots import Mirrors
from penstock.runs import TaskRun
from penstock.runtime.resumption import RecordedResumption


class _Task(NamedTuple):
    """What is told of a task by the worker that asks."""

    key: str
    name: str
    source: str | None


class KeptHere:
    """Answers for one flow run. Used by one thread.

    Args:
        live: the flow run.
        mirrors: its runs that were called on workers.
    """

    def __init__(self, live: Any, mirrors: Mirrors) -> None:
        self._live = live
        self._mirrors = mirrors
        self._below: dict[bytes, RecordedResumption] = {}

    def kept(
        self, key: bytes, digest: bytes | None, parent_key: bytes | None, task: tuple[Any, ...]
    ) -> tuple[bytes | None, KeptRow | None]:
        """Give the identity of a run that is called on a worker, and what is kept of it."""
        parent = self._mirrors.run_of(parent_key)
        identity = None if digest is None else self._live.identify(digest, parent)
        row = self._found(_Task(*task), identity)
        if row is None:
            self._mirrors.identities[key] = identity
        else:
            self._live.total += 1
        return identity, row

    def _found(self, task: _Task, identity: bytes | None) -> KeptRow | None:
        run = None if identity is None else self._live.kept.get(identity)
        if run is not None and run.kept is not None:
            return _row_of(run)
        resumption = self._live.resumption
        return None if resumption is None else resumption.find(task, identity)

    def kept_in(
        self, flow_run_id: bytes, identity: bytes | None, task: tuple[Any, ...]
    ) -> KeptRow | None:
        """Give what is kept of a run of a subflow run that a worker continues."""
        return self._below[flow_run_id].find(_Task(*task), identity)

    def below(self, key: bytes) -> tuple[Any, ...] | None:
        """Give what a subflow run has already for which a task run stands, by its key."""
        resumption = self._live.resumption
        if not isinstance(resumption, RecordedResumption):
            return None
        run = self._mirrors.run_of(key)
        identity = self._mirrors.identities.get(key) if run is None else run.identity
        return self._told(resumption.below_identity(identity))

    def below_in(self, flow_run_id: bytes, identity: bytes | None) -> tuple[Any, ...] | None:
        """Give what a subflow run has already that is called in one which a worker continues."""
        return self._told(self._below[flow_run_id].below_identity(identity))

    def _told(self, resumption: RecordedResumption | None) -> tuple[Any, ...] | None:
        if resumption is None:
            return None
        row = resumption.row
        self._below[row["id"]] = resumption
        self._mirrors.continued[row["id"]] = resumption.counts
        return row, [tuple(task) for task in resumption.tasks], resumption.counts, resumption.epoch


def _row_of(run: TaskRun) -> KeptRow:
    return KeptRow(
        run.key,
        run.task_number,
        run.number,
        run.custom_name,
        run.attempt,
        run.created_at,
        run.started_at,
        run.ended_at or run.created_at,
        run.kept,
        run.kept_codec,
    )
