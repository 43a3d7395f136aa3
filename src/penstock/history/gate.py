"""The write gate: one writer at a time among all processes that write one history.

    process A ──┐
    process B ──┼── flock(<database>.gate) ── one transaction ── released ── the next one
    process C ──┘

SQLite's own locks keep the file right; the gate keeps them quiet: who holds it never meets
another Penstock writer inside the database. It is held for one group and released at once.

The lock belongs to the open file (`flock`), so that two stores of one process exclude each other
as well, and it ends with the process however that ends. A forked child shares the parent's open
file: it must close its copy and never unlock it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from pathlib import Path

from penstock.errors import HistoryUnavailable

WARN_AFTER = 5.0
"""Seconds of waiting after which the log says so."""

_SHORTEST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.025
_NOT_SUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}

logger = logging.getLogger("penstock.history")


class Patience:
    """How long one write still waits, and whether it has complained yet."""

    __slots__ = ("_complained", "_seconds", "_since")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = time.monotonic()
        self._complained = False

    def wait(self, pause: float, path: str, holder: int | None = None) -> None:
        """Sleep a moment; warn once after a while.

        Raises:
            HistoryUnavailable: the patience is used up.
        """
        waited = time.monotonic() - self._since
        if waited >= self._seconds:
            raise HistoryUnavailable(f"{_busy(path, waited, holder)} Close it, then try again.")
        if waited >= WARN_AFTER and not self._complained:
            self._complained = True
            logger.warning("%s Work goes on.", _busy(path, waited, holder))
        if pause:
            time.sleep(min(pause, self._seconds - waited))


def _busy(path: str, waited: float, holder: int | None) -> str:
    who = f"process {holder}" if holder else "another program"
    return f"HistoryBusy: {who} has locked {path} for {waited:.0f} s."


class WriteGate:
    """Excludes other writers of a database, in this process and in others.

    Args:
        path: the database; the gate is the file `<path>.gate` beside it, which stays.

    Raises:
        OSError: the gate's file cannot be created.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(f"{path}.gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._supported = True

    def acquire(self, patience: Patience) -> None:
        """Wait for the gate and hold it.

        Raises:
            HistoryUnavailable: the patience ended first.
        """
        pause = _SHORTEST_PAUSE
        while not self._try():
            # flock is not fair: uneven pauses let everybody through in the end
            unevenness = 0.5 + time.monotonic_ns() % 1000 / 1000
            patience.wait(pause * unevenness, self._path, self._holder_if_long(pause))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _try(self) -> bool:
        if not self._supported:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as problem:
            if problem.errno not in _NOT_SUPPORTED:
                raise
            self._supported = False  # SQLite's own locks and the retries remain
        return True

    def release(self) -> None:
        """Let the next writer in."""
        if self._supported:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _holder_if_long(self, pause: float) -> int | None:
        return holder_of(self._file) if pause >= _LONGEST_PAUSE else None

    def close(self) -> None:
        """Close this process's copy of the gate; the last copy's end unlocks it."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def holder_of(file: int) -> int | None:
    """Give the process that holds the flock on an open file, None if the system does not tell."""
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    inode = str(os.fstat(file).st_ino)
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
            return int(words[4])
    return None
