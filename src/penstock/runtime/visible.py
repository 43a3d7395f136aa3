"""What the progress display reads of a flow run that runs."""

from __future__ import annotations

from operator import itemgetter
from typing import Any
from uuid import UUID

from penstock.history.ledgers import Ledger
from penstock.runs import FlowRun
from penstock.runtime.unseen import Failures


class VisibleFlowRun:
    """A flow run as people see it while it runs. Read from any thread.

    Attributes:
        started_at: when this process began with it, in nanoseconds since 1970.
    """

    flow: Any
    flow_run: FlowRun
    task_runner: Any
    ledger: Ledger
    started_at: int
    _task_names: dict[int, str]
    _failures: Failures

    @property
    def id(self) -> UUID:
        """The id of the flow run."""
        return self.flow_run.id

    @property
    def name(self) -> str:
        """The name of the flow run."""
        return self.flow_run.name

    @property
    def flow_name(self) -> str:
        """The name of the flow."""
        name: str = self.flow.name
        return name

    @property
    def runner(self) -> str:
        """The name of the main task runner."""
        return str(self.task_runner)

    def counts(self) -> dict[str, dict[str, int]]:
        """Give the recorded number of task runs by task name and state type."""
        shown: dict[str, dict[str, int]] = {}
        # Copied in one step, as other threads add to it.
        counted = list(self.ledger.counts.items())
        for task, states in sorted(counted, key=itemgetter(0)):
            # Changed code makes another task of it, under the same name.
            counts = shown.setdefault(self._task_names[task], {})
            for state, number in dict(states).items():
                counts[state.value] = counts.get(state.value, 0) + number
        return shown

    def failures(self) -> list[tuple[str, str, str]]:
        """Give (task run name, error, task run id) of what failed, in order."""
        return self._failures.listed()
