"""The form of a stored object: magic, version, a JSON header, then the body.

    8 bytes  magic          what else a file may be, it is not by accident
    4 bytes  version
    4 bytes  size of the header
    JSON     serializer, sizes of the parts, SHA-256 of the body, versions, ids of the runs
    body     the parts, each at a multiple of 64 bytes

The history keeps the digests of head and body: what lies in a storage is only ever believed, and
only ever unpickled, when both are right.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple

from penstock.errors import ResultCorrupt
from penstock.results.base import Buffer, Content, Part
from penstock.version import __version__

MAGIC = b"\x89Pnstck\n"
VERSION = 1
MOST_HEAD_BYTES = 64 * 1024
HASHED_ASIDE = 256 * 1024
"""From this size on, in bytes, a thread of its own takes the digest while the body is written."""

_START = Struct("<8sII")
_ALIGNMENT = 64
_NO_DIGEST = "0" * 64
_KEY_LIBRARIES = ("numpy", "pandas", "pyarrow", "polars", "torch", "cloudpickle")


class Packed(NamedTuple):
    """A value as it is about to be stored.

    Attributes:
        digests: gives the SHA-256 of head and body in hex, once the content has been written.
    """

    content: Content
    digests: Callable[[], tuple[str, str]]


def pack(parts: Sequence[Part], serializer: str, about: dict[str, Any]) -> Packed:
    """Put the parts of a value into a container.

    Args:
        serializer: how it can be turned back.
        about: what else the header says: who made it.
    """
    sizes = [sum(memoryview(piece).nbytes for piece in part) for part in parts]
    body = _aligned(parts, sizes)
    header = {
        "serializer": serializer,
        "parts": sizes,
        "length": sum(map(len, body)),
        "sha256": _NO_DIGEST,
        "python": sys.version.split()[0],
        "libraries": _library_versions(),
        "penstock": __version__,
        **about,
    }
    # Its size is known before the digest is.
    head_size = len(_head(header))
    digest = _Digest(body, header["length"])
    heads: list[bytes] = []

    def head() -> bytes:
        header["sha256"] = digest.hex()
        heads.append(_head(header))
        return heads[-1]

    def digests() -> tuple[str, str]:
        return hashlib.sha256(heads[-1]).hexdigest(), header["sha256"]

    content = Content(head_size, head, body, head_size + header["length"])
    return Packed(content, digests)


def _aligned(parts: Sequence[Part], sizes: list[int]) -> list[Buffer]:
    """Give the pieces of all parts, with zeros where the next part is to begin further on."""
    body: list[Buffer] = []
    gap = 0
    for part, size in zip(parts, sizes, strict=True):
        if gap:
            body.append(bytes(gap))
        body += [memoryview(piece).cast("B") for piece in part if memoryview(piece).nbytes]
        gap = -size % _ALIGNMENT
    return body


def _head(header: dict[str, Any]) -> bytes:
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-(_START.size + len(data)) % _ALIGNMENT)
    return _START.pack(MAGIC, VERSION, len(data)) + data


def _library_versions() -> dict[str, str]:
    """Give the versions of the loaded libraries on which a pickle is most likely to depend."""
    loaded = [name for name in _KEY_LIBRARIES if name in sys.modules]
    return {name: version for name in loaded if (version := _version_of(name))}


_versions: dict[str, str | None] = {}


def _version_of(name: str) -> str | None:
    if name not in _versions:
        from importlib import metadata  # takes milliseconds to load

        try:
            _versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            _versions[name] = None
    return _versions[name]


class _Digest:
    """The SHA-256 of a body; for a large one it is taken while others use the time."""

    def __init__(self, body: Sequence[Buffer], size: int) -> None:
        self._body = body
        self._hex: str | None = None
        self._thread: threading.Thread | None = None
        if size >= HASHED_ASIDE:
            self._thread = threading.Thread(target=self._take, name="penstock-digest", daemon=True)
            self._thread.start()

    def _take(self) -> None:
        digest = hashlib.sha256()
        for piece in self._body:
            digest.update(piece)
        self._hex = digest.hexdigest()

    def hex(self) -> str:
        if self._thread is not None:
            self._thread.join()
        if self._hex is None:
            self._take()
        assert self._hex is not None
        return self._hex


class Opened(NamedTuple):
    """A container that has been looked into; its body has not been verified yet.

    Attributes:
        header: as it was written.
        head: all that comes before the body.
    """

    header: dict[str, Any]
    head: memoryview


def open_head(data: Buffer) -> Opened | None:
    """Give the head of a container from its first bytes; None if that is no container.

    Example:
        >>> open_head(b"something else") is None
        True
    """
    view = memoryview(data)
    if len(view) < _START.size:
        return None
    magic, version, size = _START.unpack_from(view)
    if magic != MAGIC or version != VERSION or size > MOST_HEAD_BYTES:
        return None
    end = _START.size + size
    if len(view) < end:
        return None
    try:
        header = json.loads(bytes(view[_START.size : end]))
    except ValueError:
        return None
    return Opened(header, view[:end]) if isinstance(header, dict) else None


def verified_parts(data: bytearray, head_sha256: str, body_sha256: str) -> list[memoryview]:
    """Give the parts of a container, once its digests have turned out to be right.

    Raises:
        ResultCorrupt: it is not what was stored; the text says in what.
    """
    opened = open_head(data)
    if opened is None or hashlib.sha256(opened.head).hexdigest() != head_sha256:
        raise ResultCorrupt("its head is not the one that was written")
    body = memoryview(data)[len(opened.head) :]
    if hashlib.sha256(body).hexdigest() != body_sha256:
        raise ResultCorrupt("its contents have another SHA-256 than what was written")
    parts, at = [], 0
    for size in opened.header["parts"]:
        parts.append(body[at : at + size])
        at += size + -size % _ALIGNMENT
    return parts
