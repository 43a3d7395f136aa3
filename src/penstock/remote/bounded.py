"""Pickle what may be of any size, without ever holding more than a limit in memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from penstock.remote.parcels import SCRIPT, by_value_modules, pickler
from penstock.remote.unpicklable import refusal


def dump_bounded(value: object, limit: int) -> bytes | None:
    """Pickle a value in one piece; None when that takes more than `limit` bytes.

    No more than the limit is ever held in memory. Whatever pickling raises comes through.
    """

    def refuse_long(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes > limit:
            raise _Full
        return True

    def dumped(make: Callable[..., Any]) -> bytes:
        file = _BoundedFile(limit)
        make(file, 5, buffer_callback=refuse_long).dump(value)
        return b"".join(file.chunks)

    try:
        if not by_value_modules():
            try:
                data = dumped(pickle.Pickler)
                if SCRIPT not in data:
                    return data
            except _Full:
                return None
            except BaseException as exc:
                refusal(exc)
        return dumped(pickler())
    except _Full:
        return None


class _Full(Exception):
    """The pickle would be longer than allowed."""


class _BoundedFile:
    """A file in memory that refuses to grow beyond a limit."""

    __slots__ = ("chunks", "left")

    def __init__(self, limit: int) -> None:
        self.chunks: list[bytes] = []
        self.left = limit

    def write(self, chunk: bytes) -> None:
        self.left -= memoryview(chunk).nbytes  # a large buffer comes as it is
        if self.left < 0:
            raise _Full
        self.chunks.append(bytes(chunk))
