"""How a worker process ended, in words."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

_COUNTERS = Path("/proc/vmstat")
_GIGABYTE = 1e9


class Deaths:
    """Tells of deaths; knows whether the kernel has run out of memory since the last one."""

    def __init__(self) -> None:
        self._kills = _kills_for_memory()

    def describe(self, pid: int, code: int | None, memory: int) -> str:
        """Say how a worker ended.

        Args:
            code: its exit code, below zero the signal that killed it; None: nobody knows.
            memory: the most memory that it ever took, in bytes.
        """
        text = f"The worker process {pid} that ran it {_ending(code)}."
        kills = _kills_for_memory()
        if code == -signal.SIGKILL and kills > self._kills:
            text += (
                f" It took up to {memory / _GIGABYTE:.1f} GB, and the kernel has just killed a "
                "process because memory ran out: that was probably this one. Try fewer workers."
            )
        self._kills = kills
        return text


def _ending(code: int | None) -> str:
    if code is None:
        return "was lost"
    if code >= 0:
        return f"ended with exit code {code}"
    name = f"signal {-code}"
    with suppress(ValueError):
        name += f" ({signal.Signals(-code).name})"
    return f"was ended by {name}"


def _kills_for_memory() -> int:
    """Count the processes that the kernel has killed for want of memory; 0 where it won't say."""
    with suppress(OSError):
        for line in _COUNTERS.read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0
