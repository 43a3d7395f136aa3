"""Failpoints: named places at which a test can have the process die, stop, wait or fail.

    PENSTOCK_TESTING=1
    PENSTOCK_FAILPOINTS="history.committed=kill@3;task.dispatched=sleep:0.5"

    action      kill             SIGKILL to this process
                stop             SIGSTOP to this process
                exit             end it at once, with code 70
                raise:NAME       raise the built-in exception NAME
                error:ENOSPC     raise an OSError; also error:EIO
                sleep:SECONDS    wait
    action@3    only the third time that the place is reached
    action%0.1  each time with this probability, by the seed PENSTOCK_FAILPOINT_SEED

Each process counts for itself, or all together where `PENSTOCK_FAILPOINT_COUNTS` names a folder:
there each name has a file that grows by one byte at a time. Without `PENSTOCK_TESTING=1` nothing
is read, `FAILPOINTS` is empty, and a place costs one test of that.
"""

from __future__ import annotations

import builtins
import errno
import itertools
import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping

NAMES: dict[str, str] = {
    "lease.acquire": "A new flow run has its lease; the transaction is still open.",
    "lease.beat": "A driver has shown a sign of life; the transaction is still open.",
    "lease.steal": "A flow run has another driver; the transaction is still open.",
    "history.batch_built": "The recorder has made a group of rows; nothing of it is written.",
    "history.begin": "The transaction of a group has begun.",
    "history.before_commit": "All rows of a group are in the transaction, which is still open.",
    "history.committed": "A group is committed; nobody has been told.",
    "history.reply": "The recorder knows that a group is committed; who waits is told next.",
    "task.dispatched": "A bundle of task runs has been handed to the engine.",
    "worker.received": "A worker has received a bundle.",
    "worker.body_start": "A worker is about to call the function of a task.",
    "worker.body_end": "The function of a task has ended on a worker.",
    "worker.serialised": "A worker has turned a value into bytes.",
    "worker.send": "A worker is about to send a report to the driver.",
    "result.temp_written": "A result is in a temporary file.",
    "result.fsynced": "A result that has to survive a power cut has reached the disk.",
    "result.renamed": "A result has its name; who stores it has not been told.",
    "result.stored": "A result is in its storage; the history does not know it.",
    "event.completed_buffered": "The end of a task run lies in the recorder's queue.",
    "resume.loaded": "A flow run that will be resumed was read; nothing has changed.",
    "resume.requeued": "A flow run is claimed, and what was unfinished is closed.",
    "cancel.requested": "Somebody asked for a task run to be cancelled; nothing is done yet.",
    "migrate.backup": "A history that will be migrated has been copied.",
    "migrate.step": "A statement of a migration was executed; the transaction is still open.",
    "gc.mark": "It is known which stored results may be removed.",
    "gc.delete": "A stored result was removed.",
}
"""Every failpoint, and what is true of the process that has reached it."""

_EXIT_CODE = 70
_ENTRY = re.compile(
    r"(?P<action>[a-z]+)(:(?P<detail>[^@%]+))?(@(?P<nth>[1-9]\d*)|%(?P<chance>[\d.]+))?"
)


class Failpoint:
    """What happens at one place. Thread-safe."""

    def __init__(
        self,
        act: Callable[[], object],
        nth: int | None = None,
        chance: Callable[[], bool] | None = None,
        count: Callable[[], int] | None = None,
    ) -> None:
        self._act = act
        self._nth = nth
        self._chance = chance
        self._count = count or itertools.count(1).__next__

    def reach(self) -> None:
        """Count this time, and act if it is one of those meant."""
        number = self._count()
        if self._nth is not None and number != self._nth:
            return
        if self._chance is None or self._chance():
            self._act()


def read_failpoints(variables: Mapping[str, str]) -> dict[str, Failpoint]:
    """Read from environment variables what shall happen where; nothing unless testing is on.

    Raises:
        ValueError: a name or an action is unknown; the text says which there are.

    Example:
        >>> read_failpoints({"PENSTOCK_FAILPOINTS": "history.begin=kill"})
        {}
        >>> variables = {"PENSTOCK_TESTING": "1", "PENSTOCK_FAILPOINTS": "history.begin=kill@2"}
        >>> list(read_failpoints(variables))
        ['history.begin']
    """
    if variables.get("PENSTOCK_TESTING") != "1":
        return {}
    points: dict[str, Failpoint] = {}
    for entry in filter(None, map(str.strip, variables.get("PENSTOCK_FAILPOINTS", "").split(";"))):
        name, _, what = map(str.strip, entry.partition("="))
        if name not in NAMES:
            raise _wrong(entry, f"there is no failpoint {name!r}; there are {', '.join(NAMES)}")
        if name in points:
            raise _wrong(entry, f"{name!r} is named twice")
        points[name] = _read_entry(entry, name, what, variables)
    return points


def _read_entry(entry: str, name: str, what: str, variables: Mapping[str, str]) -> Failpoint:
    read = _ENTRY.fullmatch(what)
    act = None if read is None else _action(name, read["action"], read["detail"])
    if read is None or act is None:
        raise _wrong(
            entry,
            "its action must be kill, stop, exit, raise:NAME, error:ENOSPC, error:EIO or "
            "sleep:SECONDS, with @N or %PROBABILITY behind it or nothing",
        )
    chance = None
    if read["chance"] is not None:
        most = _number(read["chance"])
        if most is None:
            raise _wrong(entry, f"{read['chance']!r} is no probability")
        dice = random.Random(f"{variables.get('PENSTOCK_FAILPOINT_SEED', '0')} {name}")
        chance = _chance(dice, most)
    folder = variables.get("PENSTOCK_FAILPOINT_COUNTS")
    count = None if not folder else _shared_count(os.path.join(folder, name))
    return Failpoint(act, int(read["nth"]) if read["nth"] else None, chance, count)


def _action(name: str, action: str, detail: str | None) -> Callable[[], object] | None:
    if detail is None:
        return _ENDINGS.get(action)
    if action == "sleep":
        seconds = _number(detail)
        return None if seconds is None else lambda: time.sleep(seconds)
    if action == "error" and detail in ("ENOSPC", "EIO"):
        number = getattr(errno, detail)
        return _raising(lambda: OSError(number, os.strerror(number), name))
    kind = getattr(builtins, detail, None)
    if action == "raise" and isinstance(kind, type) and issubclass(kind, BaseException):
        return _raising(lambda: kind(f"The failpoint {name} was reached."))
    return None


def _raising(make: Callable[[], BaseException]) -> Callable[[], object]:
    def act() -> None:
        raise make()

    return act


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _chance(dice: random.Random, most: float) -> Callable[[], bool]:
    return lambda: dice.random() < most


def _shared_count(path: str) -> Callable[[], int]:
    """Count in a file that several processes may count in."""

    def count() -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b".")
            # Behind what was written just now, whatever others have written since.
            return os.lseek(descriptor, 0, os.SEEK_CUR)
        finally:
            os.close(descriptor)

    return count


def _wrong(entry: str, problem: str) -> ValueError:
    return ValueError(f"PENSTOCK_FAILPOINTS has {entry!r}: {problem}.")


_ENDINGS: dict[str, Callable[[], object]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(_EXIT_CODE),
}

FAILPOINTS = read_failpoints(os.environ)
"""What happens where in this process, by name; empty in all but tests."""


def hit(name: str) -> None:
    """Do what shall happen at a place, if anything. Thread-safe.

    A place is written so, and costs next to nothing when nothing shall happen anywhere:

        if FAILPOINTS:
            hit("history.committed")
    """
    point = FAILPOINTS.get(name)
    if point is not None:
        point.reach()
