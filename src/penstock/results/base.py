"""The contracts of keeping results: how values become bytes, and where the bytes lie.

    value ──Serializer──► parts ──container──► head + body ──ResultStorage──► an object with a name

Names come from ids, or from `result_storage_key`; either way `checked_object_name` has seen them.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from penstock.errors import InvalidOptionError

Buffer = bytes | bytearray | memoryview
Part = Sequence[Buffer]
"""Bytes that belong together, in pieces."""
ALONE = "tasks"
"""Where results of task runs lie that belong to no flow run."""
MOST_SEGMENTS = 16
LONGEST_SEGMENT = 128

_SEGMENT = re.compile(rf"[A-Za-z0-9._-]{{1,{LONGEST_SEGMENT}}}")
_LONGEST_SHOWN = 200


class Serializer(abc.ABC):
    """Turns values into bytes and back. Thread-safe.

    A serializer of the user's own needs no more than `name`, `dumps` and `loads`; it need not
    derive from this class.

    Attributes:
        name: how it is called in `result_serializer` and in the history.
    """

    name: str

    @abc.abstractmethod
    def dumps(self, value: Any) -> bytes:
        """Turn a value into bytes.

        Raises:
            Exception: it cannot be; the text says why.
        """

    @abc.abstractmethod
    def loads(self, data: bytes) -> Any:
        """Turn back what `dumps` gave."""

    def dump_parts(self, value: Any) -> list[Part]:
        """Turn a value into parts that are stored one after another; large ones without a copy."""
        return [[self.dumps(value)]]

    def load_parts(self, parts: Sequence[memoryview]) -> Any:
        """Turn back what `dump_parts` gave; the memory of the parts is the value's from now on."""
        return self.loads(bytes(parts[0]))


class Content(NamedTuple):
    """What is stored under one name: a head, then the body.

    Attributes:
        head_size: its bytes; known before the head is.
        head: gives the head; to be called once, it may wait for the digest of the body.
        body: the rest, in pieces.
        size: the bytes of all of it.
    """

    head_size: int
    head: Callable[[], bytes]
    body: Sequence[Buffer]
    size: int


class Stored(NamedTuple):
    """An object in a storage.

    Attributes:
        size: in bytes.
        changed_at: seconds since 1970; None where the storage does not say.
        is_temporary: it is what an interrupted write left behind.
    """

    name: str
    size: int
    changed_at: float | None
    is_temporary: bool = False


class ResultStorage(abc.ABC):
    """A place for objects. Thread-safe, and used by any number of processes at a time.

    Attributes:
        location: how it is called in `result_storage` and in the history: an absolute path, or
            a URL.
        is_local: reading costs next to nothing, and size and digest can be looked at freely.
        is_shared: other processes see what this one stores.
    """

    location: str
    is_local = False
    is_shared = True

    @abc.abstractmethod
    def write(self, name: str, content: Content) -> None:
        """Store an object, in place of any other of that name. Nobody ever sees a part of it.

        Raises:
            ResultStorageError: it cannot be stored; nothing of it is left behind.
        """

    @abc.abstractmethod
    def read(self, name: str, limit: int | None = None) -> bytearray:
        """Give the bytes of an object.

        Args:
            limit: give no more than so many bytes, the first ones.

        Raises:
            ResultMissing: there is none of that name.
            ResultStorageError: it cannot be read.
        """

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """Give the size of an object in bytes.

        Raises:
            ResultMissing: there is none of that name.
            ResultStorageError: the storage cannot be asked.
        """

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; one that is not there does no harm.

        Raises:
            ResultStorageError: it cannot be removed.
        """

    @abc.abstractmethod
    def objects(self) -> Iterator[Stored]:
        """Give all objects, in no order, and what interrupted writes have left behind.

        Raises:
            ResultStorageError: the storage cannot be asked.
        """


def checked_object_name(name: Any) -> str:
    """Check the name of an object: segments with slashes between them.

    Raises:
        InvalidOptionError: it could lead elsewhere, or mean something else to some storage.

    Example:
        >>> checked_object_name("census/2026-11/total.bin")
        'census/2026-11/total.bin'
    """
    if not isinstance(name, str):
        raise InvalidOptionError(f"A result is to be stored as {_shown(name)}; it must be a text.")
    segments = name.split("/", MOST_SEGMENTS)
    if len(segments) > MOST_SEGMENTS:
        raise InvalidOptionError(
            f"A result is to be stored as {_shown(name)}, which has more than {MOST_SEGMENTS} "
            "parts between slashes."
        )
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or not segment.strip("."):
            raise InvalidOptionError(
                f"A result is to be stored as {_shown(name)}, but {_shown(segment)} cannot be "
                "used there: between slashes stand 1 to 128 letters, digits, dots, dashes and "
                "underscores, and not dots alone."
            )
    return name


def _shown(name: Any) -> str:
    if not isinstance(name, str):
        return f"an object of type {type(name).__name__}"
    return ascii(name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "…")
