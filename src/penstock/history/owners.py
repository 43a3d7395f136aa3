"""Tell whether the process that drives a flow run still lives.

A process is known by host, pid and start time: pids are used again, start times are not.
"""

from __future__ import annotations

import os
from pathlib import Path

_STATE = 0
_START_TIME = 19


def host_name() -> str:
    """Give the name of this host."""
    return os.uname().nodename


def process_started_at(pid: int) -> int | None:
    """Give a number that tells a process from later ones of the same pid; None: it is gone.

    On Linux clock ticks since the boot, elsewhere seconds since 1970. Only good for comparison
    with another number of the same host.
    """
    if not os.path.exists("/proc/self/stat"):
        return _asked_of_ps(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # the program's name stands in parentheses and may hold anything, parentheses too
    words = text.rpartition(")")[2].split()
    return None if words[_STATE] in "ZX" else int(words[_START_TIME])


def _asked_of_ps(pid: int) -> int | None:
    import subprocess
    import time

    asked = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        env={"LC_ALL": "C", "PATH": "/bin:/usr/bin"},
        check=False,
    )
    try:
        return int(time.mktime(time.strptime(asked.stdout.strip())))
    except ValueError:
        return None


def is_gone(host: str | None, pid: int | None, started_at: int | None) -> bool:
    """Tell whether a process is known to be gone; False when that cannot be known from here."""
    if host != host_name() or pid is None:
        return False
    now = process_started_at(pid)
    return now is None or (started_at is not None and now != started_at)
