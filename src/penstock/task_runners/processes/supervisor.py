"""The supervisor: the driver's thread that looks after the nursery and the workers.

    engine ──start, tell, kill──►  sockets ──► nursery, workers
           ◄──hear, died, tick───  thread "penstock-supervisor"

Anybody may send; everything that arrives is taken in by the one thread.
"""

from __future__ import annotations

import logging
import os
import pickle
import selectors
import socket
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

from penstock.task_runners.processes.arena import OwnArena
from penstock.task_runners.processes.blackbox import BlackBox
from penstock.task_runners.processes.frames import BYE, SETUP, Reader, Sender, frame, pair
from penstock.task_runners.processes.nursery import BORN, FORK, KILL, NEWS, ORDER
from penstock.task_runners.processes.output import Output

logger = logging.getLogger("penstock.task_runner.processpool")
_TICK_SECONDS = 0.1
_PATIENCE_SECONDS = 2.0


class Listener(Protocol):
    """Who is told of workers, always in the supervisor's thread."""

    def hear(self, worker: WorkerProcess, kind: int, body: bytes) -> None:
        """Take what a worker says."""

    def died(self, worker: WorkerProcess, code: int | None, memory: int) -> None:
        """Take that a worker has died, after everything that it has said.

        Args:
            code: its exit code, below zero the signal that killed it; None: nobody knows.
            memory: the most memory that it ever took, in bytes.
        """

    def lost(self) -> None:
        """Take that no worker can be started."""

    def tick(self) -> bool:
        """Look after what takes long; tell whether to be called again in 0.1 s."""


class WorkerProcess:
    """One worker, seen from the driver.

    Attributes:
        number: counts the workers of the pool.
        name: what it is called in the history.
        pid: its process id; 0 while it is being born.
        box: its black box.
        state: whatever the listener keeps with it.
    """

    def __init__(self, number: int, box: BlackBox, end: socket.socket) -> None:
        self.number = number
        self.name = f"process-{number}"
        self.pid = 0
        self.box = box
        self.end = end
        self.reader = Reader(end)
        self.sender = Sender(end)
        self.state: Any = None


class Supervisor:
    """Starts and ends workers and carries what is said. Thread-safe.

    Args:
        listener: hears what happens.
        initializer: packed, with its arguments; None: there is none.
    """

    def __init__(self, listener: Listener, initializer: bytes | None) -> None:
        self._listener = listener
        self._initializer = initializer
        self.arena = OwnArena()
        self._workers: dict[int, WorkerProcess] = {}
        # Those whose sockets did not take all that they were told.
        self._stalled: deque[WorkerProcess] = deque()
        self._lock = threading.Lock()
        self._count = 0
        self._is_closing = False
        self._all_dead = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._open_nursery()
        self._thread = threading.Thread(target=self._serve, name="penstock-supervisor", daemon=True)
        self._thread.start()

    def _open_nursery(self) -> None:
        self._news, self._is_proven = b"", False
        self._control, theirs = pair()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; sys.argv[:] = {sys.argv!r}; "
            "from penstock.task_runners.processes.nursery import main; "
            f"main({theirs.fileno()}, {self.arena.folders!r})"
        )
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C reaches the driver alone, which decides what it means.
            process_group=0,
        )
        theirs.close()
        self._output = Output(self._process.stdout, self._process.stderr)
        self._selector.register(self._control, selectors.EVENT_READ, self)

    # From any thread.

    def start_worker(self) -> WorkerProcess:
        """Have a worker born; what it is told meanwhile reaches it once it is there."""
        with self._lock:
            self._count += 1
            number = self._count
        ours, theirs = pair()
        ours.setblocking(False)
        path = os.path.join(self.arena.folders[0], f"box-{number}")
        worker = WorkerProcess(number, BlackBox(path), ours)
        self._workers[number] = worker
        setup = (worker.name, path, self.arena.folders, self._initializer)
        worker.sender.send(frame(SETUP, pickle.dumps(setup, 5)))
        self._selector.register(ours, selectors.EVENT_READ, worker)
        self.ring()
        with self._lock, suppress(OSError):
            # A nursery that is gone is noticed elsewhere.
            socket.send_fds(self._control, [ORDER.pack(FORK, number)], [theirs.fileno()])
        theirs.close()
        return worker

    def tell(self, worker: WorkerProcess, kind: int, body: bytes = b"") -> None:
        """Send a worker a frame, after those before it."""
        if worker.sender.send(frame(kind, body)):
            self._stalled.append(worker)
            self.ring()

    def kill(self, worker: WorkerProcess) -> None:
        """Kill a worker; it is told of like any death."""
        with self._lock, suppress(OSError):
            self._control.sendall(ORDER.pack(KILL, worker.number))

    def ring(self) -> None:
        """Wake the thread: there is something to look after."""
        with suppress(BlockingIOError):
            self._rope.send(b"\0")

    def close(self) -> None:
        """End all workers, kindly if they let themselves be, and then the nursery."""
        self._is_closing = True
        for worker in list(self._workers.values()):
            self.tell(worker, BYE)
        self.ring()
        if not self._all_dead.wait(_PATIENCE_SECONDS):
            for worker in list(self._workers.values()):
                self.kill(worker)
            self._all_dead.wait(_PATIENCE_SECONDS)
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._close_nursery()
        self._selector.close()
        for end in (self._bell, self._rope):
            end.close()
        self.arena.close()

    def _close_nursery(self) -> None:
        self._selector.unregister(self._control)
        self._control.close()
        self._process.wait()
        self._output.close()

    # In the supervisor's thread.

    def _serve(self) -> None:
        goes_on, seconds = True, None
        while goes_on:
            try:
                goes_on, seconds = self._look_after(seconds)
            except Exception:
                logger.exception("The supervisor of a process pool failed.")

    def _look_after(self, seconds: float | None) -> tuple[bool, float | None]:
        is_news = False
        for key, events in self._selector.select(seconds):
            if key.data is self:
                is_news = True
            elif key.data is None:
                self._bell.recv(4096)
                while self._stalled:
                    worker = self._stalled.popleft()
                    self._watch(worker, selectors.EVENT_READ | selectors.EVENT_WRITE)
            else:
                self._take(key.data, events)
        # Deaths last: what the dead have said is read first.
        if is_news and not self._hear_nursery():
            return self._lose_nursery(), None
        if self._is_closing and not self._workers:
            self._all_dead.set()
        return True, _TICK_SECONDS if self._listener.tick() else None

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
            self._listener.hear(worker, kind, body)
        if worker.reader.is_at_end:
            self._watch(worker, 0)
        return not worker.reader.is_at_end

    def _watch(self, worker: WorkerProcess, events: int) -> None:
        with suppress(KeyError, ValueError):
            if events:
                self._selector.modify(worker.end, events, worker)
            else:
                self._selector.unregister(worker.end)

    def _hear_nursery(self) -> bool:
        """Take news of the nursery; False when it is gone."""
        try:
            piece = self._control.recv(4096)
        except ConnectionError:
            piece = b""
        if not piece:
            return False
        self._news += piece
        while len(self._news) >= NEWS.size:
            what, number, pid, code, memory = NEWS.unpack_from(self._news)
            self._news = self._news[NEWS.size :]
            worker = self._workers.get(number)
            if worker is None:
                continue
            if what == BORN:
                worker.pid, self._is_proven = pid, True
            else:
                self._bury(worker, code, memory)
        return True

    def _bury(self, worker: WorkerProcess, code: int | None, memory: int) -> None:
        while not worker.reader.is_at_end and self._read(worker):
            pass
        self._watch(worker, 0)
        worker.end.close()
        del self._workers[worker.number]
        try:
            self._listener.died(worker, code, memory)
        finally:
            worker.box.close()
            with suppress(OSError):
                os.unlink(os.path.join(self.arena.folders[0], f"box-{worker.number}"))

    def _lose_nursery(self) -> bool:
        """Take that the nursery is gone, and every worker with it; tell whether there is a new one.

        One that never had a worker born is not opened again: the next one would do no better.
        """
        lost = list(self._workers.values())
        goes_on = self._is_proven and not self._is_closing
        if goes_on:
            self._close_nursery()
            self._open_nursery()
        for worker in lost:
            self._bury(worker, None, 0)
        if not goes_on:
            self._all_dead.set()
            if not self._is_closing:
                self._listener.lost()
        return goes_on
