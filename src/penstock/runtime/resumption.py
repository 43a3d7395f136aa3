"""What a flow run that is continued has already: completed task runs, tasks, counts.

    make a task run ──► identity ──► completed before? ──► kept? code unchanged? ──► revived
                                          │ no                  │ no: why is noted
                                          ▼                     ▼
                                      it is run             it is run again

What was noted is told once for each task, when the flow run ends.
"""

from __future__ import annotations

import abc
import json
import logging
from collections import Counter
from typing import Any

from penstock.errors import ResultStorageError
from penstock.history.base import HistoryReader
from penstock.history.resumable import KeptRow, RecordedTask, Resumable
from penstock.results.kept import load_kept, why_unusable
from penstock.results.references import STORED
from penstock.results.small import SMALL_RESULT_LIMIT
from penstock.runs import FlowRun, TaskRun
from penstock.runtime.revived import revive
from penstock.states import StateType

logger = logging.getLogger("penstock.flow_runs")

OLDER_CODE = "kept, though made by older code; to run them again, too: --rerun-changed"
CHANGED = "repeated: their code has changed"
NOT_KEPT = (
    f"repeated: results take more than {SMALL_RESULT_LIMIT // 1024} KiB, and persist_result is "
    "not on"
)
NO_IDENTITY = "run in any case: their inputs have no identity"


class Resumption(abc.ABC):
    """What one flow run has already. Thread-safe.

    Attributes:
        epoch: the number of this driver.
        row: the flow run as it was left, the columns of `resumable_flow_run.sql`.
        tasks, counts: those of the drivers before.
    """

    def __init__(self, resumable: Resumable, epoch: int) -> None:
        self.epoch = epoch
        self.row = resumable.row
        self.tasks = resumable.tasks
        self.counts = resumable.counts

    @abc.abstractmethod
    def find(self, task: Any, identity: bytes | None) -> KeptRow | None:
        """Give what is kept of a completed task run of that identity, if it need not run again.

        Args:
            task: its `name` and `source`.
        """

    @abc.abstractmethod
    def below(self, stand_in: TaskRun) -> Resumption | None:
        """Give what a subflow run has already that was begun before and did not complete."""

    def tell(self, flow_run: FlowRun) -> None:
        """Say in the log which task runs were kept or run again against expectation, and why.

        Nothing on a worker: the driver says it of all.
        """

    def close(self) -> None:
        """Let go of the history, where it is open here."""

    def revive(self, run: TaskRun) -> bool:
        """Make a new task run the recorded one, if it completed and is kept; tell whether."""
        row = self.find(run.definition, run.identity)
        if row is None:
            return False
        revive(run, row)
        return True

    def recorded_task(self, task: Any) -> RecordedTask | None:
        """Give the record of a task; of several, the last whose code is the present one."""
        same = [each for each in self.tasks if (each.key, each.name) == (task.key, task.name)]
        fitting = [each for each in same if not _differ(each.source, task.source)]
        return fitting[-1] if fitting else None

    def last_number(self, task: Any) -> int:
        """Give the highest n that a run of a task has in its name "<task>-<n>"; -1: none."""
        same = (each.last for each in self.tasks if each.name == task.name)
        return max(same, default=-1)

    def continue_run(self, run: FlowRun) -> None:
        """Give a flow run what it had when it was left."""
        row = self.row
        run.created_at = row["created_at"]
        run.started_at = row["started_at"]
        run.attempt = row["attempt"] or 0
        run.transitions = _passed(row) or run.ordinary_transitions()
        if row["ended_at"] is not None and run.transitions[-1][0] != row["state"]:
            end = row["state"], row["state_name"], row["ended_at"], row["message"]
            run.transitions.append(end)
        run.recorded = StateType.RUNNING


class RecordedResumption(Resumption):
    """What a flow run has already, by the history.

    Args:
        reader: a reader of the history, kept open until `close`.
        rerun_changed: run completed task runs again whose code has changed.
        notes: how many task runs are kept or run again, and why; shared with subflow runs.
    """

    def __init__(
        self,
        reader: HistoryReader,
        resumable: Resumable,
        epoch: int,
        rerun_changed: bool = False,
        notes: Counter[tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(resumable, epoch)
        self._reader = reader
        self._subflows = resumable.subflows
        self._rerun_changed = rerun_changed
        self._notes: Counter[tuple[str, str]] = Counter() if notes is None else notes
        self._kept = reader.kept_runs(self.row["id"].hex())
        self._sources = {task.number: task.source for task in resumable.tasks}

    def find(self, task: Any, identity: bytes | None) -> KeptRow | None:
        if identity is None:
            self._notes[task.name, NO_IDENTITY] += 1
            return None
        row = self._kept.find(identity)
        if row is None:
            return None
        source = self._sources.get(row.task)
        is_changed = source is not task.source and _differ(source, task.source)
        refused = self._why_run_again(row, is_changed)
        if refused is not None:
            self._notes[task.name, refused] += 1
            return None
        if is_changed:
            self._notes[task.name, OLDER_CODE] += 1
        return row

    def _why_run_again(self, row: KeptRow, is_changed: bool) -> str | None:
        if is_changed and self._rerun_changed:
            return CHANGED
        if row.result is None or row.codec is None:
            return NOT_KEPT
        if row.codec == STORED:
            problem = why_unusable(row.result, row.codec)
            return None if problem is None else f"repeated: {problem}"
        if row.codec != "json":
            # Small, so tried at once: whoever needs the value later could only fail.
            try:
                load_kept(row.result, row.codec)
            except ResultStorageError as exc:
                return f"repeated: {exc}"
        return None

    def below(self, stand_in: TaskRun) -> RecordedResumption | None:
        return self.below_identity(stand_in.identity)

    def below_identity(self, identity: bytes | None) -> RecordedResumption | None:
        """Give what the subflow run has already for which a task run of that identity stood."""
        id = None if identity is None else self._subflows.get(identity)
        if id is None:
            return None
        return RecordedResumption(
            self._reader,
            self._reader.resumable(id.hex()),
            self.epoch,
            self._rerun_changed,
            self._notes,
        )

    def tell(self, flow_run: FlowRun) -> None:
        for (task, why), number in sorted(self._notes.items()):
            runs = "run" if number == 1 else "runs"
            logger.warning(
                "%s %s of %r %s.", f"{number:,}", runs, task, why, extra={"penstock_run": flow_run}
            )
        self._notes.clear()

    def close(self) -> None:
        self._reader.close()


def _passed(row: dict[str, Any]) -> list[tuple[str, str | None, int, str | None]]:
    """Give the states of a flow run so far, where its times do not tell them."""
    return [tuple(state) for state in json.loads(row["states"] or "[]")]


def _differ(recorded: str | None, present: str | None) -> bool:
    """Tell whether code has changed; not known where another Python compiled it."""
    if recorded is None or present is None:
        return False
    python, _, digest = recorded.partition(":")
    return present.partition(":")[0] == python and present.partition(":")[2] != digest
