"""What a worker may take: watched from outside, for code that holds its interpreter stops nobody.

    watch ── what is overdue? ──► look, on each node ──► /proc: the black box of each worker
          ◄── what goes on all the same ──┘
          ── take note, then ──► kill, on that node

A worker stops its own task runs, which is enough for nearly all of them. What runs in a worker can
be seen from the other processes of its node: its black box is a file in its memory. So a task that
takes no processor looks there, once something has taken longer than a worker can need to stop it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic, monotonic_ns
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from penstock.remote.blackbox import BlackBox, Running
from penstock.remote.engine import Bundle

PATIENCE_SECONDS = 3.0
"""How long the code of a task run may go on that should have stopped: a worker needs half of it
to give up its own code and say so."""
_LOOK_SECONDS = 2.0
_BOX = "penstock-box"
_OPTIONS: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "name": "penstock-limits"}
Seconds = dict[bytes, float | None]


class Overdue(NamedTuple):
    """A worker process whose code goes on.

    Attributes:
        node: the id of its node.
        running: what it runs.
    """

    node: str
    pid: int
    running: Running


# On a node.


def make_box() -> BlackBox | None:
    """Make the black box of this worker process; None where the system has no such files."""
    if sys.platform != "linux":
        return None
    # Kept open: that is where others find it, for as long as this process lives.
    return BlackBox(f"/proc/self/fd/{os.memfd_create(_BOX)}")


def look(node: str, seconds: Seconds) -> list[Overdue]:
    """Find the workers of this node that run longer than they may; this is a Ray task.

    Args:
        seconds: the time limits of task runs by key; None for one that is to stop.
    """
    found = []
    for pid, running in _running():
        if running.key in seconds and _is_over(running, seconds[running.key]):
            found.append(Overdue(node, pid, running))
    return found


def kill(overdue: Overdue) -> None:
    """Kill a worker of this node if it still runs what it did; this is a Ray task."""
    running = dict(_running()).get(overdue.pid)
    if running is not None and running[:3] == overdue.running[:3]:
        with suppress(ProcessLookupError):
            os.kill(overdue.pid, signal.SIGKILL)


def _running() -> Iterator[tuple[int, Running]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            # Most processes are none of ours, or have gone meanwhile.
            with suppress(OSError):
                running = _running_in(entry.path)
                if running is not None:
                    yield int(entry.name), running


def _running_in(process: str) -> Running | None:
    for descriptor in os.scandir(f"{process}/fd"):
        if os.readlink(descriptor.path).startswith(f"/memfd:{_BOX} "):
            box = BlackBox(descriptor.path)
            try:
                return box.running()
            finally:
                box.close()
    return None


def _is_over(running: Running, seconds: float | None) -> bool:
    if seconds is None:
        return True
    passed = (monotonic_ns() - running.entered) / 1e9
    return bool(running.entered) and passed > seconds + PATIENCE_SECONDS


# In the driver.


class Limits:
    """What was sent with a time limit, and what was called off. Used by one thread but for `expect`
    and `call_off`.

    Args:
        tell: is called with what goes on all the same, before its worker is killed.
    """

    def __init__(self, tell: Callable[[Overdue, float | None], None]) -> None:
        self._tell = tell
        self._sent: dict[Bundle, tuple[float, Seconds]] = {}
        self._called_off: dict[tuple[Bundle, bytes], float] = {}
        self._asked: list[Any] = []
        self._asked_for: Seconds = {}
        self._looked_at = 0.0

    def expect(self, bundle: Bundle) -> None:
        """Take in the time limits of what is sent."""
        seconds: Seconds = {}
        for key, cargo in bundle.cargo.items():
            limit = getattr(getattr(cargo.call, "task", None), "timeout_seconds", None)
            if limit is not None:
                seconds[key] = limit
        if seconds:
            self._sent[bundle] = monotonic(), seconds

    def call_off(self, bundle: Bundle, keys: list[bytes]) -> None:
        """Take in that task runs of a bundle are to stop, if they run at all."""
        now = monotonic()
        for key in keys:
            self._called_off.setdefault((bundle, key), now)

    def check(self, nodes: list[str]) -> None:
        """Have somebody look on each node, if there is a reason to; never blocks for long."""
        if self._asked:
            self._take_answers()
            return
        overdue = self._overdue()
        if overdue and monotonic() > self._looked_at + _LOOK_SECONDS:
            self._asked_for = overdue
            self._asked = [_on(look, node).remote(node, overdue) for node in nodes]

    def _overdue(self) -> Seconds:
        """Give what may run too long; forget what has ended."""
        oldest, found = monotonic() - PATIENCE_SECONDS, Seconds()
        for bundle, (sent_at, seconds) in list(self._sent.items()):
            left = {key: limit for key, limit in seconds.items() if key in bundle.cargo}
            if not left:
                del self._sent[bundle]
            found.update(
                (key, each) for key, each in left.items() if sent_at + (each or 0) < oldest
            )
        for (bundle, key), at in list(self._called_off.items()):
            if key not in bundle.cargo:
                del self._called_off[bundle, key]
            elif at < oldest:
                found[key] = None
        return found

    def _take_answers(self) -> None:
        ready, self._asked = ray.wait(self._asked, num_returns=len(self._asked), timeout=0)
        self._looked_at = monotonic()
        for ref in ready:
            # A node may have gone; what ran there has gone with it.
            with suppress(ray.exceptions.RayError):
                for overdue in ray.get(ref):
                    self._tell(overdue, self._asked_for.get(overdue.running.key))
                    _on(kill, overdue.node).remote(overdue)


def _on(function: Callable[..., Any], node: str) -> Any:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    remote: Any = ray.remote(function)
    return remote.options(scheduling_strategy=where, **_OPTIONS)
