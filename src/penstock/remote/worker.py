"""Execute bundles on a worker: one task run after another, each reported on its own.

    run_bundle ──► for each item: take it ─► unpack ─► TaskCall.run ─► encode ─► outbox
                        ▲                                   │
      ticker ── over its budget: gives back what is left ───┘ (also before an item waits)

Nothing that the user's code does gets out of here: what is not contained by the call itself ends
that one item.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict, deque
from collections.abc import Mapping
from time import monotonic, time_ns
from typing import Any

from penstock.core.outcomes import raised
from penstock.errors import SerializationError
from penstock.failpoints import FAILPOINTS, hit
from penstock.remote.failures import state_to_record
from penstock.remote.flow_run import RECALLED, FlowRunElsewhere
from penstock.remote.messages import (
    BUNDLE_ENDED,
    CAME_BACK,
    CODE_MISSING,
    ENDED,
    GIVEN_BACK,
    KEPT,
    LEFT,
    RAW_ENDED,
    STARTED,
    STUCK,
    Item,
    Sent,
    Value,
)
from penstock.remote.outbox import Port, ticker
from penstock.remote.parcels import unpack, unpack_code
from penstock.remote.values import decode, encode
from penstock.remote.worker_runs import WorkerTaskRun
from penstock.runtime.attempts import TASK_RUN
from penstock.runtime.calls import TaskCall
from penstock.runtime.context import current_tags
from penstock.runtime.prints import record_prints
from penstock.states import (
    KeptState,
    State,
    StateType,
    describe_exception,
    exception_to_crashed_state,
)

_MOST_CODES = 1000
_codes: OrderedDict[str, Any] = OrderedDict()


class CodeMissing(Exception):
    """A worker was sent a task without its code, and has not seen it before."""


def run_bundle(data: bytes, parts: Mapping[str, Any], port: Port) -> None:
    """Execute a bundle and report on it.

    Args:
        data: a pickled `Sent`.
        parts: large buffers by digest, and kept values of upstreams by name.
        port: the way to the driver, and to the engine.
    """
    if FAILPOINTS:
        hit("worker.received")
    sent = Sent(*pickle.loads(data))
    live = FlowRunElsewhere.of(sent.header, port)
    bundle = Bundle(sent, parts, live)
    live.bundles[sent.id] = bundle
    ticker.add(bundle)
    try:
        if sent.raw is None:
            bundle.run()
        else:
            _run_raw(live, *sent.raw)
        live.outbox.add(BUNDLE_ENDED, sent.id)
    finally:
        ticker.remove(bundle)
        live.bundles.pop(sent.id, None)
        live.outbox.flush()


class Bundle:
    """A bundle that is being executed."""

    def __init__(self, sent: Sent, parts: Mapping[str, Any], live: FlowRunElsewhere) -> None:
        self.sent = sent
        self.parts = parts
        self.live = live
        self.rest = deque(Item(*item) for item in sent.items)
        self.values: dict[bytes, Any] = {}
        self.running: WorkerTaskRun | None = None
        self._told: WorkerTaskRun | None = None
        self._give_back_at = monotonic() + sent.budget
        # When the item was ended whose code runs.
        self._ended_at: float | None = None

    def run(self) -> None:
        """Execute the items that nobody takes away."""
        # Taking an item is one atomic step: an item is executed or given back, never both.
        while True:
            try:
                item = self.rest.popleft()
            except IndexError:
                return
            claims = self.live.claims
            if self._claim(item.key) is RECALLED:
                claims.pop(item.key, None)  # it was called off, and its driver knows
            elif item.waits_for and any(key not in self.values for key in item.waits_for):
                self.live.outbox.add(GIVEN_BACK, [item.key])
            else:
                self._execute(item)
            if claims.get(item.key) is self:
                # The next attempt may have begun while the code of this one went on.
                claims.pop(item.key, None)

    def _claim(self, key: bytes) -> object:
        """Claim a task run, also from an attempt that is over; give who has it: this, or nobody."""
        claims = self.live.claims
        claim = claims.setdefault(key, self)
        while claim is not self and claim is not RECALLED:
            # Each step is atomic: a word to call it off is seen, whenever it comes.
            claim = claims.pop(key, None)
            if claim is not RECALLED:
                claim = claims.setdefault(key, self)
        return claim

    def tick(self) -> None:
        """Tell the driver what has happened; give back the rest when it takes too long."""
        if self.rest and monotonic() > self._give_back_at:
            self.give_back()
        run = self.running
        if run is not None and run is not self._told:
            self._told = run
            self.live.tell_start(run, run.attempt, run.attempt_started_at)
        ended_at = self._ended_at
        if ended_at is not None and monotonic() > ended_at + self.live.outbox.port.patience:
            self._ended_at = None
            self.live.outbox.add(STUCK)
        self.live.outbox.flush()

    def give_back(self) -> None:
        """Give back what has not started. Thread-safe."""
        keys = []
        while True:
            try:
                keys.append(self.rest.popleft().key)
            except IndexError:
                break
        if keys:
            self.live.outbox.add(GIVEN_BACK, keys)

    def _execute(self, item: Item) -> None:
        outbox = self.live.outbox
        # Before its arguments are unpacked, which may be what kills.
        outbox.begins(item.key, item.attempt + 1)
        try:
            self._execute_begun(item)
        finally:
            outbox.rests()

    def _execute_begun(self, item: Item) -> None:
        try:
            task = self._code_of(item.code)
            if item.is_suspect:
                self.live.outbox.confirm(STARTED, item.key, item.attempt + 1, time_ns())
            call = self._call_of(item, task)
            if FAILPOINTS:
                hit("worker.body_start")
        except CodeMissing:
            self.live.outbox.add(CODE_MISSING, item.key, item.code)
            return
        except BaseException as exc:
            self._refuse(item, exc)
            return
        try:
            if call.is_async:
                self.live.run_async(call)
            else:
                call.run()
        except BaseException as exc:
            # A call contains what the user's code raises: this is an error of our own, or an
            # interrupt that was meant for the worker.
            call.finished(exception_to_crashed_state(exc))
        self._ended_at = None

    def _refuse(self, item: Item, exc: BaseException) -> None:
        """End an item that could not even be unpacked here."""
        now = time_ns()
        problem = self._explained(exc)
        state = raised(problem, TASK_RUN, now, item.key)
        record = state_to_record(state)
        self.live.outbox.add(ENDED, item.key, item.attempt + 1, now, now, None, record)

    def _explained(self, exc: BaseException) -> BaseException:
        import socket

        if isinstance(exc, ImportError):
            explained: BaseException = type(exc)(
                f"{exc} on worker {self.live.outbox.port.worker} (host "
                f"{socket.gethostname()}). The module that the task needs must be importable "
                "there: install it on the workers, or add its folder to their PYTHONPATH."
            )
            explained.__cause__ = exc
            return explained
        return exc

    def _call_of(self, item: Item, task: Any) -> TaskCall:
        values = unpack(item.data, self.parts, resolver=self._resolve) if item.data else ()
        run = WorkerTaskRun(task, item.key, item.created_at)
        run.values = values
        run.number, run.custom_name = item.number, item.custom_name
        run.attempt, run.started_at = item.attempt, item.started_at
        run.tags, run.log_prints = item.tags, item.log_prints
        run.inside = item.inside
        run.live = live = self.live
        run.recorder = live.recorder
        args, kwargs = task.signature.call_arguments(values)
        call = TaskCall(live, task, run, args, kwargs, None, live.runner, live.loop)  # type: ignore[arg-type]
        call.life = None
        if item.tags_in_force:
            call.context.run(current_tags.set, item.tags_in_force)
        call.slot = WorkerSlot(self, live.outbox.port)
        call.get_ready()
        if run.log_prints:
            record_prints()
        run.bundle = self
        run.item = item
        live.open(call)
        return call

    def _code_of(self, digest: str) -> Any:
        task = _codes.get(digest)
        if task is None:
            data = self.sent.code[digest] or self.parts.get(digest)
            if data is None:
                raise CodeMissing(digest)
            task = _codes[digest] = unpack_code(data, self._resolve)
            while len(_codes) > _MOST_CODES:
                _codes.popitem(last=False)
        return task

    def _resolve(self, token: Any) -> Any:
        """Give what a placeholder in the arguments stands for."""
        kind, what = token
        if kind == "run":
            return self.values[what] if what in self.values else self._given(what)
        if kind == "kept":
            return self.parts[what]
        if kind == "value":
            return decode(Value(*what))
        return self.live.future_of(what)

    def _given(self, key: bytes) -> Any:
        """Give the value of an upstream that travelled along when an item was first sent."""
        value = Value(*(self.sent.given or {})[key])
        return self.parts[value.data] if value.place == KEPT else decode(value)

    def note_end(self, item: Item, run: WorkerTaskRun, state: State) -> None:
        """Report how an item ended; keep its value for those that wait for it here."""
        self.running = None
        self._ended_at = monotonic()
        if FAILPOINTS:
            hit("worker.body_end")
        ended_at = time_ns()
        started_at = run.attempt_started_at or ended_at
        outbox, place = self.live.outbox, None
        if state.type is StateType.COMPLETED:
            value = state.data
            try:
                own = outbox.port.own
                held = state.small() if isinstance(state, KeptState) else (None, None)
                place = encode(
                    value, lambda value: self._keep(run, value), own, self._resolve, held
                )
                if FAILPOINTS:
                    hit("worker.serialised")
            except BaseException as exc:
                state = raised(_unsendable(exc), TASK_RUN, ended_at, item.key)
            else:
                self.values[item.key] = value
        if place is not None:
            name, message = state.special_name, state.message
            how = (name, message) if name or message else None
            outbox.add(ENDED, item.key, run.attempt, started_at, ended_at, tuple(place), how)
        else:
            record = self._record(state, item)
            outbox.add(ENDED, item.key, run.attempt, started_at, ended_at, None, record)

    def _record(self, state: State, item: Item) -> Any:
        try:
            return state_to_record(state)
        except Exception as exc:
            return state_to_record(raised(_unsendable(exc), TASK_RUN, state.at, item.key))

    def _keep(self, run: WorkerTaskRun, value: Any) -> tuple[str, int]:
        # The engine shows the name to people.
        name = f"{run.name}-{run.key.hex()}-{run.attempt}-value"
        outbox = self.live.outbox
        return name, outbox.port.keep(outbox.reply_to, name, value)


def _unsendable(exc: BaseException) -> BaseException:
    if isinstance(exc, SerializationError):
        told = SerializationError(str(exc).replace("argument 'result'", "the result", 1))
        told.__cause__ = exc.__cause__
        return told
    problem = SerializationError(f"The result cannot leave its worker: {describe_exception(exc)}")
    problem.__cause__ = exc
    return problem


class WorkerSlot:
    """The place of a task run on its worker, left while it waits for others."""

    def __init__(self, bundle: Bundle, port: Port) -> None:
        self._bundle = bundle
        self._port = port
        self._depth = 0
        self.gives_up_after = port.gives_up_after

    def leave(self) -> None:
        # What waits behind it in the bundle may be what it waits for.
        bundle = self._bundle
        bundle.give_back()
        self._depth += 1
        if self._depth == 1:
            # Others may have the place meanwhile.
            bundle.live.outbox.add(LEFT, bundle.sent.id)
            self._port.leave()
        bundle.live.outbox.flush()

    def come_back(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._port.come_back()
            self._bundle.live.outbox.add(CAME_BACK, self._bundle.sent.id)

    async def acome_back(self) -> None:
        self.come_back()

    def abandon(self) -> None:
        self._bundle.give_back()
        self._bundle.live.outbox.flush()

    def lend(self) -> None:
        return None

    def take_home(self, lent: Any) -> None:
        pass


def _run_raw(live: FlowRunElsewhere, key: bytes, code: bytes) -> None:
    """Execute a callable that was handed to `submit` of a runner itself, outside any flow run."""
    try:
        record = state_to_record(live.run_coroutine(unpack_code(code)), with_value=True)
    except BaseException as exc:
        record = state_to_record(exception_to_crashed_state(exc))
    live.outbox.add(RAW_ENDED, key, record)
