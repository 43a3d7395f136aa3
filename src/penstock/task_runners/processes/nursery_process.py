"""The nursery as the driver sees it: a process, a socket to it, and what its workers print."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress

from penstock.task_runners.processes.frames import pair
from penstock.task_runners.processes.nursery import BORN, NEWS, ORDER
from penstock.task_runners.processes.output import Output

News = tuple[int, int, int, int, int]
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; "
    "from penstock.task_runners.processes.nursery import main; main({descriptor}, {preloaded!r})"
)
preloaded = ["asyncio", "penstock.flows", "penstock.tasks"]
"""Modules that a new nursery loads, so that its workers need not: what modules with tasks import.
None may start a thread."""


class NurseryProcess:
    """A running nursery.

    Attributes:
        control: the socket to it.
        is_proven: whether it has had a worker born.
    """

    def __init__(self) -> None:
        self.control, theirs = pair()
        self.is_proven = False
        self._news = b""
        self._lock = threading.Lock()
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        program = _PROGRAM.format(path=sys.path, descriptor=theirs.fileno(), preloaded=preloaded)
        with ExitStack() as undone, theirs:
            undone.callback(self.control.close)
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C reaches the driver alone, which decides what it means.
                process_group=0,
            )
            undone.pop_all()
        self._output = Output(self._process.stdout, self._process.stderr)

    def order(self, what: int, number: int, descriptor: int | None = None) -> None:
        """Give an order, with a descriptor to take along. Thread-safe.

        A nursery that is gone does not hear it, and is noticed where its news are read.
        """
        descriptors = [] if descriptor is None else [descriptor]
        with self._lock, suppress(OSError):
            socket.send_fds(self.control, [ORDER.pack(what, number)], descriptors)

    def news(self) -> list[News] | None:
        """Give the news that have arrived; None when it is gone."""
        try:
            piece = self.control.recv(4096)
        except ConnectionError:
            piece = b""
        if not piece:
            return None
        data = self._news + piece
        whole = len(data) - len(data) % NEWS.size
        self._news = data[whole:]
        found: list[News] = list(NEWS.iter_unpack(data[:whole]))
        self.is_proven |= any(what == BORN for what, *_ in found)
        return found

    def close(self) -> None:
        """End it, and its workers if there are any; blocks until it is gone."""
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self.control.close()
        self._output.close()

    def descriptors(self) -> frozenset[int]:
        """Give the descriptors that live as long as it does."""
        return self._output.descriptors() | {self.control.fileno()}
