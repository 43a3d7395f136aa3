"""The bounded pool behind the concurrent runner: threads for sync calls, a loop for async ones.

    place(calls) ──► queue ──► worker threads ──► call.run()     at most `limit` running,
                 └─► queue ──► flow's loop    ──► call.arun()    of both kinds together

Calls are taken without a lock; one lock guards the slots, and who is awake or at rest.

Threads that compete for the interpreter make everything slower, so no more are awake than help:
two while calls are short, a few more at once where calls have been long, and further ones only
while calls wait and those awake are blocked rather than computing (see `Growth`).
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, process_time
from typing import TYPE_CHECKING

from penstock.clock import clock
from penstock.task_runners.base import Call
from penstock.task_runners.queues import CallQueue

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

AWAKE_FOR_SHORT_CALLS = 2
AWAKE_FOR_LONG_CALLS = 8
_SHORT_SECONDS = 0.0005
# One bit for each of the last calls: set when it was short.
_ALL_SHORT = 0xFFFF
_CHECK_SECONDS = 0.002
_STALL_SECONDS = 0.1
_JOIN_SECONDS = 1.0
# Calls run inside each other in one thread only so deep: Python's stack is limited.
_DEEPEST_LOAN = 8
logger = logging.getLogger("penstock.task_runner.pool")
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker(threading.Thread):
    """One thread of the pool. It keeps its slot from call to call until it finds no more."""

    def __init__(self, pool: WorkerPool, number: int) -> None:
        super().__init__(name=f"penstock-worker-{number}", daemon=True)
        self.awake = threading.Lock()
        self.awake.acquire()
        self._pool = pool
        self._is_dismissed = False

    def dismiss(self) -> None:
        """Let the thread end, which is at rest."""
        self._is_dismissed = True
        self.awake.release()

    def run(self) -> None:
        """Run calls until the pool closes."""
        pool = self._pool
        while True:
            call = pool.take_next()
            if call is not None:
                self._execute(call)
                call = None
            else:
                pool.rest(self)
                self.awake.acquire()
                if self._is_dismissed:
                    return

    def _execute(self, call: Call) -> None:
        pool = self._pool
        slot = call.slot = PoolSlot(pool)
        began = monotonic()
        try:
            call.run()
        except BaseException:
            # A call contains what the user's code raises: this is an error of our own.
            logger.exception("A call of the pool failed.")
        pool.note_duration(monotonic() - began)
        if slot.end():
            pool.rejoin()


class WorkerPool:
    """Runs calls, at most `limit` at a time. Thread-safe.

    Taking the next call needs no lock. The lock guards what happens less often: slots given and
    released, workers woken and put to rest. Whoever puts a worker to rest looks for calls once
    more afterwards, and whoever adds calls looks afterwards whether a worker must be woken: so
    one of them sees the other.

    Attributes:
        running: slots in use, by awake workers and by async calls.
        left: calls that wait for something and have left their slots to others.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lock = threading.Lock()
        self.running = 0
        self.left = 0
        self.taken = 0
        self.is_closing = False
        numbers = itertools.count(1)
        self._sync_calls = CallQueue(numbers)
        self._async_calls = CallQueue(numbers)
        self._returning: deque[Callable[[], object]] = deque()
        self._idle: list[Worker] = []
        self._workers: list[Worker] = []
        self._awake = 0
        self._short_calls = _ALL_SHORT
        self._growth: Growth | None = None

    def put(self, calls: Sequence[Call]) -> None:
        """Queue calls and start as many as there are slots and use for workers."""
        is_async = False
        for call in calls:
            if call.is_async:
                is_async = True
                self._async_calls.push(call)
            else:
                self._sync_calls.push(call)
        if is_async or self._growth is None or self._awake < self._eager():
            self.dispatch()

    def take_next(self) -> Call | None:
        """Take the next call for a worker that is awake; None: it should rest."""
        if self._returning or self._async_calls or self.running > self.limit:
            # Its slot may belong to somebody else now.
            return self._take_if_first()
        call = self._sync_calls.pop()
        self.taken += 1
        return call

    def _take_if_first(self) -> Call | None:
        with self.lock:
            if self._returning or self.running > self.limit:
                return None
            others = self._async_calls.head()
            own = self._sync_calls.head()
            if others is not None and (own is None or others < own):
                return None
            return self._sync_calls.pop()

    def rest(self, worker: Worker) -> None:
        """Release the slot of a worker that found no call."""
        with self.lock:
            self._release()
            self._awake -= 1
            if self.is_closing:
                self._workers.remove(worker)
                worker.dismiss()
            else:
                self._idle.append(worker)
        if self._sync_calls or self._async_calls:
            self.dispatch()

    def dispatch(self) -> None:
        """Give free slots to calls and wake workers for them."""
        with self.lock:
            started = self._give_slots()
        for call in started:
            self._spawn(call)

    def _spawn(self, call: Call) -> None:
        call.loop.spawn(self._run_on_loop, call, context=call.context, keeps_itself=True)

    def leave(self) -> None:
        """Give one slot to others. The lock is held; call `dispatch` without it afterwards."""
        self.left += 1
        self._release()

    def try_come_back(self, wake: Callable[[], object]) -> bool:
        """Take a slot, or have `wake` called (with the slot taken) once there is one."""
        with self.lock:
            self.left -= 1
            if self.running < self.limit:
                self.running += 1
                return True
            self._returning.append(wake)
            return False

    def come_back_at_once(self, wake: Callable[[], object]) -> None:
        """Take a slot beyond the limit instead of waiting for `wake`: the call is about to end."""
        with self.lock:
            try:
                self._returning.remove(wake)
            except ValueError:
                # It has been given a slot meanwhile.
                return
            self.running += 1

    def rejoin(self) -> None:
        """Take a call back whose slot was given to others for good: it ended late."""
        with self.lock:
            self.left -= 1
            self.running += 1

    def close(self) -> int:
        """End the idle threads and give the number of those that did not stop."""
        with self.lock:
            self.is_closing = True
            workers = list(self._workers)
            for worker in self._idle:
                self._workers.remove(worker)
                worker.dismiss()
            self._idle.clear()
        deadline = monotonic() + _JOIN_SECONDS
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join(max(0.0, deadline - monotonic()))
        return sum(worker.is_alive() for worker in workers)

    def _release(self) -> None:
        """Free a slot, or hand it to a call that comes back. The lock is held."""
        if self._returning and self.running <= self.limit:
            self._returning.popleft()()
        else:
            self.running -= 1

    def _give_slots(self) -> list[Call]:
        """Give free slots to calls: the async ones to start are returned. The lock is held."""
        started = []
        eager = self._eager()
        while self.running < self.limit:
            call = self._pop_async()
            if call is not None:
                self.running += 1
                started.append(call)
            elif not (self._sync_calls and self._awake < eager and self._wake_one()):
                break
        if self._sync_calls and self.running < self.limit and self._growth is None:
            self._growth = Growth(self)
        return started

    def _pop_async(self) -> Call | None:
        """Take the next async call if the next free slot belongs to it."""
        if not self._async_calls:
            return None
        # With slots for all that wait nobody has to stand back for a call without a thread yet.
        if self.limit - self.running <= len(self._sync_calls):
            own, others = self._async_calls.head(), self._sync_calls.head()
            if own is None or (others is not None and others < own):
                return None
        return self._async_calls.pop()

    def _eager(self) -> int:
        """Give how many workers are to be awake at once; those that only wait do not count."""
        mostly_short = self._short_calls.bit_count() > 8
        most = AWAKE_FOR_SHORT_CALLS if mostly_short else AWAKE_FOR_LONG_CALLS
        return min(most, self.limit) + self.left

    def _wake_one(self) -> bool:
        """Give a slot to one more worker, False when there can be none. The lock is held."""
        if self._idle:
            self._idle.pop().awake.release()
        else:
            worker = Worker(self, len(self._workers))
            try:
                worker.start()
            except RuntimeError:
                # The system allows no more threads: those there are will have to do.
                if not self._workers:
                    raise
                return False
            self._workers.append(worker)
        self.running += 1
        self._awake += 1
        return True

    def note_duration(self, seconds: float) -> None:
        """Remember whether a call was short. Threads may lose an entry to each other."""
        self._short_calls = (self._short_calls << 1 | (seconds < _SHORT_SECONDS)) & _ALL_SHORT

    def grow(self, number: int) -> bool:
        """Wake more workers if calls still wait; tell whether growing goes on."""
        with self.lock:
            waiting = min(self.limit - self.running, len(self._sync_calls))
            if not self.is_closing and waiting > 0:
                for _ in range(min(number, waiting)):
                    if not self._wake_one():
                        break
                return True
            self._growth = None
        if self._sync_calls and not self.is_closing:
            self.dispatch()
        return False

    @property
    def awake(self) -> int:
        """How many workers have a call, or are about to take one."""
        return self._awake

    async def _run_on_loop(self, call: Call) -> None:
        slot = call.slot = PoolSlot(self)
        try:
            await call.arun()
        finally:
            if slot.end():
                self.rejoin()
            follower = self._take_over()
            if follower is not None:
                self._spawn(follower)
            else:
                with self.lock:
                    self._release()
                if self._sync_calls or self._async_calls:
                    self.dispatch()

    def _take_over(self) -> Call | None:
        """Take the next async call into the slot of one that ends, where nobody else wants it."""
        if self._returning or self._sync_calls or self.running > self.limit:
            return None
        return self._async_calls.pop()


class Growth:
    """Adds threads while calls wait for one, by looking at how the pool gets on.

    Threads that block leave the processor idle: their number is doubled. So is that of threads
    which compute outside the interpreter, while there are cores left. Threads that compute in it
    are only joined by others when no call was taken for a while, so that calls which wait for
    each other (a barrier) cannot starve.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._taken = pool.taken
        self._moved_at = self._checked_at = monotonic()
        self._computed = process_time()
        clock.call_later(_CHECK_SECONDS, self._check)

    def _check(self) -> None:
        now, computed = monotonic(), process_time()
        busy = (computed - self._computed) / max(now - self._checked_at, 1e-6)
        if self._pool.taken != self._taken:
            self._taken, self._moved_at = self._pool.taken, now
        self._checked_at, self._computed = now, computed
        wanted = self._pool.awake if busy < 0.7 or 1.2 < busy < 0.9 * _CORES else 0
        if now - self._moved_at > _STALL_SECONDS:
            wanted, self._moved_at = self._pool.awake, now
        if self._pool.grow(wanted):
            clock.call_later(_CHECK_SECONDS if wanted else 5 * _CHECK_SECONDS, self._check)


class PoolSlot:
    """A running call's slot in a pool; several waits inside one call count as one.

    Args:
        depth: how many calls further out run in the same thread.
    """

    __slots__ = ("_depth", "_held", "_pool", "_waits")

    def __init__(self, pool: WorkerPool, depth: int = 0) -> None:
        self._pool = pool
        self._depth = depth
        self._waits = 0
        # Emptied by whoever is first: the end of the call, or who gives the slot away for good.
        self._held = [None]

    def end(self) -> bool:
        """Note that the call has ended; tell whether its slot had been given away before."""
        try:
            self._held.pop()
        except IndexError:
            return True
        return False

    def leave(self) -> None:
        with self._pool.lock:
            self._waits += 1
            if self._waits > 1 or not self._held:
                return
            self._pool.leave()
        self._pool.dispatch()

    def abandon(self) -> None:
        with self._pool.lock:
            if self._waits or self.end():
                return
            self._pool.leave()
        self._pool.dispatch()

    def come_back(self) -> None:
        if self._must_come_back():
            self._take_again()

    async def acome_back(self) -> None:
        if not self._must_come_back():
            return
        import asyncio

        alarm = LoopWake(asyncio.get_running_loop())
        if not self._pool.try_come_back(alarm.wake):
            try:
                await alarm.woken
            except asyncio.CancelledError:
                self._pool.come_back_at_once(alarm.wake)
                raise

    def lend(self) -> PoolSlot | None:
        with self._pool.lock:
            if not self._held or self._waits or self._depth == _DEEPEST_LOAN:
                return None
            # As in a wait, it can't be given away meanwhile.
            self._waits = 1
        return PoolSlot(self._pool, self._depth + 1)

    def take_home(self, lent: PoolSlot) -> None:
        self._waits = 0
        if lent.end():
            self._take_again()

    def _must_come_back(self) -> bool:
        with self._pool.lock:
            self._waits -= 1
            return self._waits == 0 and bool(self._held)

    def _take_again(self) -> None:
        woken = threading.Lock()
        woken.acquire()
        if not self._pool.try_come_back(woken.release):
            woken.acquire()


class LoopWake:
    """Wakes a call that waits on an event loop, from any thread."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.woken = loop.create_future()
        self._loop = loop

    def wake(self) -> None:
        """Let it go on. A loop that is closed has no call that waits."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)
