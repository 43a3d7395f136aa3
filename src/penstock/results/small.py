"""Small results are kept in the history itself, as JSON where that is exact, else pickled."""

from __future__ import annotations

import json
import pickle
from typing import Any

SMALL_RESULT_LIMIT = 16 * 1024
"""The largest result, in bytes once encoded, that the history itself keeps."""

_CONSTANTS = {None: b"null", True: b"true", False: b"false"}
_NAMES = {name: value for value, name in _CONSTANTS.items()}
_CONTAINERS = b'"[{'
_NOTHING = (None, None)


def encode_small(value: Any) -> tuple[bytes | None, str | None]:
    """Turn a small value into bytes and the name of how; (None, None) when it is not small.

    What it costs is bounded for large values too: encoding stops at the limit.

    Example:
        >>> encode_small(7)
        (b'7', 'json')
    """
    kind = type(value)
    if value is None or kind is bool:
        return _CONSTANTS[value], "json"
    if kind is int:
        # The decimal form of a huge number takes quadratic time.
        return (str(value).encode(), "json") if value.bit_length() < 4096 else _pickled(value)
    if kind is str:
        if len(value) > SMALL_RESULT_LIMIT:
            return _NOTHING
        encoded = json.dumps(value).encode()
        return (encoded, "json") if len(encoded) <= SMALL_RESULT_LIMIT else _NOTHING
    if kind in (bytes, bytearray) and len(value) > SMALL_RESULT_LIMIT:
        return _NOTHING
    return _pickled(value)


def decode_small(data: bytes, codec: str) -> Any:
    """Turn back what `encode_small` gave. Runs code of the value's classes.

    Example:
        >>> decode_small(*encode_small((1, "a")))
        (1, 'a')
    """
    if codec != "json":
        return pickle.loads(data)
    if data in _NAMES:
        return _NAMES[data]
    if data[0] in _CONTAINERS:
        return json.loads(data)
    try:
        return int(data)
    except ValueError:
        return json.loads(data)  # a fraction


class _Full(Exception):
    """The value takes more room than a small result may."""


class _BoundedFile:
    """A file in memory that refuses to grow beyond the limit."""

    __slots__ = ("chunks", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.chunks: list[bytes] = []
        self.limit = limit
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self.limit:
            raise _Full
        self.chunks.append(bytes(chunk))


def _pickled(value: Any) -> tuple[bytes | None, str | None]:
    data = pickled_within(value, SMALL_RESULT_LIMIT)
    return _NOTHING if data is None else (data, "pickle")


def pickled_within(
    value: Any, limit: int, pickler: type[pickle.Pickler] = pickle.Pickler
) -> bytes | None:
    """Pickle a value in at most so many bytes; None where that cannot be.

    What it costs is bounded: a large array is refused before it is copied.

    Args:
        pickler: may refuse a value by what it raises.
    """
    file = _BoundedFile(limit)

    def refuse_large(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes > limit:
            raise _Full
        return True  # a small one is in the pickle itself

    try:
        pickler(file, 5, buffer_callback=refuse_large).dump(value)
    except (Exception, SystemExit):
        # Whatever cannot be pickled is simply not kept; the run itself succeeded.
        return None
    return b"".join(file.chunks)
