"""How objects become bytes: by pickle, and by cloudpickle where that is needed.

    value ──► pickle ──┬──► bytes, or a file; large buffers apart, without a copy
                       └─ refused, or looked up in `__main__` ──► cloudpickle

Pickle is quick and enough for nearly everything. What it refuses, and what it would look up in
`__main__`, which is another one in another process, goes through cloudpickle.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from penstock.core.callables import function_reference
from penstock.core.unpicklable import refusal
from penstock.errors import MissingDependencyError

LARGE_BYTES = 2**20
"""Buffers from this size on leave a pickle, where somebody takes them."""

_SCRIPT = b"__main__"
_LONGEST_FRAME = 256 * 1024  # pickle ends a frame after 64 KiB, and writes what is longer alone


def dumps(value: object, found: list[Any] | None = None) -> bytes:
    """Pickle a value in one piece.

    Args:
        found: large buffers are put into it, without a copy, instead of into the pickle.
    """
    collect = None if found is None else _collector(found)
    if not _by_value_modules():
        try:
            data = pickle.dumps(value, 5, buffer_callback=collect)
            # The name is in the pickle when something is looked up there, or by accident.
            if _SCRIPT not in data:
                return data
        except BaseException as exc:
            refusal(exc)
        if found:
            found.clear()
    file = io.BytesIO()
    _pickler()(file, 5, buffer_callback=collect).dump(value)
    return file.getvalue()


def dump_apart(value: object) -> tuple[bytes, list[memoryview]]:
    """Pickle a value of any size; large buffers leave the pickle without a copy."""
    found: list[memoryview] = []
    return dumps(value, found), found


def dump_pieces(value: object, least: int) -> tuple[list[bytes], list[memoryview]]:
    """Pickle a value of any size without copying what is large in it.

    Args:
        least: buffers from so many bytes on leave the pickle.

    Returns:
        The pickle in pieces, and the buffers that have left it.
    """
    found: list[Any] = []
    if not _by_value_modules():
        try:
            pieces = _Pieces(watched=True)
            pickle.Pickler(pieces, 5, buffer_callback=_collector(found, least)).dump(value)
            return pieces.taken, found
        except BaseException as exc:
            refusal(exc)
        found.clear()
    pieces = _Pieces(watched=False)
    _pickler()(pieces, 5, buffer_callback=_collector(found, least)).dump(value)
    return pieces.taken, found


class _Pieces:
    """A file that keeps the chunks it gets; long bytes objects come as they are."""

    def __init__(self, watched: bool) -> None:
        self.taken: list[bytes] = []
        self._watched = watched

    def write(self, chunk: Any) -> None:
        piece = bytes(chunk)
        # What is looked up in `__main__` is named in a short chunk; long ones are contents.
        if self._watched and len(piece) < _LONGEST_FRAME and _SCRIPT in piece:
            raise pickle.PicklingError("It may refer to `__main__`.")
        self.taken.append(piece)


def _collector(found: list[Any], least: int = LARGE_BYTES) -> Callable[[pickle.PickleBuffer], bool]:
    def collect(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < least:
            return True
        found.append(view)
        return False

    return collect


def _by_value_modules() -> Any:
    """Give the modules that the user asked cloudpickle to send by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    return None if cloudpickle is None else cloudpickle.list_registry_pickle_by_value()


@cache
def _pickler() -> Any:
    """Give cloudpickle's pickler, taught where to find the functions of flows and tasks."""
    try:
        import cloudpickle
    except ImportError as exc:
        raise MissingDependencyError(
            "Sending what a script, a notebook or a function body defines to another process "
            "requires `cloudpickle`; install it with: pip install cloudpickle",
            name="cloudpickle",
        ) from exc

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is FunctionType:
                reference = function_reference(obj)
                if reference is not None:
                    return reference
            return super().reducer_override(obj)

    return Pickler


def try_out(value: object) -> None:
    """Pickle a value, only to see whether that works."""
    if not _by_value_modules():
        try:
            pickle.Pickler(_Sink(), 5, buffer_callback=_drop).dump(value)
            return
        except BaseException as exc:
            refusal(exc)
    _pickler()(_Sink(), 5, buffer_callback=_drop).dump(value)


def _drop(buffer: pickle.PickleBuffer) -> bool:
    return False


def dump_bounded(value: object, limit: int) -> bytes | None:
    """Pickle a value in one piece; None when that takes more than `limit` bytes.

    No more than the limit is ever held in memory. Whatever pickling raises comes through.
    """

    def refuse_long(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes > limit:
            raise _Full
        return True

    def dumped(pickler: Callable[..., Any]) -> bytes:
        file = _BoundedFile(limit)
        pickler(file, 5, buffer_callback=refuse_long).dump(value)
        return b"".join(file.chunks)

    try:
        if not _by_value_modules():
            try:
                data = dumped(pickle.Pickler)
                if _SCRIPT not in data:
                    return data
            except _Full:
                return None
            except BaseException as exc:
                refusal(exc)
        return dumped(_pickler())
    except _Full:
        return None


def dump_into(file: Any, value: object) -> list[memoryview]:
    """Pickle a value into a file, except its large buffers: those are given, and go without a copy.

    What is written are large pieces as they are, so no more memory is taken than for the value.

    Args:
        file: can write, seek, tell and truncate.
    """
    begin = file.tell()
    found: list[Any] = []
    if not _by_value_modules():
        try:
            pickle.Pickler(_Watched(file), 5, buffer_callback=_collector(found)).dump(value)
            return found
        except OSError:
            raise
        except BaseException as exc:
            refusal(exc)
        file.seek(begin)
        file.truncate()
        found.clear()
    _pickler()(_Whole(file), 5, buffer_callback=_collector(found)).dump(value)
    return found


class _Whole:
    """A file without a buffer of its own, which takes every chunk to its end."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, chunk: Any) -> None:
        rest = memoryview(chunk).cast("B")
        while rest.nbytes:
            rest = rest[self._file.write(rest) :]


class _Watched(_Whole):
    """Refuses what plain pickle would look up in `__main__`."""

    def write(self, chunk: Any) -> None:
        # What is looked up is named in a short chunk; long ones are contents.
        if len(chunk) < LARGE_BYTES and _SCRIPT in bytes(chunk):
            raise pickle.PicklingError("It may refer to `__main__`.")
        super().write(chunk)


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


class _Sink:
    """A file that keeps nothing."""

    def write(self, chunk: bytes) -> None:
        pass
