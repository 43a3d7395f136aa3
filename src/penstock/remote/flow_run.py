"""A flow run as its task runs on a worker see it: what they do in it, the driver hears of.

    task.submit(…) in a task  ──► request to the driver, which submits it like any other
    task(…) in a task         ──► runs here; each change of its run is told to the driver
    flow(…) in a task         ──► a flow run of its own here; told to the driver likewise
    log lines, prints         ──► told to the driver

Stands where `LiveFlowRun` stands in the driver's process, as the `live` of task runs.
"""

from __future__ import annotations

import itertools
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from queue import SimpleQueue
from time import time_ns
from typing import Any

from penstock.core.inputs import Found
from penstock.errors import CrashedRun
from penstock.ids import new_task_run_key
from penstock.remote.failures import state_from_record
from penstock.remote.futures import let_futures_travel
from penstock.remote.messages import (
    ANSWER,
    CANCEL,
    GIVEN_BACK,
    KEPT,
    LINE,
    RECALL,
    REQUEST,
    STARTED,
    Header,
    Value,
)
from penstock.remote.outbox import Outbox, Port
from penstock.remote.parcels import pack, pack_code
from penstock.remote.snapshots import snapshot
from penstock.remote.values import ArrivedState, Fetch
from penstock.runs import FlowRun, TaskRun
from penstock.runtime.blocking import take
from penstock.runtime.calls import TaskCall
from penstock.runtime.context import current_run, current_tags
from penstock.runtime.futures import TaskFuture
from penstock.runtime.logs import install_log_handler
from penstock.runtime.loops import FlowLoop
from penstock.runtime.settling import call_back, contained
from penstock.runtime.upstreams import awaited_in, run_of
from penstock.settings import load_settings
from penstock.states import State, StateType
from penstock.task_runners.base import BaseTaskRunner, TaskConcurrencyType

_MOST_FLOW_RUNS = 64
_ANSWER_SECONDS = 60.0
RECALLED = object()
"""Claims a task run that is not to be started any more."""
_flow_runs: OrderedDict[bytes, FlowRunElsewhere] = OrderedDict()
_lock = threading.Lock()


class WorkerTaskRun(TaskRun):
    """A task run that was sent to this worker, or called directly by one.

    Attributes:
        attempt_started_at: when the present attempt began.
        bundle, item: what it travelled in; None for one that was called directly.
    """

    bundle: Any = None
    item: Any = None
    attempt_started_at: int = 0
    is_numbered = True

    @property
    def name(self) -> str:
        """The name of the run; the driver counts the runs that are called directly here."""
        if not self.is_numbered and self.custom_name is None:
            self.number = self.live.ask("number", self.key)
            self.is_numbered = True
        return self.custom_name or f"{self.definition.name}-{self.number}"


class _Definition:
    """What is known here of the flow whose run this is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = name
        self.is_async = False
        self.parameter_names: tuple[str, ...] = ()
        self.hooks: dict[StateType, Any] = {}

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}, which runs in another process>"


class _EqualOrdinals:
    """Ordinals of runs that are called directly here; the driver counts them."""

    def next(self, digest: bytes) -> int:
        """Give 0: the driver replaces it."""
        return 0


class OnWorker(BaseTaskRunner):
    """The runner of calls that have arrived on a worker: nothing places them any further."""

    suspends = False

    @property
    def concurrency_type(self) -> TaskConcurrencyType:
        return TaskConcurrencyType.PARALLEL

    async def submit(self, key: Any, call: Any) -> None:
        raise NotImplementedError

    async def wait(self, key: Any, timeout: float | None = None) -> State | None:
        raise NotImplementedError


_on_worker = OnWorker()


class FlowRunElsewhere:
    """The `live` of task runs on a worker. Thread-safe."""

    task_run_class = WorkerTaskRun

    def __init__(self, header: Header, port: Port) -> None:
        let_futures_travel()
        self.header = header
        self.flow: Any = _Definition(header.flow_name)
        self.flow_run = FlowRun(
            self.flow, header.flow_key, header.flow_created_at, header.flow_run_name
        )
        self.flow_run.tags = header.tags
        self.flow_run.log_prints = header.log_prints
        self.flow_run.preview = header.flow_preview
        self.flow_run.type = StateType.RUNNING
        self.flow_run.live = self
        self.outbox = Outbox(port, header.reply_to)
        self.recorder = WorkerRecorder(self.outbox)
        self.flow_run.recorder = self.recorder
        self.task_runner: Any = None
        self.runner = _on_worker
        self.loop = self.side_loop = FlowLoop()
        self.lock = threading.Lock()
        self.ordinal_lock = threading.Lock()
        self.ordinals = _EqualOrdinals()
        self.kept: dict[bytes, TaskRun] = {}
        # Who claims a task run first decides: the bundle that starts it, or a word to call it off.
        self.claims: dict[bytes, object] = {}
        self._open: dict[bytes, TaskCall] = {}
        self._known: dict[bytes, TaskRun] = {}
        self._told: dict[bytes, State] = {}
        self._codes_sent: set[int] = set()
        self._questions: dict[int, SimpleQueue[Any]] = {}
        self._numbers = itertools.count(1)
        install_log_handler(
            replace(load_settings(), loggers=header.loggers, log_level=header.log_level)
        )

    @classmethod
    def of(cls, header: bytes, port: Port) -> FlowRunElsewhere:
        """Give the flow run for a pickled header: the same one for all its bundles."""
        live = _flow_runs.get(header)
        if live is None:
            with _lock:
                live = _flow_runs.get(header)
                if live is None:
                    live = cls(Header(*pickle.loads(header)), port)
                    _flow_runs[header] = live
                    _forget_oldest()
        return live

    # Calls that were sent here.

    def open(self, call: TaskCall) -> None:
        """Take note of a call that is about to run."""
        self._open[call.task_run.key] = call

    def advance(self, call: TaskCall, state: State) -> None:
        """Take the end of an attempt of a call that was sent here."""
        run: Any = call.task_run
        self._open.pop(run.key, None)
        run.outcome = state
        run.bundle.note_end(run.item, run, state)

    def tell_start(self, run: WorkerTaskRun, attempt: int, at: int) -> None:
        """Tell the driver that an attempt has begun, or is about to."""
        self.outbox.add(STARTED, run.key, attempt, at)

    def run_async(self, call: TaskCall) -> None:
        """Run an async call to its end in this thread."""
        import asyncio

        call.context.run(asyncio.run, call.arun())

    def run_coroutine(self, function: Callable[[], Coroutine[Any, Any, State]]) -> State:
        """Await what a function gives, in this thread."""
        import asyncio

        async def main() -> State:
            return await function()

        return asyncio.run(main())

    def now(self) -> int:
        """Give the time in nanoseconds since 1970."""
        return time_ns()

    # Runs that are made here.

    def enrol(self, run: TaskRun) -> None:
        """Take in a run that is called directly here; the driver numbers it."""
        run.live = self
        run.recorder = self.recorder
        run.number = -1
        run.is_numbered = False  # type: ignore[attr-defined]

    def note_end(self, run: TaskRun, state: State) -> None:
        """Nothing: the driver hears of the end by the record of it."""

    def looked_at(self, run: TaskRun) -> None:
        """Tell the driver that user code has received how a run ended."""
        self.outbox.add(REQUEST, "looked", run.key)

    def submit(
        self, task: Any, args: tuple[object, ...], kwargs: dict[str, object], wait_for: Any = None
    ) -> TaskRun:
        """Have the driver submit a run; gives what stands for it here."""
        return self.submit_after(task, args, kwargs, awaited_in(wait_for))

    def submit_after(
        self,
        task: Any,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        awaited: Found | None,
    ) -> TaskRun:
        """Have the driver submit a run that waits for what was found in `wait_for`, too."""
        runs = self._request_runs(task, [(args, kwargs)], awaited)
        return runs[0]

    def submit_all(
        self, task: Any, calls: Iterable[tuple[Any, Any]], wait_for: Any = None
    ) -> list[TaskRun]:
        """Have the driver submit many runs of one task."""
        return self._request_runs(task, list(calls), awaited_in(wait_for))

    def _request_runs(
        self, task: Any, calls: list[tuple[Any, Any]], awaited: Found | None
    ) -> list[TaskRun]:
        parent, now = current_run.get(), time_ns()
        runs: list[TaskRun] = []
        wanted = []
        memo: dict[int, Any] = {}
        for args, kwargs in calls:
            values = task.signature.values(args, kwargs)
            parcel = pack(values, task.parameter_names, memo)
            run = WorkerTaskRun(task, new_task_run_key(now), now)
            run.live, run.recorder = self, self.recorder
            run.is_numbered = False
            self._known[run.key] = run
            runs.append(run)
            wanted.append(
                (run.key, parcel.data, {part.digest: bytes(part.buffer) for part in parcel.large})
            )
        code = pack_code(task)
        parent_key = parent.key if isinstance(parent, TaskRun) else None
        waited = () if awaited is None else tuple(_keys(awaited))
        log_prints = parent.log_prints if parent is not None else False
        self.outbox.add(
            REQUEST, "submit", parent_key, code, wanted, waited, current_tags.get(), log_prints
        )
        self.outbox.flush()
        return runs

    # Waiting for runs that the driver has.

    def future_of(self, key: bytes) -> TaskFuture[Any]:
        """Give a future of a run that the driver has."""
        return TaskFuture(self.run_of(key))

    def run_of(self, key: bytes) -> TaskRun:
        """Give what stands here for a run that the driver has, asking to be told of its end."""
        run = self._known.get(key)
        if run is None:
            with self.lock:
                run = self._known.get(key)
                if run is None:
                    run = WorkerTaskRun(_Definition("task-run"), key, time_ns())  # type: ignore[arg-type]
                    run.live, run.recorder = self, self.recorder
                    run.is_numbered = False
                    self._known[key] = run
                    self.outbox.add(REQUEST, "watch", key)
                    self.outbox.flush()
        return run

    def export(self, run: TaskRun) -> None:
        """Nothing: what has a future here is known to the driver."""

    def call_of(self, run: TaskRun) -> TaskCall | None:
        """Give the call of a run that can be run here: of those the driver has, none."""
        return None

    def when_over(self, run: TaskRun, function: Callable[[TaskRun], object]) -> None:
        """Call a function once a task run is over; at once if it is."""
        with self.lock:
            if run.outcome is None:
                if run.callbacks is None:
                    run.callbacks = []
                run.callbacks.append(function)
                return
        contained(function, run)

    def cancel(self, run: TaskRun) -> bool:
        """Have the driver cancel a run."""
        if run.outcome is not None:
            return False
        answer: bool = self.ask("cancel", run.key)
        return answer

    def ask(self, kind: str, *what: Any) -> Any:
        """Ask the driver something and wait for its answer.

        Raises:
            CrashedRun: it has not answered for a minute.
        """
        number = next(self._numbers)
        answers: SimpleQueue[Any] = SimpleQueue()
        self._questions[number] = answers
        self.outbox.add(REQUEST, "ask", number, kind, self.outbox.port.worker, *what)
        self.outbox.flush()
        answer = take(answers, _ANSWER_SECONDS)
        del self._questions[number]
        if answer is None:
            raise CrashedRun(
                f"The process that runs the flow has not answered for {_ANSWER_SECONDS:.0f} s."
            )
        return answer[0]

    # What the driver says.

    def hear(self, word: tuple[Any, ...]) -> None:
        """Take a word from the driver."""
        kind = word[0]
        if kind in (CANCEL, RECALL):
            self._cancel(word[1], kind == CANCEL)
        elif kind == ANSWER:
            question = self._questions.get(word[1])
            if question is not None:
                question.put((word[2],))
        else:
            self._end(word[1], word[2])

    def _cancel(self, key: bytes, also_running: bool) -> None:
        if self.claims.setdefault(key, RECALLED) is RECALLED:
            # Whatever bundle it is in, or will arrive in: it is not started any more.
            self.outbox.add(GIVEN_BACK, [key])
            self.outbox.flush()
        elif also_running:
            call = self._open.get(key)
            if call is not None:
                call.stop()

    def _end(self, key: bytes, told: tuple[Any, ...]) -> None:
        run = self._known.get(key)
        if run is None or run.outcome is not None:
            return
        state = self._state_of(key, told)
        run.close(state)
        with self.lock:
            run.outcome = state
        if run.callbacks:
            call_back(run, run.callbacks)

    def _state_of(self, key: bytes, told: tuple[Any, ...]) -> State:
        if told[0] == "state":
            return state_from_record(told[1], key)
        value = Value(*told[1])
        fetch = _PortFetch(self.outbox.port, value.data) if value.place == KEPT else None
        return ArrivedState(value, fetch, told[2], key, told[3], told[4])


class _PortFetch(Fetch):
    """Fetches a value that the engine keeps."""

    def __init__(self, port: Port, name: str) -> None:
        self._port = port
        self._name = name
        self.worker = ""

    def fetch(self) -> Any:
        return self._port.fetch(self._name)


def hear(header: bytes, word: tuple[Any, ...]) -> None:
    """Take a word from the driver of a flow run; one that is not known here is nobody's."""
    live = _flow_runs.get(header)
    if live is not None:
        live.hear(word)


def _keys(awaited: Found) -> Iterable[bytes]:
    for dependency in awaited.dependencies:
        run = run_of(dependency)
        if run is not None:
            yield run.key


def _forget_oldest() -> None:
    while len(_flow_runs) > _MOST_FLOW_RUNS:
        _, oldest = _flow_runs.popitem(last=False)
        oldest.loop.close()


class WorkerRecorder:
    """The recorder of runs on a worker: tells the driver, which records."""

    failure = None
    is_usable = True

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.lone_tasks: set[int] = set()

    def record(self, kind: int, subject: Any) -> None:
        """Tell of a change of a run, or of a task that is new to a flow run."""
        if isinstance(subject, WorkerTaskRun) and subject.item is not None:
            # It was sent here: its driver only needs to know that an attempt begins.
            # Short ones are reported by their end alone.
            subject.attempt_started_at = time_ns()
            subject.bundle.running = subject
            return
        self._outbox.add(REQUEST, "record", kind, snapshot(subject))

    def record_line(self, row: tuple[Any, ...]) -> None:
        """Tell of a log line."""
        self._outbox.add(LINE, row)

    def make_room(self) -> None:
        """Nothing: what waits here is sent every few milliseconds."""

    def flush(self) -> None:
        """Send what there is."""
        self._outbox.flush()
