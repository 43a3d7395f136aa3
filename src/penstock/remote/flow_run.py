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
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from time import time_ns
from typing import Any
from weakref import WeakValueDictionary

from penstock.core.inputs import Found
from penstock.errors import CrashedRun
from penstock.remote.caching import WorkerDesk
from penstock.remote.failures import state_from_record
from penstock.remote.futures import let_futures_travel
from penstock.remote.kept_elsewhere import ask_below, ask_for_kept
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
from penstock.remote.snapshots import snapshot
from penstock.remote.submissions import Submissions
from penstock.remote.values import ArrivedState, Fetch
from penstock.remote.worker_runs import FlowElsewhere, WorkerFlowRun, WorkerTaskRun
from penstock.runs import TaskRun
from penstock.runtime.blocking import take
from penstock.runtime.calls import TaskCall
from penstock.runtime.futures import TaskFuture
from penstock.runtime.logs import install_log_handler
from penstock.runtime.loops import FlowLoop
from penstock.runtime.resumption import Resumption
from penstock.runtime.settling import call_back, call_when_over
from penstock.runtime.upstreams import awaited_in
from penstock.settings import load_settings
from penstock.states import State, StateType
from penstock.task_runners.base import BaseTaskRunner, TaskConcurrencyType
from penstock.task_runners.slots import slot_left

_MOST_FLOW_RUNS = 64
_ANSWER_SECONDS = 60.0
_MOST_LOSSES = 20
RECALLED = object()
"""Claims a task run that is not to be started any more."""
_flow_runs: OrderedDict[bytes, FlowRunElsewhere] = OrderedDict()
_lock = threading.Lock()


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
    ledger = None

    def __init__(self, header: Header, port: Port) -> None:
        let_futures_travel()
        self.header = header
        self.flow: Any = FlowElsewhere(header.flow_name)
        self.flow_run = WorkerFlowRun(
            self.flow, header.flow_key, header.flow_created_at, header.flow_run_name
        )
        self.flow_run.tags = header.tags
        self.flow_run.log_prints = header.log_prints
        self.flow_run.preview = header.flow_preview
        self.flow_run.type = StateType.RUNNING
        self.flow_run.live = self
        if header.results is not None:
            policy = pickle.loads(header.results)
            self.flow_run.results = policy._replace(is_elsewhere=True, own=port.own)
        self.outbox = port.open_outbox(header.reply_to)
        self._submissions = Submissions(self)
        self.recorder = WorkerRecorder(self.outbox, WorkerDesk(self))
        self.flow_run.recorder = self.recorder
        self.task_runner: Any = None
        self.runner = _on_worker
        self.loop = self.side_loop = FlowLoop()
        self.lock = threading.Lock()
        self.has_kept = header.has_kept
        # Who claims a task run first decides: the bundle that starts it, or a word to call it off.
        self.claims: dict[bytes, object] = {}
        self._open: dict[bytes, TaskCall] = {}
        self._called_off: set[bytes] = set()
        # Runs of the driver's, as long as somebody here holds them or waits for their end.
        self._known: WeakValueDictionary[bytes, TaskRun] = WeakValueDictionary()
        self._awaited: dict[bytes, TaskRun] = {}
        self._questions: dict[int, Callable[[tuple[Any]], object]] = {}
        self._numbers = itertools.count(1)
        self.bundles: dict[str, object] = {}
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
        key = call.task_run.key
        self._open[key] = call
        if key in self._called_off:
            call.is_cancelled = True

    def advance(self, call: TaskCall, state: State) -> None:
        """Take the end of an attempt of a call that was sent here."""
        run: Any = call.task_run
        self._open.pop(run.key, None)
        self._called_off.discard(run.key)
        run.outcome = state
        run.bundle.note_end(run.item, run, state)

    def tell_start(self, run: WorkerTaskRun, attempt: int, at: int) -> None:
        """Tell the driver that an attempt has begun, or is about to."""
        self.outbox.add(STARTED, run.key, attempt, at)

    def run_async(self, call: TaskCall) -> None:
        """Run an async call to its end."""
        import asyncio

        self.outbox.port.run_aside(lambda: call.context.run(asyncio.run, call.arun()))

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

    def identify(self, digest: bytes, parent: Any) -> bytes | None:
        """Give the digest: the driver makes an identity of it."""
        return digest

    def kept_run(self, run: TaskRun) -> TaskRun | None:
        """Give the task run that a new one need not be run for; None where it has to run."""
        if not ask_for_kept(self, run):
            return None
        run.live, run.recorder = self, self.recorder
        return run

    def below(self, stand_in: TaskRun) -> Resumption | None:
        """Give what a subflow run has already that was begun before and did not complete."""
        return ask_below(self, stand_in) if self.header.epoch else None

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
        return self._submissions.ask(task, [(args, kwargs)], awaited)[0]

    def submit_all(
        self, task: Any, calls: Iterable[tuple[Any, Any]], wait_for: Any = None
    ) -> Sequence[TaskRun]:
        """Have the driver submit many runs of one task."""
        return self._submissions.ask(task, list(calls), awaited_in(wait_for))

    def expect(self, run: TaskRun) -> None:
        """Take note of a run of whose end the driver will tell."""
        self._known[run.key] = run

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
                    run = WorkerTaskRun(FlowElsewhere("task-run"), key, time_ns())
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
        self._awaited[run.key] = run
        call_when_over(run, function, self.lock)
        if run.outcome is not None:
            self._awaited.pop(run.key, None)

    def cancel(self, run: TaskRun) -> bool:
        """Have the driver cancel a run."""
        if run.outcome is not None:
            return False
        answer: bool = self.ask("cancel", run.key)
        return answer

    def ask(self, kind: str, *what: Any, seconds: float | None = _ANSWER_SECONDS) -> Any:
        """Ask the driver something and wait for its answer.

        Raises:
            CrashedRun: it has not answered for so many seconds.
        """
        answers: SimpleQueue[Any] = SimpleQueue()
        number = self.question(answers.put, kind, *what)
        answer = take(answers, seconds)
        self._questions.pop(number, None)
        if answer is None:
            raise CrashedRun(
                f"The process that runs the flow has not answered for {seconds:.0f} s."
            )
        return answer[0]

    def question(self, answer: Callable[[tuple[Any]], object], kind: str, *what: Any) -> int:
        """Ask the driver something; a function is called with its answer, in a tuple."""
        number = next(self._numbers)
        self._questions[number] = answer
        self.outbox.add(REQUEST, "ask", number, kind, self.outbox.port.worker, *what)
        self.outbox.flush()
        return number

    # What the driver says.

    def hear(self, word: tuple[Any, ...]) -> None:
        """Take a word from the driver."""
        kind = word[0]
        if kind in (CANCEL, RECALL):
            self._call_off(word[1], kind == CANCEL)
        elif kind == ANSWER:
            answer = self._questions.pop(word[1], None)
            if answer is not None:
                answer((word[2],))
        else:
            self._end(word[1], word[2])

    def _call_off(self, keys: list[bytes], also_running: bool) -> None:
        # Whatever bundle they are in, or will arrive in: they are not started any more.
        recalled = [key for key in keys if self.claims.setdefault(key, RECALLED) is RECALLED]
        if recalled:
            self.outbox.add(GIVEN_BACK, recalled)
            self.outbox.flush()
        if also_running:
            for key in set(keys).difference(recalled):
                self._stop(key)

    def _stop(self, key: bytes) -> None:
        # Its arguments may still be being unpacked: then it is found in here.
        self._called_off.add(key)
        call = self._open.get(key)
        if call is not None:
            call.stop()

    def _end(self, key: bytes, told: tuple[Any, ...]) -> None:
        run = self._known.get(key)
        if run is None or run.outcome is not None:
            return
        state = self._state_of(key, told)
        run.close(state)
        run.outcome = state
        if run.callbacks:
            call_back(run, run.callbacks)
        self._awaited.pop(key, None)

    def _state_of(self, key: bytes, told: tuple[Any, ...]) -> State:
        if told[0] == "state":
            return state_from_record(told[1], key)
        value = Value(*told[1])
        fetch = _PortFetch(self, key, value.data) if value.place == KEPT else None
        state = ArrivedState(value, fetch, told[2], key, told[3], told[4])
        state.resolver = self._resolve
        return state

    def _resolve(self, token: Any) -> Any:
        return self.future_of(token[1])


class _PortFetch(Fetch):
    """Fetches a value that the engine keeps."""

    def __init__(self, live: FlowRunElsewhere, key: bytes, name: str) -> None:
        self._live = live
        self._key = key
        self._name = name
        self.worker = ""

    def fetch(self) -> Any:
        port = self._live.outbox.port
        for _ in range(_MOST_LOSSES):
            try:
                return port.fetch(self._name)
            except port.lost:
                # Making it again may take a place on this very worker, and any time.
                with slot_left():
                    name, problem = self._live.ask("value", self._key, seconds=None)
                if name is None:
                    raise CrashedRun(problem) from None
                self._name = name
        raise CrashedRun(f"The value {self._name!r} was lost again and again.")


def hear(header: bytes, word: tuple[Any, ...], port: Port) -> None:
    """Take a word from the driver of a flow run.

    What is to be called off may be in the first bundle of its flow run, on its way or waiting
    here for a free place. Any other word about a flow run that is not known here is nobody's.
    """
    live = _flow_runs.get(header)
    if live is None and word[0] in (CANCEL, RECALL):
        live = FlowRunElsewhere.of(header, port)
    if live is not None:
        live.hear(word)


def _forget_oldest() -> None:
    """Forget flow runs that have nothing here any more, the oldest first; none that has."""
    idle = [header for header, live in _flow_runs.items() if not live.bundles]
    # The last one is new: its first bundle has not begun.
    for header in idle[: max(0, min(len(_flow_runs) - _MOST_FLOW_RUNS, len(idle) - 1))]:
        _flow_runs.pop(header).loop.close()


class WorkerRecorder:
    """The recorder of runs on a worker: tells the driver, which records."""

    failure = None
    is_usable = True

    def __init__(self, outbox: Outbox, desk: WorkerDesk) -> None:
        self._outbox = outbox
        self.desk = desk
        self.lone_tasks: set[int] = set()

    def record(self, kind: int, subject: Any) -> None:
        """Tell of a change of a run, or of a task that is new to a flow run."""
        if isinstance(subject, WorkerTaskRun) and subject.item is not None:
            # It was sent here: its driver only needs to know that an attempt begins.
            # Short ones are reported by their end alone.
            subject.attempt_started_at = time_ns()
            subject.bundle.running = subject
            self._outbox.enters()
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
