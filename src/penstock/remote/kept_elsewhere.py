"""Task runs that need not run again, as the code on a worker finds them: it asks the driver.

Asked is only where a flow run is continued or may be tried again, and only for what is called
directly on a worker: what is submitted there is looked up by the driver itself.
"""

from __future__ import annotations

from typing import Any

from penstock.history.resumable import KeptRow, RecordedTask, Resumable
from penstock.runs import TaskRun
from penstock.runtime.context import current_run
from penstock.runtime.resumption import Resumption
from penstock.runtime.revived import revive


def ask_for_kept(live: Any, run: TaskRun) -> bool:
    """Make a task run that is called on this worker the recorded one, if it need not run again.

    Its identity is the driver's from now on.
    """
    parent = current_run.get()
    parent_key = parent.key if parent is not None and parent.is_task_run else None
    run.identity, row = live.ask("kept", run.key, run.identity, parent_key, _told(run.definition))
    if row is None:
        return False
    revive(run, KeptRow(*row))
    return True


def ask_below(live: Any, stand_in: TaskRun) -> Resumption | None:
    """Give what a subflow run that is called on this worker has already."""
    told = live.ask("below", stand_in.key)
    return None if told is None else ResumptionElsewhere(live, *told)


class ResumptionElsewhere(Resumption):
    """What a subflow run on a worker has already; the driver is asked."""

    def __init__(self, live: Any, row: Any, tasks: Any, counts: Any, epoch: int) -> None:
        recorded = tuple(RecordedTask(*task) for task in tasks)
        super().__init__(Resumable(row, recorded, counts, {}), epoch)
        self._live = live

    def find(self, task: Any, identity: bytes | None) -> KeptRow | None:
        row = self._live.ask("kept in", self.row["id"], identity, _told(task))
        return None if row is None else KeptRow(*row)

    def below(self, stand_in: TaskRun) -> Resumption | None:
        told = self._live.ask("below in", self.row["id"], stand_in.identity)
        return None if told is None else ResumptionElsewhere(self._live, *told)


def _told(task: Any) -> tuple[str, str, str | None]:
    return task.key, task.name, task.source
