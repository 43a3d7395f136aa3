"""The driver's side of an engine: bundles calls, sends them, and takes in what workers report.

place(calls) ─► lanes ─► compose ─► engine.send        one thread does everything right of
                  ▲          ▲                         the lanes, so nothing needs a lock
 given back ──────┘          │ followers: calls whose upstreams are in the bundle
                             │
engine.hear(report) ─► inbox ─► ENDED ─► call.finished ─► …
engine.sent_ended(bundle) ─► inbox ─► one attempt of what ran there; the rest is sent again
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from penstock.core.outcomes import raised
from penstock.errors import EngineLost, WorkerLost
from penstock.failpoints import FAILPOINTS, hit
from penstock.remote.called_off import CalledOff
from penstock.remote.cargo import Cargo
from penstock.remote.engine import Bundle, Engine
from penstock.remote.futures import let_futures_travel
from penstock.remote.handover import Handovers
from penstock.remote.lanes import Lane, Lanes
from penstock.remote.messages import CANCEL, RECALL
from penstock.remote.recovery import Recoveries, Recovery, Unrun
from penstock.remote.reports import Reports
from penstock.remote.sending import message_of, raw_message
from penstock.remote.suspects import Suspects
from penstock.remote.values import ArrivedState
from penstock.runtime.attempts import TASK_RUN, cancelled_state
from penstock.runtime.blocking import ServiceThread
from penstock.states import State, exception_to_crashed_state
from penstock.task_runners.queues import take_back

logger = logging.getLogger("penstock.remote")


class Dispatcher:
    """Sends the calls of one started runner to its engine. `place` and what tells of the engine
    are thread-safe; everything else happens in one thread.

    Args:
        engine: what carries bundles.
        bundles: False sends every call on its own.

    Attributes:
        most_losses: losses of a call that never began, after which the engine itself must be at
            fault.
    """

    most_losses = 20

    def __init__(self, engine: Engine, bundles: bool = True) -> None:
        let_futures_travel()
        self.engine = engine
        handovers = Handovers(self.post, self.again, self._refuse)
        self.lanes = Lanes(self._refuse, bundles, handovers)
        self.reports = Reports(self)
        self._called_off = CalledOff(engine, self.header_of)
        self.recoveries = Recoveries(self)
        self._suspects = Suspects()
        self.open: dict[bytes, Cargo] = {}
        self.in_flight: dict[str, Bundle] = {}
        self.waiting: set[str] = set()
        self.failure: BaseException | None = None
        self._inbox: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = SimpleQueue()
        self._arrivals: deque[Cargo] = deque()
        self._foreseen: deque[Cargo] = deque()
        self._is_awake = False
        self._is_full = False
        # Whether any bundle may run in some places only.
        self._is_restricted = False
        self.is_closed = False
        self._idle: list[Callable[[], object]] = []
        self._thread = ServiceThread(target=self._serve, name="penstock-dispatch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread once what it was given is done."""
        self.reports.close()
        self.is_closed = True
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # From any thread.

    def place(self, calls: Sequence[Any]) -> None:
        """Take in calls whose upstreams have settled."""
        for call in calls:
            cargo = call.cargo
            if cargo is None:
                cargo = self._load(call)
                if cargo is None:
                    continue
            elif cargo.is_early:
                self.post(self._settle_early, cargo)
                continue
            call.ticket = [None]
            self._arrivals.append(cargo)
        # While no more can be sent, the next report wakes the thread soon enough.
        if not self._is_awake and (not self._is_full or _has_own_places(calls[0].cargo)):
            self.wake()

    def foresee(self, call: Any) -> None:
        """Take note of a call whose upstreams have not settled: it may travel along with them."""
        call.cargo = cargo = Cargo(call)
        try:
            cargo.options = self.engine.options_of(call)
        except Exception as exc:
            call.live.finish(call, raised(exc, TASK_RUN, call.live.now(), cargo.run.key))
        else:
            self._foreseen.append(cargo)

    def take_back(self, call: Any) -> bool:
        """Take back a call that waits here; tell whether it did."""
        cargo = call.cargo
        if cargo is None or cargo.bundle is not None:
            return False
        return take_back(call)

    def recall(self, call: Any) -> None:
        """Have a call end CANCELLED if it has not started."""
        self.post(self._call_off, call, RECALL)

    def interrupt(self, call: Any) -> None:
        """Have a call stopped that travels or runs; its end is none of ours any more."""
        self.post(self._call_off, call, CANCEL)

    def unsent(self, bundle: Bundle) -> None:
        """Take that a bundle is with no worker, and will not be."""
        self.post(self._unsent, bundle)

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have a function called in the dispatcher's thread."""
        self._is_awake = True
        self._inbox.put((function, arguments))

    def wake(self) -> None:
        """Look whether more can be sent."""
        self.post(lambda: None)

    def hear(self, report: bytes) -> None:
        """Take a report of a worker."""
        self.post(self.reports.take, report)

    def sent_ended(self, bundle: Bundle, problem: BaseException | None, worker: str | None) -> None:
        """Take that the engine is done with a bundle.

        Args:
            problem: why it was not executed to its end; None if it was.
            worker: where that happened, as far as known.
        """
        self.post(self._sent_ended, bundle, problem, worker)

    def fail(self, problem: BaseException) -> None:
        """Take that the engine is gone: nothing that is open can end any more."""
        self.post(self._fail, problem)

    def refuses_to_block(self) -> str | None:
        """Say why nobody may wait here for what the dispatcher does; None where one may."""
        if self.is_closed:
            return "the flow run has ended"
        if threading.current_thread() is self._thread:
            return "it was asked for where nothing may block, such as in a done callback"
        return None

    def when_idle(self, ring: Callable[[], object]) -> None:
        """Call a function once nothing is open."""
        self.post(self._when_idle, ring)

    def send_raw(self, key: bytes, code: bytes, end: Callable[[State], None]) -> None:
        """Send a callable that belongs to no flow run; `end` takes its state."""
        self.post(self._send_raw, key, code, end)

    # In the dispatcher's thread.

    def _serve(self) -> None:
        while True:
            work = self._inbox.get()
            try:
                while work is not None:
                    work[0](*work[1])
                    work = self._inbox.get_nowait()
                return
            except Empty:
                pass
            except BaseException:
                logger.exception("The dispatcher of an engine failed.")
            self._is_awake = False
            try:
                self._send_ready()
            except BaseException:
                logger.exception("The dispatcher of an engine failed.")

    def _load(self, call: Any) -> Cargo | None:
        """Make the cargo of a call; arguments that cannot travel end it here."""
        cargo = call.cargo = Cargo(call)
        try:
            cargo.options = self.engine.options_of(call)
            if call.found is None:
                # Packed at once: what the caller changes afterwards is not meant for it.
                cargo.pack()
                if cargo.large:
                    self.lanes.note_large(cargo)
        except Exception as exc:
            self._refuse(call, exc)
            return None
        return cargo

    def _refuse(self, call: Any, exc: BaseException) -> None:
        run = call.task_run
        call.life = None  # trying again would not help
        call.finished(raised(exc, TASK_RUN, call.live.now(), run.key))

    def _send_ready(self) -> None:
        self._called_off.send()
        self._is_full = False
        while self._foreseen:
            cargo = self._foreseen.popleft()
            if not cargo.is_over and cargo.bundle is None:
                self.lanes.foresee(cargo)
        while self._arrivals:
            cargo = self._arrivals.popleft()
            call = cargo.call
            if self.failure is not None:
                call.live.fatal = self.failure
                call.finished(exception_to_crashed_state(self.failure))
            elif cargo.bundle is not None or cargo.report is not None:
                self._settle_early(cargo)
            elif cargo.is_suspect or self._suspects.is_one(cargo.run.key):
                cargo.is_suspect = True
                self._suspects.take(cargo)
            elif take_back(call):
                # It gets another ticket with its place in the lane.
                self.lanes.take(cargo)
        workers = self.engine.workers()
        self._send_suspects(workers)
        has_room = partial(self._has_room, workers)
        while self.failure is None:
            lane = self.lanes.next(has_room)
            if lane is None:
                self._is_full = self.lanes.has_more() and not self._is_restricted
                return
            composed = self.lanes.compose(lane, workers)
            if together := [each for each in composed if not self.recoveries.holds_up(each)]:
                self._send(Bundle(lane.options, together))

    def _has_room(self, workers: int, lane: Lane) -> bool:
        return self._busy(lane) < lane.most_ahead(workers, self.engine.looks_ahead)

    def _busy(self, lane: Lane) -> int:
        """Count the bundles on their way that compete with a lane for places."""
        # A bundle whose task run waits for others has left its place to them.
        if not self._is_restricted and lane.places is None:
            return len(self.in_flight) - len(self.waiting)
        rivals = [one for one in self.in_flight.values() if one.places == lane.places]
        return sum(one.id not in self.waiting for one in rivals)

    def _send_suspects(self, workers: int) -> None:
        """Send suspects, each on its own."""
        while self.failure is None and (cargo := self._suspects.next(workers)) is not None:
            if self.lanes.pack(cargo) and not self.recoveries.holds_up(cargo):
                bundle = Bundle(cargo.options, (cargo,))
                self._suspects.sent(bundle.id, cargo)
                self._send(bundle)

    def send_alone(
        self, cargo: Recovery, options: Any, given: dict[bytes, tuple[Any, ...]] | None
    ) -> None:
        """Send what makes a value again."""
        self._send(Bundle(options, (cargo,)), given)

    def _send(self, bundle: Bundle, given: dict[bytes, tuple[Any, ...]] | None = None) -> None:
        self._is_restricted |= bundle.places is not None
        self.in_flight[bundle.id] = bundle
        for cargo in bundle.cargo.values():
            cargo.bundle = bundle
            cargo.was_started, cargo.worker = False, None
            self.open[cargo.run.key] = cargo
        try:
            data = message_of(bundle, self.header_of(bundle), self.engine, self.lanes.codes, given)
            self.engine.send(bundle, data)
            if FAILPOINTS:
                hit("task.dispatched")
        except Exception as exc:
            # Nobody else knows of these calls now: they must not be lost.
            self._sent_ended(bundle, exc, None)

    def _send_raw(self, key: bytes, code: bytes, end: Callable[[State], None]) -> None:
        bundle = Bundle.of_raw(key)
        self.reports.expect_raw(key, end)
        self.in_flight[bundle.id] = bundle
        try:
            self.engine.send(bundle, raw_message(bundle, self.reports.raw_header(), key, code))
        except Exception as exc:
            self._sent_ended(bundle, exc, None)

    def header_of(self, bundle: Bundle) -> bytes:
        """Give what workers need to know of the flow run that the calls of a bundle belong to."""
        return self.reports.header(next(iter(bundle.cargo.values())).call.live)

    # Ends.

    def ended(self, cargo: Cargo, state: State) -> None:
        """Take the end of an attempt."""
        self.open.pop(cargo.run.key, None)
        if cargo.bundle is not None:
            cargo.bundle.cargo.pop(cargo.run.key, None)
        cargo.bundle = None
        if isinstance(cargo, Recovery):
            self.recoveries.ended(cargo, state)
            return
        if self._idle:
            self.post(self._tell_idle)
        if cargo.is_early:
            # Its upstreams have ended on the worker, but may not have been settled here.
            cargo.report = state
            return
        self._finish(cargo, state)

    def _finish(self, cargo: Cargo, state: State) -> None:
        call = cargo.call
        call.cargo = None
        if isinstance(state, ArrivedState) and state.fetch is not None and not cargo.is_over:
            self.recoveries.note(cargo, state.fetch)
        if (call.task.hooks or call.task.retry_condition_fn) and not cargo.is_over:
            # They may wait for other task runs, whose ends pass through this thread.
            threading.Thread(
                target=call.finished, args=(state,), name="penstock-hooks", daemon=True
            ).start()
        else:
            call.finished(state)
        if call.task_run.is_over:
            self.lanes.forget(call.task_run)
            self._suspects.forget(call.task_run.key)

    def _settle_early(self, cargo: Cargo) -> None:
        """Take that the upstreams of a call that travels along have settled here, too."""
        if cargo.call.cargo is not cargo:
            return  # its attempt was lost meanwhile
        cargo.is_early = False
        if cargo.report is not None:
            report, cargo.report = cargo.report, None
            self._finish(cargo, report)
        elif cargo.bundle is None:
            self.again(cargo)

    def given_back(self, keys: Iterable[bytes]) -> None:
        """Take back what a worker did not start."""
        for key in keys:
            cargo = self.open.pop(key, None)
            if cargo is not None:
                if cargo.bundle is not None:
                    cargo.bundle.cargo.pop(key, None)
                self.again(cargo)

    def again(self, cargo: Cargo) -> None:
        """Queue a call again that was not started, or let it wait for its upstreams."""
        cargo.bundle = None
        if isinstance(cargo, Recovery):
            self.recoveries.lost(cargo, WorkerLost("The worker gave it back."))
            return
        if cargo.is_over:
            return
        if cargo.is_recalled:
            cargo.is_early = False
            cargo.call.live.finish(cargo.call, cancelled_state(cargo.run))
        elif cargo.is_early:
            cargo.is_early = False
            if not cargo.is_suspect:
                self._foreseen.append(cargo)
        else:
            cargo.call.ticket = [None]
            self._arrivals.append(cargo)

    def bundle_ended(self, bundle_id: str) -> None:
        """Take that a worker is through with a bundle."""
        bundle = self._landed(bundle_id)
        if bundle is not None:
            for cargo in list(bundle.cargo.values()):
                self.open.pop(cargo.run.key, None)
                self._lost(cargo, WorkerLost("The worker never told how it ended."))
        self._tell_idle()

    def _landed(self, bundle_id: str) -> Bundle | None:
        self.waiting.discard(bundle_id)
        self._suspects.landed(bundle_id)
        return self.in_flight.pop(bundle_id, None)

    def _sent_ended(
        self, bundle: Bundle, problem: BaseException | None, worker: str | None
    ) -> None:
        if self._landed(bundle.id) is None:
            return
        problem = problem or WorkerLost("The worker never told how its task runs ended.")
        if bundle.raw_key is not None:
            self.reports.end_raw(bundle.raw_key, exception_to_crashed_state(problem))
        for cargo in list(bundle.cargo.values()):
            self.open.pop(cargo.run.key, None)
            self._lost(cargo, problem)
        self._tell_idle()

    def _lost(self, cargo: Cargo, problem: BaseException) -> None:
        """Decide on a call whose bundle was lost: what ran there has lost an attempt."""
        cargo.bundle = None
        self.reports.close_mirrors(cargo.run.key, problem)
        if isinstance(cargo, Recovery):
            self.recoveries.lost(cargo, problem)
            return
        is_worker_lost = isinstance(problem, WorkerLost)
        if cargo.was_started or not is_worker_lost:
            if is_worker_lost:
                self._suspects.charge(cargo)
            self.crash(cargo, problem)
            return
        cargo.losses += 1
        if cargo.losses > self.most_losses:
            cargo.call.life = None
            self.crash(cargo, problem)
            return
        if not self.engine.knows_starts:
            # Whether it had begun nobody knows, except of a suspect: those say so beforehand.
            cargo.is_suspect = cargo.is_suspect or not isinstance(problem, Unrun)
        self.again(cargo)

    def crash(self, cargo: Cargo, problem: BaseException) -> None:
        """End an attempt that the engine has lost."""
        self.reports.begin(cargo, None)
        cargo.is_early = False
        self._finish(cargo, exception_to_crashed_state(problem))

    def _call_off(self, call: Any, kind: int) -> None:
        cargo = call.cargo
        if cargo is None:
            return
        cargo.is_recalled = True
        if cargo.bundle is not None:
            self._called_off.add(cargo.bundle, kind, cargo.run.key)
        elif kind == RECALL and self.take_back(call):
            # It was given back just before, and waits here again.
            call.live.finish(call, cancelled_state(cargo.run))

    def _unsent(self, bundle: Bundle) -> None:
        if self._landed(bundle.id) is not None:
            self.given_back(list(bundle.cargo))
            bundle.cargo.clear()
            self._tell_idle()

    def _fail(self, problem: BaseException) -> None:
        if self.failure is not None:
            return
        self.failure = problem if isinstance(problem, EngineLost) else EngineLost(str(problem))
        logger.error("%s", self.failure)
        lost = [*self.open.values(), *self.lanes.drain()]
        self._suspects.drain(lost.append)
        bundles = list(self.in_flight.values())
        self.open.clear()
        self.in_flight.clear()
        self.waiting.clear()
        for bundle in bundles:
            self._suspects.landed(bundle.id)
            if bundle.raw_key is not None:
                self.reports.end_raw(bundle.raw_key, exception_to_crashed_state(self.failure))
        self.reports.fail(self.failure)
        for cargo in lost:
            if not isinstance(cargo, Recovery):
                cargo.bundle, cargo.is_early = None, False
                cargo.call.life = None
                self._finish(cargo, exception_to_crashed_state(self.failure))
        self.recoveries.fail(self.failure)
        self._tell_idle()

    def _when_idle(self, ring: Callable[[], object]) -> None:
        self._idle.append(ring)
        self._tell_idle()

    def _is_idle(self) -> bool:
        # A bundle may stay on its way for ever when the code of an ended task run goes on.
        raw = any(bundle.raw_key is not None for bundle in self.in_flight.values())
        return not raw and not self.open and not self._arrivals

    def _tell_idle(self) -> None:
        if self._idle and self._is_idle():
            rings, self._idle = self._idle, []
            for ring in rings:
                ring()


def _has_own_places(cargo: Cargo | None) -> bool:
    return cargo is not None and cargo.options is not None and cargo.options.places is not None
