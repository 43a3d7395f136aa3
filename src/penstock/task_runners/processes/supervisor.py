"""The supervisor: one thread of the driver that looks after the nursery and all workers.

    pools ──start, tell, kill──►  sockets ──► nursery, workers
          ◄──hear, died, tick───  thread "penstock-supervisor"

Anybody may send; everything that arrives is taken in by the one thread. There is one supervisor
for all pools of a process. It comes with the first one, and a few seconds after the last one it
goes, and the nursery with it.
"""

from __future__ import annotations

import logging
import os
import pickle
import selectors
import socket
import sys
import threading
from collections import deque
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Protocol

from penstock.remote.blackbox import BlackBox
from penstock.states import describe_exception
from penstock.task_runners.processes.arena import OwnArena
from penstock.task_runners.processes.frames import SETUP, Reader, Sender, frame, pair
from penstock.task_runners.processes.nursery import BORN, FORK, KILL
from penstock.task_runners.processes.nursery_process import NurseryProcess

logger = logging.getLogger("penstock.task_runner.processpool")
_TICK_SECONDS = 0.1
LINGER_SECONDS = 5.0
"""How long the nursery waits for another pool after the last one."""


class Pool(Protocol):
    """Whose workers they are: told of them, always in the supervisor's thread."""

    def hear(self, worker: WorkerProcess, kind: int, body: bytes) -> None:
        """Take what a worker says."""

    def died(self, worker: WorkerProcess, code: int | None, memory: int) -> None:
        """Take that a worker has died, after everything that it has said.

        Args:
            code: its exit code, below zero the signal that killed it; None: nobody knows.
            memory: the most memory that it ever took, in bytes.
        """

    def lost(self, why: str) -> None:
        """Take that the pool cannot go on."""

    def tick(self) -> bool:
        """Look after what takes long; tell whether to be called again in 0.1 s."""


class WorkerProcess:
    """One worker, seen from the driver.

    Attributes:
        number: counts the workers of this process.
        name: what it is called in the history.
        pid: its process id; 0 while it is being born.
        box: its black box.
    """

    def __init__(self, number: int, pool: Pool, box: BlackBox, end: socket.socket) -> None:
        self.number = number
        self.name = f"process-{number}"
        self.pid = 0
        self.pool = pool
        self.box = box
        self.end = end
        self.reader = Reader(end)
        self.sender = Sender(end)


class Supervisor:
    """Starts and kills workers and carries what is said. Thread-safe."""

    def __init__(self) -> None:
        self._pools: dict[Pool, None] = {}
        self._idle_since = monotonic()
        self._workers: dict[int, WorkerProcess] = {}
        # Those whose sockets did not take all that they were told.
        self._stalled: deque[WorkerProcess] = deque()
        self._lock = threading.Lock()
        self._count = 0
        with ExitStack() as undone:
            self._selector = undone.enter_context(selectors.DefaultSelector())
            self._bell, self._rope = map(undone.enter_context, socket.socketpair())
            for end in (self._bell, self._rope):
                end.setblocking(False)
            self._selector.register(self._bell, selectors.EVENT_READ)
            self._open_nursery()
            undone.pop_all()
        self._thread = threading.Thread(target=self._serve, name="penstock-supervisor", daemon=True)
        self._thread.start()

    def _open_nursery(self) -> None:
        self._nursery = NurseryProcess()
        self._selector.register(self._nursery.control, selectors.EVENT_READ, self._nursery)

    # From any thread.

    def start_worker(self, pool: Pool, arena: OwnArena, initializer: bytes | None) -> WorkerProcess:
        """Have a worker born; what it is told meanwhile reaches it once it is there.

        Args:
            initializer: packed, with its arguments; None: there is none.

        Raises:
            OSError: this process may not open any more files.
        """
        with self._lock:
            self._count += 1
            number = self._count
        path = os.path.join(arena.folders[0], f"box-{number}")
        box = BlackBox(path)
        try:
            ours, theirs = pair()
        except OSError:
            box.close()
            raise
        ours.setblocking(False)
        worker = WorkerProcess(number, pool, box, ours)
        self._workers[number] = worker
        setup = (
            worker.name, path, arena.folders, initializer, sys.path, sys.argv, os.getcwd(),
            dict(os.environ),
        )  # fmt: skip
        worker.sender.send(frame(SETUP, pickle.dumps(setup, 5)))
        self._selector.register(ours, selectors.EVENT_READ, worker)
        self._nursery.order(FORK, number, theirs.fileno())
        theirs.close()
        return worker

    def tell(self, worker: WorkerProcess, kind: int, body: bytes = b"") -> None:
        """Send a worker a frame, after those before it."""
        if worker.sender.send(frame(kind, body)):
            self._stalled.append(worker)
            self.ring()

    def kill(self, worker: WorkerProcess) -> None:
        """Kill a worker; it is told of like any death."""
        self._nursery.order(KILL, worker.number)

    def ring(self) -> None:
        """Wake the thread: there is something to look after."""
        with suppress(BlockingIOError):
            self._rope.send(b"\0")

    def leave(self, pool: Pool) -> None:
        """Take that a pool has no workers any more, and will have none."""
        with _lock:
            del self._pools[pool]
            self._idle_since = monotonic()
        self.ring()

    def descriptors(self) -> frozenset[int]:
        """Give the descriptors that live as long as the supervisor."""
        ends = (self._bell, self._rope, self._selector)
        return self._nursery.descriptors() | {end.fileno() for end in ends}

    # In the supervisor's thread.

    def _serve(self) -> None:
        seconds: float | None = LINGER_SECONDS
        while not self._is_over():
            try:
                self._take_in(seconds)
                # In this order: what is asked for meanwhile rings.
                seconds = _TICK_SECONDS if self._tick() else None if self._pools else LINGER_SECONDS
            except Exception:
                logger.exception("The supervisor of process pools failed.")
        self._close()

    def _is_over(self) -> bool:
        """Tell whether nobody has needed it for a while; then nobody gets it any more."""
        global _current
        with _lock:
            is_over = not self._pools and monotonic() > self._idle_since + LINGER_SECONDS
            if is_over and _current is self:
                _current = None
            return is_over

    def _close(self) -> None:
        self._selector.unregister(self._nursery.control)
        self._nursery.close()
        self._selector.close()
        for end in (self._bell, self._rope):
            end.close()

    def _tick(self) -> bool:
        return any(pool.tick() for pool in list(self._pools))

    def _take_in(self, seconds: float | None) -> None:
        is_news = False
        for key, events in self._selector.select(seconds):
            if key.data is self._nursery:
                is_news = True
            elif key.data is None:
                self._bell.recv(4096)
                while self._stalled:
                    worker = self._stalled.popleft()
                    self._watch(worker, selectors.EVENT_READ | selectors.EVENT_WRITE)
            else:
                self._take(key.data, events)
        # Deaths last: what the dead have said is read first.
        if is_news:
            self._hear_nursery()

    def _take(self, worker: WorkerProcess, events: int) -> None:
        if events & selectors.EVENT_WRITE and not worker.sender.go_on():
            self._watch(worker, selectors.EVENT_READ)
        if events & selectors.EVENT_READ:
            self._read(worker)

    def _read(self, worker: WorkerProcess) -> bool:
        """Take what a worker has said; tell whether there may be more."""
        try:
            frames = list(worker.reader.read())
        except BlockingIOError:
            return False
        for kind, body in frames:
            try:
                worker.pool.hear(worker, kind, body)
            except Exception as exc:
                _fail(worker.pool, exc)
        if worker.reader.is_at_end:
            self._watch(worker, 0)
        return not worker.reader.is_at_end

    def _watch(self, worker: WorkerProcess, events: int) -> None:
        with suppress(KeyError, ValueError):
            if events:
                self._selector.modify(worker.end, events, worker)
            else:
                self._selector.unregister(worker.end)

    def _hear_nursery(self) -> None:
        news = self._nursery.news()
        if news is None:
            self._lose_nursery()
            return
        for what, number, pid, code, memory in news:
            worker = self._workers.get(number)
            if worker is None:
                continue
            if what == BORN:
                worker.pid = pid
            else:
                self._bury(worker, code, memory)

    def _bury(self, worker: WorkerProcess, code: int | None, memory: int) -> None:
        while not worker.reader.is_at_end and self._read(worker):
            pass
        self._watch(worker, 0)
        worker.end.close()
        del self._workers[worker.number]
        try:
            worker.pool.died(worker, code, memory)
        except Exception as exc:
            _fail(worker.pool, exc)
        worker.box.close()

    def _lose_nursery(self) -> None:
        """Take that the nursery is gone, and every worker with it, and open a new one.

        One that never had a worker born was no use: its pools are told that there is none.
        """
        lost = list(self._workers.values())
        was_proven = self._nursery.is_proven
        self._selector.unregister(self._nursery.control)
        self._nursery.close()
        self._open_nursery()
        if not was_proven:
            for pool in list(self._pools):
                pool.lost("No worker process can be started; what it printed says why.")
        for worker in lost:
            self._bury(worker, None, 0)


def _fail(pool: Pool, exc: Exception) -> None:
    """End a pool in which an error of our own has happened, rather than wait for it for ever."""
    logger.error("A process pool failed.", exc_info=exc)
    pool.lost(f"The process pool failed by an internal error, {describe_exception(exc)}.")


_lock = threading.Lock()
_current: Supervisor | None = None


def join(pool: Pool) -> Supervisor:
    """Give the supervisor of this process to a pool, which is to `leave` it."""
    global _current
    with _lock:
        if _current is None:
            _current = Supervisor()
        _current._pools[pool] = None
        return _current


def lasting() -> Supervisor | None:
    """Give the supervisor that there is at the moment."""
    return _current


def _after_fork() -> None:
    """Leave the parent's sockets alone, and keep none of them open."""
    global _current, _lock
    supervisor, _current, _lock = _current, None, threading.Lock()
    if supervisor is not None:
        for worker in supervisor._workers.values():
            worker.end.close()
        supervisor._nursery.control.close()


os.register_at_fork(after_in_child=_after_fork)
