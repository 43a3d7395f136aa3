"""The black box of a worker: what the driver can still learn from it when the worker is dead.

    worker ──note──► shared memory ◄──read── driver, after a death
       └──flush──► report on the socket; what the report says is taken out of the box

A report leaves every few milliseconds. What has happened since the last one lies here, so a death
costs exactly the attempt that was running, and no finished work is ever done again.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
from collections.abc import Iterator
from struct import Struct
from time import monotonic_ns, time_ns
from typing import Any, NamedTuple

SIZE = 1024 * 1024
"""Bytes of a box; it takes memory only as far as it was ever filled."""
_HEAD = Struct("<QQ")  # the number of the next report, and how many bytes are noted for it
_RUNNING = Struct("<16sIQQ")
_RUNNING_AT = 64
_ENTERED_AT = _RUNNING_AT + _RUNNING.size - 8
_BODY_AT = 128
ROOM = SIZE - _BODY_AT
"""Bytes that a box can hold between two reports."""
_NOBODY = bytes(16)


class Running(NamedTuple):
    """What runs on a worker.

    Attributes:
        key: the id of the task run as 16 bytes.
        attempt: the number of the attempt.
        began_at: when it began, in nanoseconds since 1970.
        entered: when its function was called, in nanoseconds on the machine's monotonic clock; 0
            before that.
    """

    key: bytes
    attempt: int
    began_at: int
    entered: int


class BlackBox:
    """One side's view of a box. The worker writes, under a lock of its own; the driver reads.

    Args:
        path: the file that both sides share.
    """

    def __init__(self, path: str) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, SIZE)
            self._memory = mmap.mmap(handle, SIZE)
        finally:
            os.close(handle)
        self.noted = 0

    def close(self) -> None:
        """Let the memory go."""
        self._memory.close()

    # The worker's side.

    def note(self, entry: bytes) -> bool:
        """Take in a pickled entry; False when it does not fit any more."""
        end = self.noted + len(entry)
        if end > ROOM:
            return False
        self._memory[_BODY_AT + self.noted : _BODY_AT + end] = entry
        self.noted = end
        # The length last: what is only half there does not count.
        self._memory[8:16] = end.to_bytes(8, "little")
        return True

    def sent(self, number: int) -> None:
        """Take out what a report has told: from now on notes are for the one after it."""
        self.noted = 0
        self._memory[8:16] = bytes(8)
        self._memory[0:8] = (number + 1).to_bytes(8, "little")

    def begins(self, key: bytes, attempt: int) -> None:
        """Note what runs, from the moment on when its arguments are unpacked."""
        _RUNNING.pack_into(self._memory, _RUNNING_AT, key, attempt, time_ns(), 0)

    def enters(self) -> None:
        """Note that the function of what runs is called."""
        self._memory[_ENTERED_AT : _ENTERED_AT + 8] = monotonic_ns().to_bytes(8, "little")

    def rests(self) -> None:
        """Note that nothing runs."""
        self._memory[_RUNNING_AT : _RUNNING_AT + 16] = _NOBODY

    # The driver's side.

    def running(self) -> Running | None:
        """Give what runs, None when nothing does."""
        running = Running(*_RUNNING.unpack_from(self._memory, _RUNNING_AT))
        return None if running.key == _NOBODY else running

    def left_behind(self, reports: int) -> Iterator[tuple[Any, ...]]:
        """Give the entries that no report has told.

        Args:
            reports: how many reports have arrived.
        """
        number, length = _HEAD.unpack_from(self._memory, 0)
        if number != reports:
            return  # the last report had left, and was not yet taken out
        body = io.BytesIO(self._memory[_BODY_AT : _BODY_AT + length])
        while body.tell() < length:
            yield pickle.load(body)


class NoBox:
    """Stands for the box in a process that has none."""

    def note(self, entry: bytes) -> bool:
        """Take in nothing."""
        return True

    def sent(self, number: int) -> None:
        """Do nothing."""

    def begins(self, key: bytes, attempt: int) -> None:
        """Do nothing."""

    def enters(self) -> None:
        """Do nothing."""

    def rests(self) -> None:
        """Do nothing."""
