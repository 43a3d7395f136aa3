"""Runs that are executed on a worker without having been sent there, as the driver records them.

A task that is called directly inside a task, and a flow that is called inside one, run where
they are called. Their changes travel as snapshots, and the driver mirrors them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.core.caching import CacheNote
from penstock.history.ledgers import Ledger
from penstock.history.recorder import ENDED, TASK, Recorder
from penstock.history.rows import task_row
from penstock.remote.failures import state_from_record, state_to_record
from penstock.runs import FlowRun, Run, TaskRun
from penstock.runtime.errors import describe
from penstock.runtime.task_runs import settle
from penstock.states import State, StateType, exception_to_crashed_state

# Ended runs whose numbers are remembered, should their code still ask for its name; and runs
# that were lost, should they still be reported on.
_MOST_NUMBERS = 10_000
_ALWAYS = ("key", "created_at", "type")
_RARELY = (
    "state_name", "message", "is_over", "started_at", "ended_at", "changed_at", "attempt", "tags",
    "error", "transitions", "log_prints", "preview", "kept", "kept_codec", "upstream", "identity",
    "parent_key", "subflow_key", "custom_name", "task_number", "number", "looked_at", "name",
    "runner", "version", "worker",
)  # fmt: skip


def snapshot(subject: Any) -> tuple[str, Any, bytes | None]:
    """Give a run as it is now, or a task that is new to a flow run, as built-in types."""
    if isinstance(subject, tuple):
        return ("task", task_row(subject), None)
    held = vars(subject)
    fields = {name: getattr(subject, name) for name in _ALWAYS}
    fields["type"] = subject.type.value
    fields.update((name, held[name]) for name in _RARELY if held.get(name) is not None)
    if held.get("cache") is not None:
        fields["cache"] = tuple(held["cache"][:2])
    last = subject.last
    if last is not None:
        fields["last"] = (last.type.value, last.special_name, last.message, last.at)
        if isinstance(last.data, BaseException) and not held.get("looked_at"):
            # The flow run may have to raise it.
            fields["problem"] = state_to_record(last)
    definition = subject.definition
    source = getattr(definition, "source", None)
    fields["definition"] = (definition.key, definition.name, source)
    if isinstance(subject, FlowRun):
        fields["parent"] = None if subject.parent is None else subject.parent.key
        return ("flow run", fields, subject.key)
    flow_key = None if subject.live is None else subject.live.flow_run.key
    return ("task run", fields, flow_key)


class _Definition:
    """What is known here of a flow or task that runs on a worker."""

    is_async = False
    parameter_names: tuple[str, ...] = ()
    hooks: Mapping[StateType, Sequence[Callable[..., Any]]] = {}

    def __init__(self, key: str, name: str, source: str | None) -> None:
        self.key = key
        self.name = name
        self.source = source


class _MirroredFlowRun:
    """The `live` of the runs of a flow that runs on a worker: what the recorder needs of it."""

    def __init__(self, flow_run: FlowRun, ledger: Ledger) -> None:
        self.flow_run = flow_run
        self.ledger = ledger


class Mirrors:
    """The mirrored runs of one flow run. Used by one thread.

    Args:
        live: the flow run in whose task runs they were made.
        open_run: gives a task run that is with a worker, by its key; None where none is.
    """

    def __init__(self, live: Any, open_run: Callable[[bytes], TaskRun | None]) -> None:
        self._live = live
        self._open_run = open_run
        self._recorder: Recorder = live.recorder
        self._runs: dict[bytes, Any] = {}
        self._flows: dict[bytes, _MirroredFlowRun] = {}
        self._numbers: OrderedDict[bytes, int] = OrderedDict()
        self._lost: OrderedDict[bytes, None] = OrderedDict()
        self._is_closed = False
        # Identities of runs that were told to their workers, and are none of theirs to compute.
        self.identities: dict[bytes, bytes | None] = {}
        # Counts of subflow runs that workers continue.
        self.continued: dict[bytes, dict[int, dict[str, int]]] = {}

    def take(self, kind: int, what: tuple[str, Any, bytes | None]) -> None:
        """Record a change that happened on a worker."""
        sort, fields, flow_key = what
        if self._is_late(sort, fields, flow_key):
            return
        if sort == "task":
            if kind == TASK:
                self._recorder.record(TASK, fields)
        elif sort == "flow run":
            self._take_flow_run(kind, fields)
        else:
            self._take_task_run(kind, fields, flow_key)

    def run_of(self, key: bytes | None) -> TaskRun | None:
        """Give a task run that is open, here or with a worker."""
        if key is None:
            return None
        run = self._runs.get(key)
        return run if isinstance(run, TaskRun) else self._open_run(key)

    def number_of(self, key: bytes) -> int | None:
        """Give the number of a mirrored task run; None when there is no such run."""
        run = self._runs.get(key)
        number: int | None = self._numbers.get(key) if run is None else run.number
        return number

    def lose(self, key: bytes, problem: BaseException) -> None:
        """End the runs below a run whose worker is lost: nobody else tells how they ended."""
        if self._runs or self._flows:
            self._crash_below([key], problem)

    def close(self, problem: BaseException) -> None:
        """End all runs that are still open, and take in nothing more."""
        self._is_closed = True
        above = {key: self._parent_of(key) for key in [*self._runs, *self._flows]}
        self._crash_below([key for key in above.values() if key not in above], problem)

    def _is_late(self, sort: str, fields: Any, flow_key: bytes | None) -> bool:
        """Tell whether a change is one of a run that was lost, or of one below."""
        if self._is_closed:
            return True
        if sort == "task" or not self._lost:
            return False
        above = (fields["key"], fields.get("parent_key"), fields.get("parent"), flow_key)
        if self._lost.keys().isdisjoint(above):
            return False
        self._note_lost(fields["key"])
        return True

    def _note_lost(self, key: bytes) -> None:
        self._lost[key] = None
        while len(self._lost) > _MOST_NUMBERS:
            self._lost.popitem(last=False)

    def _parent_of(self, key: bytes) -> bytes | None:
        """Give the run in which an open run was made: a task run, else a flow run."""
        flow = self._flows.get(key)
        if flow is not None:
            return None if flow.flow_run.parent is None else flow.flow_run.parent.key
        run = self._runs[key]
        if run.parent_key in self._runs or not isinstance(run.live, _MirroredFlowRun):
            parent: bytes | None = run.parent_key
            return parent
        return run.live.flow_run.key

    def _crash_below(self, roots: Sequence[bytes | None], problem: BaseException) -> None:
        """End what is open below some runs as CRASHED, each before the one it was made in."""
        below: dict[bytes | None, list[bytes]] = {}
        for key in [*self._runs, *self._flows]:
            below.setdefault(self._parent_of(key), []).append(key)
        found: list[bytes] = []
        rest = [key for root in dict.fromkeys(roots) for key in below.pop(root, ())]
        while rest:
            key = rest.pop()
            found.append(key)
            rest += below.pop(key, ())
        for key in reversed(found):
            self._crash(key, problem)

    def _crash(self, key: bytes, problem: BaseException) -> None:
        flow = self._flows.pop(key, None)
        run: Run = self._runs[key] if flow is None else flow.flow_run
        state = exception_to_crashed_state(problem)
        # Clocks of machines differ: nothing ends before it began.
        state.at = max(state.at, run.changed_at or run.started_at or run.created_at)
        self._note_lost(key)
        if isinstance(run, TaskRun):
            # What was lost with it is told of the run that was sent there.
            run.looked_at = True
            settle(run, state, self._recorder)
            self._note_end(run, state)
            return
        state.run_key = key
        run.close(state)
        run.error = describe(problem)
        self._recorder.record(ENDED, run)
        run.outcome = state

    def _take_flow_run(self, kind: int, fields: dict[str, Any]) -> None:
        key = fields["key"]
        mirrored = self._flows.get(key)
        if mirrored is None:
            definition = _Definition(*fields["definition"])
            run = FlowRun(definition, key, fields["created_at"], fields["name"])
            above = self._live.ledger
            ledger = Ledger(key, above.epoch, above.lease)
            ledger.take_up(self.continued.get(key, {}))
            mirrored = self._flows[key] = _MirroredFlowRun(run, ledger)
            run.live = mirrored
        run = mirrored.flow_run
        parent = fields.pop("parent")
        if parent is not None and run.parent is None:
            # All that is recorded of the parent is its key.
            run.parent = TaskRun(run.definition, parent, run.created_at)
            stand_in = self._open_run(parent)
            if stand_in is not None:
                # The flow itself was submitted: its task run was sent to the worker.
                stand_in.subflow_key = key
        _apply(run, fields)
        self._recorder.record(kind, run)
        if kind == ENDED:
            del self._flows[key]

    def _take_task_run(self, kind: int, fields: dict[str, Any], flow_key: bytes | None) -> None:
        key = fields["key"]
        run = self._runs.get(key)
        is_ours = flow_key == self._live.flow_run.key
        if run is None:
            run = self._runs[key] = TaskRun(
                _Definition(*fields["definition"]), key, fields["created_at"]
            )
            if is_ours:
                self._live.enrol(run)
                identity = fields.get("identity")
                if key in self.identities:
                    run.identity = self.identities.pop(key)
                elif identity is not None:
                    parent = self.run_of(fields.get("parent_key"))
                    run.identity = self._live.identify(identity, parent)
            elif flow_key is not None:
                run.live = self._flows.get(flow_key)
        if is_ours:
            for counted_here in ("identity", "number", "task_number"):
                fields.pop(counted_here, None)
        _apply(run, fields)
        told = run.cached_by.end(run) if kind == ENDED and run.cached_by is not None else None
        self._recorder.record(kind, run)
        if kind == ENDED and run.last is not None:
            self._note_end(run, run.last)
        if told is not None:
            told()

    def _note_end(self, run: TaskRun, state: State) -> None:
        """Take that the end of a task run is recorded."""
        if run.live is self._live:
            self._live.note_end(run, state)
            if run.error is not None and not run.looked_at:
                # Somebody who has its future may look at it yet.
                self._live.export(run)
        run.outcome = state
        del self._runs[run.key]
        self._numbers[run.key] = run.number
        while len(self._numbers) > _MOST_NUMBERS:
            self._numbers.popitem(last=False)


def _apply(run: Run, fields: dict[str, Any]) -> None:
    last, problem = fields.pop("last", None), fields.pop("problem", None)
    cache = fields.pop("cache", None)
    if cache is not None and isinstance(run, TaskRun) and run.cache is None:
        run.cache = CacheNote(*cache)
    fields.pop("definition")
    run.type = StateType(fields.pop("type"))
    run.__dict__.update(fields)
    if problem is not None:
        run.last = state_from_record(problem, run.key)
    elif last is not None:
        run.last = State(StateType(last[0]), last[1], last[2], last[3], run_key=run.key)
