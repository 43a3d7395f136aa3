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
from collections.abc import Sequence
from time import time_ns
from typing import Any
from weakref import WeakValueDictionary

from penstock.errors import EngineLost, WorkerLost
from penstock.remote.dispatch import Dispatcher
from penstock.remote.engine import Bundle, Engine, Options
from penstock.remote.failures import state_to_record
from penstock.remote.messages import CANCEL, ENDED, STARTED
from penstock.runtime.attempts import timed_out_state
from penstock.task_runners.processes.arena import OwnArena
from penstock.task_runners.processes.crew import Crew, Member, Order, is_short
from penstock.task_runners.processes.deaths import Deaths
from penstock.task_runners.processes.frames import (
    BROKEN,
    BUNDLE,
    BYE,
    CAME_BACK,
    DONE,
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
    """

    knows_starts = True
    looks_ahead = 0
    reply_to = None

    def __init__(self, limit: int, initializer: bytes | None) -> None:
        self._crew = Crew(limit)
        self._limits = Limits()
        self._deaths = Deaths()
        self._lock = threading.RLock()
        self._dispatcher: Dispatcher | None = None
        self._shared: WeakValueDictionary[str, SharedBuffer] = WeakValueDictionary()
        self._numbers = itertools.count(1)
        # How many reports have arrived of each worker.
        self._reports: dict[WorkerProcess, int] = {}
        self._stillborn = 0
        self._is_closing = False
        self._initializer = initializer
        self._arena = OwnArena()
        self._supervisor = join(self)
        self._all_gone = threading.Event()

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
        self._arena.close()

    def listen(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def workers(self) -> int:
        return self._crew.limit

    def names(self) -> frozenset[str]:
        with self._lock:
            return frozenset(member.worker.name for member in self._crew)

    def options_of(self, call: Any) -> Options | None:
        return None

    def send(self, bundle: Bundle, data: bytes) -> None:
        parts = [
            (part.native, VALUE if isinstance(part, KeptValue) else BUFFER)
            for part in bundle.parts.values()
        ]
        load = Load(bundle.id, data, parts, {})
        order = Order(bundle, pickle.dumps(tuple(load), 5), is_short(bundle))
        with self._lock:
            self._crew.waiting.append(order)
            self._place()

    def tell(self, worker: str, data: bytes) -> None:
        with self._lock:
            member = self._crew.named(worker)
            if member is not None:
                self._supervisor.tell(member.worker, WORD, data)

    def tell_about(self, bundle: Bundle, data: bytes) -> None:
        with self._lock:
            if self._crew.withdraw(bundle):
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
        if kind == REPORT:
            self._reports[worker] = self._reports.get(worker, 0) + 1
            self._heard().hear(body)
            return
        with self._lock:
            member = self._crew[worker]
            if kind == DONE:
                self._take_done(member, body.decode())
            elif kind == RETURNED:
                self._crew.take_back_ahead(member)
            elif kind == LEFT:
                member.is_away = True
            elif kind == CAME_BACK:
                member.is_away = False
            elif kind == READY:
                member.is_ready = True
                self._stillborn = 0
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
                self._heard().sent_ended(member.now.bundle, WorkerLost(text), worker.name)
            if not member.is_ready and not self._is_closing:
                self._note_stillborn(text)
            if self._is_closing and not self._crew:
                self._all_gone.set()
            self._place()

    def lost(self) -> None:
        """Take that no worker can be started."""
        self._heard().fail(
            EngineLost("No worker process can be started; what it printed says why.")
        )

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

    def _take_done(self, member: Member, bundle_id: str) -> None:
        self._crew.done(member, bundle_id)
        if member.now is None:
            self._limits.forget(member.worker)
        if not self._crew.waiting and self._crew.is_surplus(member):
            member.is_leaving = True
            self._supervisor.tell(member.worker, BYE)

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
        worker, _, limit = overdue
        member = self._crew[worker]
        if limit is not None and member.now is not None:
            # It may hold the interpreter of its process, and have been unable to say so itself.
            dispatcher = self._heard()
            dispatcher.post(self._time_out, dispatcher, member.now.bundle, overdue)
        logger.warning(
            "A task run does not stop in worker process %d: the process is killed.", worker.pid
        )
        self._supervisor.kill(worker)

    def _time_out(self, dispatcher: Dispatcher, bundle: Bundle, overdue: Overdue) -> None:
        """End a task run that has exceeded its time limit, unless its worker has told its end."""
        key, attempt, began_at, _ = overdue.running
        cargo = dispatcher.open.get(key)
        if cargo is None or cargo.bundle is not bundle or overdue.limit is None:
            return
        record = state_to_record(timed_out_state(cargo.run, overdue.limit))
        entry = (ENDED, key, attempt, began_at, time_ns(), None, record)
        dispatcher.reports.take(pickle.dumps((overdue.worker.name, [entry]), 5))

    # Under the lock.

    def _place(self) -> None:
        """Send what waits to workers, as far as there are any for it."""
        crew = self._crew
        while crew.waiting and not self._is_closing:
            order = crew.waiting[0]
            member = crew.free()
            if member is None and crew.has_room():
                member = crew.add(
                    self._supervisor.start_worker(self, self._arena, self._initializer)
                )
            member = member or crew.soon_free(order)
            if member is None:
                return
            crew.waiting.popleft()
            crew.give(member, order)
            limits = _time_limits(order.bundle)
            if limits:
                self._limits.expect(member.worker, limits)
                self._supervisor.ring()
            self._supervisor.tell(member.worker, BUNDLE, order.body)


def _time_limits(bundle: Bundle) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for key, cargo in bundle.cargo.items():
        task = getattr(cargo.call, "task", None)
        if task is not None and task.timeout_seconds is not None:
            found[key] = task.timeout_seconds
    return found
