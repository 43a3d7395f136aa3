"""Find what a test leaves behind: threads, child processes, open files and sockets.

Processes and descriptors are read from `/proc`; where there is none, only threads are compared.

What the tests of a module share, such as a cluster in this process, opens and closes things while
a test runs. It lives on an event loop that the tests `lend_loop`: what that loop watches, and the
threads it has started, are nobody's leaks.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 5.0  # seconds that something may take to go away after the test

# Threads of the test tools themselves, and those kept for the life of the process, by the start
# of their name.
FOREIGN_THREADS = (
    "pytest_timeout",
    "Thread-faulthandler",
    "Dask-Offload",
    "penstock-ticker",
    "penstock-supervisor",
    "penstock-output",
    "fsspecIO",
)

# Processes that the standard library keeps for the life of the process, by their command.
# So does the nursery of process pools, for a few seconds after the last pool.
LASTING_PROCESSES = (
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
    "penstock.task_runners.processes.nursery",
)

# Files that the interpreter itself may open once and keep.
LASTING_FILES = ("/dev/urandom", "/dev/random")

DESCRIPTORS = Path("/proc/self/fd")
TASKS = Path("/proc/self/task")

# What those are that a library in C++ opens and closes in its own threads.
_SOCKETS = ("socket:", "anon_inode:", "pipe:")

_lent_loops: list[Any] = []
# A loop does not watch a connection while it handles what came there. The system numbers sockets
# as they are made, so that what was lent once can be told for ever.
_seen_on_lent_loops: set[tuple[int, str]] = set()
_lent_sockets: list[None] = []


@dataclass(frozen=True)
class Snapshot:
    """What the process holds: threads by object, children by id, descriptors by number."""

    threads: frozenset[threading.Thread]
    processes: frozenset[int]
    descriptors: frozenset[tuple[int, str]]


@contextmanager
def lend_loop(loop: AbstractEventLoop) -> Iterator[None]:
    """Have an event loop, with what lives on it, count as part of the surroundings."""
    _lent_loops.append(loop)
    try:
        yield
    finally:
        _lent_loops.remove(loop)


@contextmanager
def lend_sockets() -> Iterator[None]:
    """Have every socket, pipe and event descriptor count as part of the surroundings.

    For Ray, of which nobody can tell which ones are its own, and which keeps its log files open
    after its shutdown. Other files, threads and processes count as ever.
    """
    _lent_sockets.append(None)
    try:
        yield
    finally:
        _lent_sockets.pop()


def take_snapshot() -> Snapshot:
    """Record what the process holds now."""
    return Snapshot(_threads(), _children(), _descriptors())


def leaks_since(before: Snapshot) -> list[str]:
    """Describe what the process holds now and did not hold then."""
    now = take_snapshot()
    found = [f"thread {thread.name!r}" for thread in now.threads - before.threads]
    found += [f"process {pid} ({_command(pid)})" for pid in now.processes - before.processes]
    found += [f"descriptor {fd} -> {target}" for fd, target in now.descriptors - before.descriptors]
    return sorted(found)


def wait_for_no_leaks(before: Snapshot, patience: float | None = None) -> list[str]:
    """Give the leaks that are still there after `patience` seconds; empty as soon as all is gone.

    What only a reference cycle keeps open is collected first.
    """
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    found = leaks_since(before)
    if found:
        gc.collect()
    pause = threading.Event()
    while found and time.monotonic() < deadline:
        pause.wait(0.005)
        found = leaks_since(before)
    return found


def _threads() -> frozenset[threading.Thread]:
    lent = {thread for loop in _lent_loops for thread in _threads_of(loop)}
    return frozenset(
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread()
        and not thread.name.startswith(FOREIGN_THREADS)
        and thread not in lent
    )


def _threads_of(loop: Any) -> set[threading.Thread]:
    return set(getattr(loop._default_executor, "_threads", ()))


def _children() -> frozenset[int]:
    pids: set[int] = set()
    # Without `pathlib`, as all this happens twice in each of ten thousand tests.
    for thread in os.listdir(TASKS) if TASKS.exists() else []:
        try:
            with open(f"{TASKS}/{thread}/children", "rb") as listing:
                pids.update(map(int, listing.read().split()))
        except OSError:  # the thread has ended meanwhile
            continue
    return frozenset(pid for pid in pids if not _is_lasting(_command(pid)))


def _is_lasting(command: str) -> bool:
    return any(name in command for name in LASTING_PROCESSES)


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode().strip()
    except OSError:
        return "ended"


def _is_of_ray(target: str) -> bool:
    return target.startswith(_SOCKETS) or "/session_" in target


def _descriptors() -> frozenset[tuple[int, str]]:
    found = set()
    lent = {fd for loop in _lent_loops for fd in list(loop._selector.get_map() or ())}
    supervisor = sys.modules.get("penstock.task_runners.processes.supervisor")
    if supervisor is not None and (lasting := supervisor.lasting()) is not None:
        lent |= lasting.descriptors()
    for fd in os.listdir(DESCRIPTORS) if DESCRIPTORS.exists() else []:
        try:
            target = os.readlink(f"{DESCRIPTORS}/{fd}")
        except OSError:  # the descriptor of the listing itself
            continue
        if int(fd) in lent:
            _seen_on_lent_loops.add((int(fd), target))
        is_lent = (int(fd), target) in _seen_on_lent_loops or (_lent_sockets and _is_of_ray(target))
        # What monitors read of processes and of the system is open for a moment, over and over.
        if target not in LASTING_FILES and not is_lent and not _is_of_system(target):
            found.add((int(fd), target))
    return frozenset(found)


def _is_of_system(target: str) -> bool:
    return target.startswith("/proc/")
