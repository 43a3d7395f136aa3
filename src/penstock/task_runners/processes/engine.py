"""A pool of worker processes as an engine.

    dispatcher ──send──► crew: which worker? ──► supervisor ──► worker process
               ◄──hear── supervisor ◄── reports; of a dead worker also what its black box says

A worker executes one bundle at a time. It is sent another one ahead where both are short, so that
it need not wait for it; and it gives that back when the first takes long. A worker whose task run
waits for others counts as away, and a further one takes its place.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from penstock.core.resources import said
from penstock.errors import EngineLost, WorkerLost
from penstock.remote.dispatch import Dispatcher
from penstock.remote.engine import Bundle, Engine, Options
from penstock.remote.messages import CANCEL, STARTED
from penstock.states import describe_exception
from penstock.task_runners.accounts import Account, Grant
from penstock.task_runners.admission import Waiting
from penstock.task_runners.processes.arena import OwnArena
from penstock.task_runners.processes.crew import Crew, Member, Order, is_short
from penstock.task_runners.processes.deaths import Deaths
from penstock.task_runners.processes.frames import (
    BROKEN,
    BUNDLE,
    BYE,
    CAME_BACK,
    DONE,
    GO,
    LEFT,
    READY,
    REPORT,
    RETURNED,
    WORD,
)
from penstock.task_runners.processes.kept import KeptValue, SharedBuffer
from penstock.task_runners.processes.limits import Limits, Overdue
from penstock.task_runners.processes.port import BUFFER, VALUE, Load
from penstock.task_runners.processes.supervisor import WorkerProcess, join

logger = logging.getLogger("penstock.task_runner.processpool")
_PATIENCE_SECONDS = 2.0
_MOST_STILLBORN = 3
"""Workers that may end one after another before they are ready; then there is no use in more."""


class ProcessEngine(Engine):
    """The workers of one started pool. Thread-safe.

    Args:
        limit: how many of them may be busy at the same time.
        initializer: a packed function and its arguments, called in each worker first.
        resources: amounts of the runner's own names.

    Attributes:
        account: what its bundles hold of the machine.
    """

    knows_starts = True
    # So that no worker waits for the dispatcher between two calls of some length.
    looks_ahead = 2
    reply_to = None

    def __init__(
        self, limit: int, initializer: bytes | None, resources: Mapping[str, float] | None = None
    ) -> None:
        self._crew = Crew(limit)
        self.account = Account(resources, limit)
        # Bundles in line for what they ask for.
        self._in_line: dict[Bundle, tuple[Order, Waiting]] = {}
        self._due: deque[Callable[[], object]] = deque()
        self._limits = Limits()
        self._deaths = Deaths()
        self._lock = threading.RLock()
        self._dispatcher: Dispatcher | None = None
        self._shared: WeakValueDictionary[str, SharedBuffer] = WeakValueDictionary()
        self._numbers = itertools.count(1)
        # How many reports have arrived of each worker.
        self._reports: dict[WorkerProcess, int] = {}
        self._stillborn = 0
        self._is_short_handed = False
        self._is_closing = False
        self._initializer = initializer
        self._all_gone = threading.Event()
        with ExitStack() as undone:
            undone.callback(self.account.close)
            self._arena = OwnArena()
            undone.callback(self._arena.close)
            self._supervisor = join(self)
            undone.pop_all()

    def close(self) -> None:
        """End the workers, kindly if they let themselves be; blocks until they are gone."""
        with self._lock:
            self._is_closing = True
            for member in self._crew:
                self._supervisor.tell(member.worker, BYE)
            if not self._crew:
                self._all_gone.set()
        if not self._all_gone.wait(_PATIENCE_SECONDS):
            with self._lock:
                for member in self._crew:
                    self._supervisor.kill(member.worker)
            self._all_gone.wait(_PATIENCE_SECONDS)
        self._supervisor.leave(self)
        self.account.close()
        self._arena.close()

    def listen(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def workers(self) -> int:
        return self._crew.limit

    def names(self) -> frozenset[str]:
        with self._lock:
            return frozenset(member.worker.name for member in self._crew)

    def options_of(self, call: Any) -> Options | None:
        resources = call.task.resources
        return Options(frozenset(resources.items()), None) if resources else None

    def send(self, bundle: Bundle, data: bytes) -> None:
        parts = [
            (part.native, VALUE if isinstance(part, KeptValue) else BUFFER)
            for part in bundle.parts.values()
        ]
        order = Order(bundle, data, parts, is_short(bundle))
        if bundle.options is not None:
            self._line_up(order)
            return
        with self._lock:
            self._crew.waiting.append(order)
            self._place()

    def _line_up(self, order: Order) -> None:
        """Let a bundle wait for the resources that it asks for; it costs a place in a line."""
        bundle = order.bundle
        call = next(iter(bundle.cargo.values())).call

        def start(grant: Grant) -> None:
            order.grant = grant
            with self._lock:
                self._in_line.pop(bundle, None)
                # It keeps others waiting: it is the first to get a worker.
                self._crew.waiting.appendleft(order)
                self._place()

        waiting = self.account.waiting(call.task.resources, call.priority, start, call)
        with self._lock:
            self._in_line[bundle] = order, waiting
        self.account.line_up(waiting)
        self._warn_of_circles()

    def _release(self, order: Order) -> None:
        """Have what a bundle holds given back."""
        if order.grant is not None:
            self._due.append(partial(self.account.release, order.grant))

    def _settle(self) -> None:
        """Do what may call other pools: never under the lock, for they have locks as well."""
        while self._due:
            with suppress(IndexError):
                self._due.popleft()()

    def tell(self, worker: str, data: bytes) -> None:
        with self._lock:
            member = self._crew.named(worker)
            if member is not None:
                self._supervisor.tell(member.worker, WORD, data)

    def tell_about(self, bundle: Bundle, data: bytes) -> None:
        with self._lock:
            _, waiting = self._in_line.get(bundle, (None, None))
        if waiting is not None and self.account.withdraw(waiting):
            del self._in_line[bundle]
            self._heard().unsent(bundle)
            return
        self._tell_about(bundle, data)
        self._settle()

    def _tell_about(self, bundle: Bundle, data: bytes) -> None:
        with self._lock:
            order = self._crew.withdraw(bundle)
            if order is not None:
                self._release(order)
                self._heard().unsent(bundle)
                return
            member = self._crew.holder(bundle)
            if member is None:
                return
            self._supervisor.tell(member.worker, WORD, data)
            _, (kind, keys) = pickle.loads(data)
            if kind == CANCEL:
                self._limits.call_off(member.worker, keys)
                self._supervisor.ring()

    def share(self, digest: str, buffer: Any) -> SharedBuffer:
        shared = self._shared.get(digest)
        if shared is None:
            shared = self._shared[digest] = SharedBuffer(self._arena, digest, buffer)
        return shared

    def put(self, value: Any) -> str:
        name = f"put-{next(self._numbers)}"
        self._arena.write_value(name, value)
        return name

    def fetcher(self, name: str | None, worker: str) -> KeptValue:
        assert name is not None  # what lies in the arena is never lost
        return KeptValue(self, self._arena, name, worker)

    def is_stuck(self, worker: str) -> None:
        with self._lock:
            member = self._crew.named(worker)
            if member is not None:
                self._supervisor.kill(member.worker)

    # In the supervisor's thread.

    def hear(self, worker: WorkerProcess, kind: int, body: bytes) -> None:
        """Take what a worker says."""
        self._hear(worker, kind, body)
        self._settle()

    def _hear(self, worker: WorkerProcess, kind: int, body: bytes) -> None:
        if kind == REPORT:
            self._reports[worker] = self._reports.get(worker, 0) + 1
            self._heard().hear(body)
            return
        with self._lock:
            member = self._crew[worker]
            if kind == DONE:
                self._release(self._crew.done(member, body.decode()))
                self._rest(member)
            elif kind == RETURNED:
                self._crew.returned(member, body.decode())
                self._rest(member)
            elif kind == LEFT:
                member.is_away = True
                self._leave(member)
            elif kind == CAME_BACK:
                self._come_back(member)
            elif kind == READY:
                member.is_ready = True
                self._stillborn = 0
                for order in member.orders:
                    self._hand_over(member, order)
            elif kind == BROKEN:
                self._heard().fail(
                    EngineLost(f"The initializer of the process pool raised {body.decode()}.")
                )
            self._place()

    def died(self, worker: WorkerProcess, code: int | None, memory: int) -> None:
        """Take that a worker has died: what it was at has lost an attempt, nothing else."""
        text = self._deaths.describe(worker.pid, code, memory)
        with self._lock:
            member = self._crew.remove(worker)
            self._limits.forget(worker)
            self._tell_what_it_left_behind(worker)
            if member.now is not None:
                self._release(member.now)
                self._heard().sent_ended(member.now.bundle, WorkerLost(text), worker.name)
            if not member.is_ready and not self._is_closing:
                self._note_stillborn(text)
            if self._is_closing and not self._crew:
                self._all_gone.set()
            self._place()
        self._settle()

    def lost(self, why: str) -> None:
        """Take that the pool cannot go on."""
        self._heard().fail(EngineLost(why))

    def tick(self) -> bool:
        """Kill the workers whose code goes on though it should have stopped."""
        with self._lock:
            for overdue in list(self._limits.overdue()):
                self._limits.forget(overdue.worker)
                self._end_overdue(overdue)
            return bool(self._limits)

    def _heard(self) -> Dispatcher:
        assert self._dispatcher is not None
        return self._dispatcher

    def _leave(self, member: Member) -> None:
        """Let others have the processor of a task run that waits, and say who it is."""
        order, running = member.now, member.worker.box.running()
        if order is not None and order.grant is not None:
            if running is not None and running.key in order.bundle.cargo:
                order.grant.owner = order.bundle.cargo[running.key].call
            self._due.append(partial(self.account.leave, order.grant))
            self._due.append(self._warn_of_circles)

    def _warn_of_circles(self) -> None:
        """Say what waits for something that is only held by task runs which wait themselves."""
        with self._lock:
            away = {m.now.grant.owner for m in self._crew if m.is_away and m.now and m.now.grant}
            in_line = [order for order, _ in self._in_line.values() if not order.is_warned_of]
        for order in in_line:
            call = next(iter(order.bundle.cargo.values())).call
            holders = self.account.holders(call.resources)
            if holders and away.issuperset(holders):
                order.is_warned_of = True
                logger.warning(
                    "Task run %r waits for %s, which %s keep while they wait for others. If they "
                    "wait for it, none of them can ever go on: return the future instead.",
                    call.task_run.name,
                    said(call.resources),
                    ", ".join(sorted(holder.task_run.name for holder in holders)),
                )

    def _come_back(self, member: Member) -> None:
        """Let a task run go on that has waited, as soon as it has its processor again."""

        def go() -> None:
            with self._lock:
                member.is_away = False
                self._supervisor.tell(member.worker, GO)

        def come_back(grant: Grant) -> None:
            if self.account.come_back(grant, go):
                go()

        order = member.now
        if order is None or order.grant is None:
            member.is_away = False
        else:
            self._due.append(partial(come_back, order.grant))

    def _rest(self, member: Member) -> None:
        """Take that a worker may have nothing to do."""
        if member.now is None:
            self._limits.forget(member.worker)
        if not self._crew.waiting and self._crew.is_surplus(member):
            self._dismiss(member)

    def _tell_what_it_left_behind(self, worker: WorkerProcess) -> None:
        entries: list[Sequence[Any]] = list(worker.box.left_behind(self._reports.pop(worker, 0)))
        running = worker.box.running()
        if running is not None:
            entries.append((STARTED, running.key, running.attempt, running.began_at))
        if entries:
            self._heard().hear(pickle.dumps((worker.name, entries), 5))

    def _note_stillborn(self, text: str) -> None:
        self._stillborn += 1
        if self._stillborn >= _MOST_STILLBORN:
            self._heard().fail(
                EngineLost(
                    f"{self._stillborn} worker processes ended one after another before they were "
                    f"ready. Of the last one: {text}"
                )
            )

    def _end_overdue(self, overdue: Overdue) -> None:
        worker, running, limit = overdue
        member = self._crew[worker]
        if limit is not None and member.now is not None:
            # It may hold the interpreter of its process, and have been unable to say so itself.
            dispatcher = self._heard()
            told = member.now.bundle, running, limit, worker.name
            dispatcher.post(dispatcher.reports.time_out, *told)
        logger.warning(
            "A task run does not stop in worker process %d: the process is killed.", worker.pid
        )
        self._supervisor.kill(worker)

    # Under the lock.

    def _dismiss(self, member: Member | None) -> None:
        if member is not None:
            member.is_leaving = True
            self._supervisor.tell(member.worker, BYE)

    def _place(self) -> None:
        """Send what waits to workers, as far as there are any for it."""
        crew = self._crew
        while crew.waiting and not self._is_closing:
            order = crew.waiting[0]
            member = crew.free(order)
            if member is None and order.gpus and not crew.has_room():
                self._dismiss(crew.misfit())
            if member is None and crew.has_room():
                member = self._new_member()
            member = member or crew.soon_free(order)
            if member is None:
                return
            crew.waiting.popleft()
            crew.give(member, order)
            if member.is_ready:
                self._hand_over(member, order)

    def _new_member(self) -> Member | None:
        """Start a worker; None when there cannot be more, and those that there are must do."""
        try:
            worker = self._supervisor.start_worker(self, self._arena, self._initializer)
        except OSError as exc:
            text = f"No worker process can be started: {describe_exception(exc)}."
            if not self._crew.present():
                self._heard().fail(EngineLost(text))
            elif not self._is_short_handed:
                self._is_short_handed = True
                logger.warning("%s The %d that there are go on.", text, len(self._crew))
            return None
        return self._crew.add(worker)

    def _hand_over(self, member: Member, order: Order) -> None:
        """Send a bundle to a worker that is there: from now on only that knows what has begun."""
        limits = _time_limits(order.bundle)
        if limits:
            self._limits.expect(member.worker, limits)
            self._supervisor.ring()
        self._supervisor.tell(member.worker, BUNDLE, _load(order))


def _load(order: Order) -> bytes:
    variables = {"CUDA_VISIBLE_DEVICES": ",".join(order.gpus)} if order.gpus else {}
    has_cpu = order.grant is not None and bool(order.grant.cpu)
    return pickle.dumps(tuple(Load(order.bundle.id, order.data, order.parts, variables, has_cpu)))


def _time_limits(bundle: Bundle) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for key, cargo in bundle.cargo.items():
        task = getattr(cargo.call, "task", None)
        if task is not None and task.timeout_seconds is not None:
            found[key] = task.timeout_seconds
    return found
