"""What a worker process does: executes bundles in its main thread, one after another.

    socket ──► reader thread ─┬─ bundle ──► main thread ──► run_bundle ──► DONE
                              └─ word ────► hear

The main thread can be interrupted by a signal, also out of a sleep. When the driver is gone, its
end of the socket closes, and the process ends.
"""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from typing import NamedTuple

from penstock.core.bundling import BUDGET_SECONDS
from penstock.remote.blackbox import BlackBox
from penstock.remote.flow_run import hear
from penstock.remote.outbox import ticker
from penstock.remote.parcels import unpack_code
from penstock.remote.worker import run_bundle
from penstock.states import describe_exception
from penstock.task_runners.processes.arena import Arena
from penstock.task_runners.processes.frames import (
    BROKEN,
    BUNDLE,
    BYE,
    DONE,
    GO,
    READY,
    SETUP,
    WORD,
    Reader,
)
from penstock.task_runners.processes.port import Load, ProcessPort


class Setup(NamedTuple):
    """What a worker is told at its start.

    Attributes:
        name: the name of the worker in the history.
        box: the path of its black box.
        folders: those of the arena.
        initializer: the packed function to call first, and its arguments; None: there is none.
        path, argv: those of the driver.
        folder, variables: its working directory and its environment variables.
    """

    name: str
    box: str
    folders: tuple[str, ...]
    initializer: bytes | None
    path: list[str]
    argv: list[str]
    folder: str
    variables: dict[str, str]


def main(end: socket.socket) -> int:
    """Serve the driver until it says so, or is gone; gives the exit code."""
    reader = Reader(end)
    arrived: list[tuple[int, bytes]] = []
    while not arrived:
        arrived = list(reader.read())
        if reader.is_at_end:
            return 0
    kind, body = arrived.pop(0)
    assert kind == SETUP
    setup = Setup(*pickle.loads(body))
    _move_in(setup)
    port = ProcessPort(end, setup.name, BlackBox(setup.box), Arena(setup.folders))
    worker = Worker(port, reader)
    for each in arrived:
        worker.take(*each)
    return worker.serve(setup.initializer)


class Worker:
    """A worker process."""

    def __init__(self, port: ProcessPort, reader: Reader) -> None:
        self._port = port
        self._reader = reader
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._began_at: float | None = None
        self._pid = os.getpid()
        os.register_at_fork(after_in_child=self._disown)

    def serve(self, initializer: bytes | None) -> int:
        """Execute bundles until the driver says that it is over."""
        threading.Thread(target=self._listen, name="penstock-listener", daemon=True).start()
        if initializer is not None:
            problem = _initialize(initializer)
            if problem is not None:
                self._port.tell(BROKEN, problem.encode())
                return 1
            self._port.surroundings.take()
        self._port.tell(READY)
        while self._next_arrives():
            try:
                load = self._port.waiting.popleft()
            except IndexError:
                continue  # it was given back
            self._execute(load)
            if os.getpid() != self._pid:
                os._exit(0)  # a child that a task has forked, and left to itself
        atexit._run_exitfuncs()
        return 0

    def _next_arrives(self) -> bool:
        while True:
            # A Ctrl-C that a task has sent may arrive late.
            with suppress(KeyboardInterrupt):
                return self._bell.get()

    def _execute(self, load: Load) -> None:
        self._port.awaits_go = load.awaits_go
        self._port.surroundings.lend(load.variables)
        self._began_at = monotonic()
        ticker.add(self)
        try:
            run_bundle(load.data, self._port.parts(load.parts), self._port)
        except KeyboardInterrupt:
            pass  # between two task runs, it is nobody's
        finally:
            self._began_at = None
            ticker.remove(self)
        _flush_streams()
        self._port.surroundings.lend({})
        self._port.tell(DONE, load.id.encode())

    def tick(self) -> None:
        """Give back what was sent ahead when the present bundle takes too long."""
        began_at = self._began_at
        if began_at is not None and monotonic() > began_at + BUDGET_SECONDS:
            self._port.give_back()

    def take(self, kind: int, body: bytes) -> None:
        """Take a frame of the driver's."""
        if kind == BUNDLE:
            self._port.waiting.append(Load(*pickle.loads(body)))
            self._bell.put(True)
        elif kind == WORD:
            with suppress(Exception):
                header, word = pickle.loads(body)
                hear(header, word, self._port)
        elif kind == GO:
            self._port.go.set()
        elif kind == BYE:
            self._bell.put(False)

    def _listen(self) -> None:
        while True:
            for kind, body in self._reader.read():
                self.take(kind, body)
            if self._reader.is_at_end:
                # Nobody is left to hear of anything.
                os._exit(1)

    def _disown(self) -> None:
        """Leave the socket and the box to the parent: this is a child that a task has forked."""
        self._port.disown()


def _move_in(setup: Setup) -> None:
    """Make this process like the driver is now: the nursery is as the driver was once."""
    sys.path[:], sys.argv[:] = setup.path, setup.argv
    with suppress(OSError):
        os.chdir(setup.folder)
    if os.environ != setup.variables:
        os.environ.clear()
        os.environ.update(setup.variables)


def _initialize(initializer: bytes) -> str | None:
    """Call the user's initializer; gives how it failed."""
    try:
        function, arguments = unpack_code(initializer)
        function(*arguments)
    except BaseException as exc:
        return describe_exception(exc)
    return None


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A task may have closed or replaced it.
        with suppress(Exception):
            stream.flush()
