"""The nursery: a small process that forks workers, so that each is there in milliseconds.

    driver ──fork, kill──► nursery ──fork──► worker      a socket to the driver travels along
           ◄──born, died──

It has a single thread and has loaded what a worker needs, so forking it is quick and sound, which
forking the driver, with its threads, would not be. It reaps its workers, so it knows how each of
them ended, and kills only what is still its own. When the driver is gone it kills them all.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from struct import Struct

# Loaded here, once for all workers.
from penstock.task_runners.processes import worker
from penstock.task_runners.processes.arena import sweep

FORK, KILL = range(2)
BORN, DIED = range(2)
ORDER = Struct("<II")
"""To the nursery: what to do, and the number of the worker. FORK brings a socket along."""
NEWS = Struct("<IIqiQ")
"""From it: what has happened, the number, the process id, the exit code, peak memory in bytes.
An exit code below zero is the number of the signal that killed it, negated."""
_DIE_WITH_PARENT = 1


def main(descriptor: int, preloaded: list[str]) -> None:
    """Serve the driver until it is gone; this is the program of the process.

    Args:
        descriptor: the socket to the driver.
        preloaded: names of modules to load first.
    """
    for name in preloaded:
        importlib.import_module(name)
    for stream in (sys.stdout, sys.stderr):
        # What workers print is read line by line, as UTF-8.
        stream.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    Nursery(control).serve()
    sweep()


class Nursery:
    """Forks, kills and reaps workers as the driver says."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._numbers: dict[int, int] = {}  # by process id
        self._bell, self._wake = socket.socketpair()
        for end in (self._bell, self._wake):
            end.setblocking(False)

    def serve(self) -> None:
        """Do what the driver says until its end of the socket closes."""
        # What is loaded by now is never looked at again by the workers' garbage collection.
        gc.collect()
        gc.freeze()
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake_up)
        while True:
            ready, _, _ = select.select([self._control, self._bell], [], [])
            if self._bell in ready:
                with suppress(BlockingIOError):
                    self._bell.recv(4096)
                self._reap()
            if self._control in ready and not self._obey():
                break
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL)

    def _obey(self) -> bool:
        """Take one order; False when the driver is gone."""
        data, descriptors, _, _ = socket.recv_fds(self._control, ORDER.size, 1)
        while 0 < len(data) < ORDER.size:
            data += self._control.recv(ORDER.size - len(data))
        if not data:
            return False
        order, number = ORDER.unpack(data)
        if order == FORK:
            self._fork(number, descriptors[0])
        else:
            # What has been reaped is in the list no more: no stranger is ever killed.
            for pid in [pid for pid, each in self._numbers.items() if each == number]:
                os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, number: int, descriptor: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as exc:
            os.close(descriptor)
            self._tell(DIED, number, 0, -(exc.errno or 1), 0)
            return
        if pid == 0:
            self._become_worker(parent, descriptor)
        os.close(descriptor)
        self._numbers[pid] = number
        self._tell(BORN, number, pid, 0, 0)

    def _become_worker(self, parent: int, descriptor: int) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control, self._bell, self._wake):
                end.close()
            _die_with(parent)
            code = worker.main(socket.socket(fileno=descriptor))
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._numbers.pop(pid, None)
            if number is not None:
                code = os.waitstatus_to_exitcode(status)
                self._tell(DIED, number, pid, code, _bytes(usage.ru_maxrss))

    def _tell(self, what: int, number: int, pid: int, code: int, memory: int) -> None:
        # A driver that is gone is noticed where orders are taken.
        with suppress(OSError):
            self._control.sendall(NEWS.pack(what, number, pid, code, memory))


def _wake_up(number: int, frame: object) -> None:
    """Do nothing: the signal has been written to the wake-up socket."""


def _bytes(memory: int) -> int:
    return memory if sys.platform == "darwin" else memory * 1024


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, whatever it is doing; on Linux."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
