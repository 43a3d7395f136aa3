"""The bounded pool behind the concurrent runner: threads for sync calls, a loop for async ones.

    place(calls) ──► queue ──► worker threads ──► call.run()     at most `limit` running,
                 └─► queue ──► flow's loop    ──► call.arun()    of both kinds together

One lock guards the queues and the number of running calls. A worker takes its next call under
the same hold of the lock that ends the last one.

Threads are added with the work, not all at once: the first few at once, more only while calls
wait and those running are blocked rather than computing (threads that compete for the
interpreter make everything slower).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, process_time

from penstock.clock import clock
from penstock.task_runners.base import Call
from penstock.task_runners.queues import CallQueue

FIRST_THREADS = 8
_CHECK_SECONDS = 0.002
_STALL_SECONDS = 0.1
_JOIN_SECONDS = 1.0


class Worker(threading.Thread):
    """One thread of the pool."""

    def __init__(self, pool: WorkerPool, number: int) -> None:
        super().__init__(name=f"penstock-worker-{number}", daemon=True)
        self.pool = pool
        self.awake = threading.Lock()
        self.awake.acquire()
        self.call: Call | None = None

    def run(self) -> None:
        """Run calls until the pool closes."""
        call = self.pool.next_call(self, finished=False)
        while True:
            if call is None:
                self.awake.acquire()
                call, self.call = self.call, None
                if call is None:
                    return
            slot = call.slot = PoolSlot(self.pool)
            call.run()
            call = None
            if slot.abandoned:
                self.pool.note_return()
            call = self.pool.next_call(self, finished=not slot.abandoned)


class WorkerPool:
    """Runs calls, at most `limit` at a time. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lock = threading.Lock()
        self.running = 0
        self.left = 0
        self.returning: deque[Callable[[], object]] = deque()
        numbers = itertools.count(1)
        self._sync_calls = CallQueue(numbers)
        self._async_calls = CallQueue(numbers)
        self._idle: list[Worker] = []
        self._workers: list[Worker] = []
        self._taken = 0
        self._growth: Growth | None = None
        self._closing = False

    def put(self, calls: Sequence[Call]) -> None:
        """Queue calls and start as many as there are slots."""
        with self.lock:
            for call in calls:
                (self._async_calls if call.is_async else self._sync_calls).push(call)
            started = self._dispatch()
        for call in started:
            call.loop.spawn(self._run_on_loop, call, context=call.context)

    def take_back(self, call: Call) -> bool:
        """Remove a call that has not started from its queue."""
        with self.lock:
            return (self._async_calls if call.is_async else self._sync_calls).take(call)

    def next_call(self, worker: Worker, finished: bool) -> Call | None:
        """End the worker's last call and give it another; None: it is now idle."""
        started: list[Call] = []
        call = None
        with self.lock:
            if finished:
                self._release()
            if self.running < self.limit and not self._is_async_next():
                call = self._sync_calls.pop()
            if call is not None:
                self.running += 1
                self._taken += 1
            elif self._closing:
                self._workers.remove(worker)
                worker.awake.release()
            else:
                self._idle.append(worker)
            if self._async_calls:
                started = self._dispatch()
        for async_call in started:
            async_call.loop.spawn(self._run_on_loop, async_call, context=async_call.context)
        return call

    def leave(self) -> None:
        """Give one slot to others while its call waits."""
        with self.lock:
            self.left += 1
            self._release()
            started = self._dispatch()
        for call in started:
            call.loop.spawn(self._run_on_loop, call, context=call.context)

    def note_return(self) -> None:
        """Note that a thread has come back whose slot was given to others for good."""
        with self.lock:
            self.left -= 1

    def try_come_back(self, wake: Callable[[], object]) -> bool:
        """Take a slot, or have `wake` called (with the slot taken) once there is one."""
        with self.lock:
            self.left -= 1
            if self.running < self.limit:
                self.running += 1
                return True
            self.returning.append(wake)
            return False

    def close(self) -> int:
        """End the idle threads and give the number of those that did not stop."""
        with self.lock:
            self._closing = True
            workers = list(self._workers)
            for worker in self._idle:
                self._workers.remove(worker)
                worker.awake.release()
            self._idle.clear()
        deadline = monotonic() + _JOIN_SECONDS
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join(max(0.0, deadline - monotonic()))
        return sum(worker.is_alive() for worker in workers)

    def _release(self) -> None:
        """Free a slot, or hand it to a call that comes back. The lock is held."""
        if self.returning:
            self.returning.popleft()()
        else:
            self.running -= 1

    def _dispatch(self) -> list[Call]:
        """Give free slots to calls: the async ones to start are returned. The lock is held."""
        started = []
        while self.running < self.limit:
            if self._is_async_next():
                call = self._async_calls.pop()
                assert call is not None
                self.running += 1
                started.append(call)
            elif self._sync_calls and self._idle:
                self._wake(self._idle.pop())
            else:
                break
        free = min(self.limit - self.running, len(self._sync_calls))
        while free > 0 and len(self._workers) < FIRST_THREADS + self.left:
            self.add_thread()
            free -= 1
        if free > 0 and self._growth is None and len(self._workers) < self.limit + self.left:
            self._growth = Growth(self)
        return started

    def _is_async_next(self) -> bool:
        """Tell whether the next free slot belongs to an async call. The lock is held."""
        if not self._async_calls:
            return False
        # With slots for all that wait nobody has to stand back for a call without a thread yet.
        if self.limit - self.running > len(self._sync_calls):
            return True
        return self._async_calls.head() < self._sync_calls.head()

    def _wake(self, worker: Worker) -> None:
        worker.call = self._sync_calls.pop()
        self.running += 1
        self._taken += 1
        worker.awake.release()

    def add_thread(self) -> None:
        """Start one more thread. The lock is held."""
        worker = Worker(self, len(self._workers))
        self._workers.append(worker)
        worker.start()

    def grow(self, number: int) -> bool:
        """Start more threads if calls still wait; tell whether growing goes on."""
        with self.lock:
            waiting = min(self.limit - self.running, len(self._sync_calls))
            room = self.limit + self.left - len(self._workers)
            if self._closing or waiting <= 0 or room <= 0:
                self._growth = None
                return False
            for _ in range(min(number, waiting, room)):
                self.add_thread()
            return True

    @property
    def taken(self) -> int:
        """How many calls threads have taken so far."""
        return self._taken

    @property
    def thread_count(self) -> int:
        """How many threads there are."""
        return len(self._workers)

    async def _run_on_loop(self, call: Call) -> None:
        call.slot = PoolSlot(self)
        try:
            await call.arun()
        finally:
            with self.lock:
                self._release()
                started = self._dispatch()
            for follower in started:
                follower.loop.spawn(self._run_on_loop, follower, context=follower.context)


class Growth:
    """Adds threads while calls wait for one, by looking at how the pool gets on.

    Threads that block leave the processor idle: their number is doubled. Threads that compute
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
        wanted = self._pool.thread_count if busy < 0.7 else 0
        if now - self._moved_at > _STALL_SECONDS:
            wanted, self._moved_at = self._pool.thread_count, now
        if self._pool.grow(wanted):
            clock.call_later(_CHECK_SECONDS if wanted else 5 * _CHECK_SECONDS, self._check)


class PoolSlot:
    """A running call's slot in a pool; several waits inside one call count as one."""

    __slots__ = ("_pool", "_waits", "abandoned")

    def __init__(self, pool: WorkerPool) -> None:
        self.abandoned = False
        self._pool = pool
        self._waits = 0

    def leave(self) -> None:
        self._waits += 1
        if self._waits == 1:
            self._pool.leave()

    def abandon(self) -> None:
        if not self.abandoned and not self._waits:
            self.abandoned = True
            self._pool.leave()

    def come_back(self) -> None:
        self._waits -= 1
        if self._waits:
            return
        woken = threading.Lock()
        woken.acquire()
        if not self._pool.try_come_back(woken.release):
            woken.acquire()

    async def acome_back(self) -> None:
        self._waits -= 1
        if self._waits:
            return
        import asyncio

        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        if not self._pool.try_come_back(lambda: loop.call_soon_threadsafe(woken.set_result, None)):
            await woken
