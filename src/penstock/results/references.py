"""Where stored results lie, as the history says it; to look at them without loading them.

    codec "json", "pickle"   the bytes are the value
    codec "stored"           the bytes are JSON: storage, name, size, digests, serializer

Nothing here unpickles or imports anything of the user's: that is `kept.py`.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from penstock.errors import MissingDependencyError, ResultCorrupt, ResultStorageError
from penstock.results.base import checked_object_name
from penstock.results.container import verified_parts
from penstock.results.storage import open_storage

STORED = "stored"
"""The codec of what lies in a result storage."""

LARGEST_CHECKED = 256 * 2**20
"""Up to this size, in bytes, `why_unusable` looks at all of a local file."""


class Reference(NamedTuple):
    """Where a result lies, as the history keeps it.

    Attributes:
        storage: a folder or a URL.
        name: of the object there.
        size: of the whole object, in bytes.
        sha256: of its body.
        head: SHA-256 of all that comes before the body.
        serializer: the name of how it was turned into bytes.
    """

    storage: str
    name: str
    size: int
    sha256: str
    head: str
    serializer: str

    def to_bytes(self) -> bytes:
        """Give it as the history keeps it."""
        return json.dumps(self._asdict(), separators=(",", ":")).encode()

    @property
    def place(self) -> str:
        """Where it lies, to be shown."""
        return f"{self.storage}/{self.name}"


def reference_of(data: bytes) -> Reference:
    """Give where a result with the codec "stored" lies. Opens nothing.

    Raises:
        ResultCorrupt: the history's entry is damaged.
    """
    try:
        reference = Reference(**json.loads(data))
        checked_object_name(reference.name)
    except (TypeError, ValueError) as exc:
        raise ResultCorrupt(f"The history's entry of a stored result is damaged: {exc}") from exc
    if not isinstance(reference.storage, str) or not isinstance(reference.size, int):
        raise ResultCorrupt("The history's entry of a stored result is damaged.")
    return reference


def read_kept(data: bytes, codec: str) -> tuple[bytes, str]:
    """Give the bytes of a kept result as its serializer made them, and the serializer's name.

    Nothing of it is unpickled. Parts that a pickle keeps apart follow it, one after another.

    Raises:
        ResultMissing, ResultCorrupt, ResultStorageError: as for `load_kept`.
    """
    if codec != STORED:
        return data, codec
    reference = reference_of(data)
    return b"".join(verified(reference)), reference.serializer


def verified(reference: Reference) -> list[memoryview]:
    """Read a stored result and give its parts, once they have turned out to be what was stored.

    Raises:
        ResultMissing, ResultCorrupt, ResultStorageError: as for `load_kept`.
    """
    content = open_storage(reference.storage).read(reference.name)
    try:
        if len(content) != reference.size:
            raise ResultCorrupt(f"it has {len(content)} bytes instead of {reference.size}")
        return verified_parts(content, reference.head, reference.sha256)
    except ResultCorrupt as exc:
        raise ResultCorrupt(
            f"The result {reference.place} is not what was stored: {exc}. It was not loaded."
        ) from None


def out_of_reach(data: bytes) -> ResultStorageError | None:
    """Say why this process cannot see what a worker has just stored; None where it can.

    Only folders are looked at: one of that name on another machine is another folder.

    Args:
        data: of a result with the codec "stored".
    """
    reference = reference_of(data)
    storage = open_storage(reference.storage)
    if not storage.is_local:
        return None
    try:
        found = storage.size(reference.name)
    except ResultStorageError:
        found = -1
    if found == reference.size:
        return None
    return ResultStorageError(
        f"A worker stored the result {reference.place}, but it is not there for the process that "
        "runs the flow. Use a folder that all machines share, or a URL such as s3://bucket/prefix."
    )


def why_unusable(data: bytes, codec: str) -> str | None:
    """Say why a kept result cannot be used; None where it can. Unpickles nothing.

    The digests of local files up to 256 MiB are checked, of anything else whether it is there
    and as large as it was.

    Args:
        data, codec: the history's columns `result` and `result_codec`.

    Example:
        >>> why_unusable(b"7", "json") is None
        True
    """
    if codec != STORED:
        return None
    try:
        reference = reference_of(data)
        storage = open_storage(reference.storage)
        size = storage.size(reference.name)
        if size != reference.size:
            return f"{reference.place} has {size} bytes instead of {reference.size}"
        if storage.is_local and size <= LARGEST_CHECKED:
            verified(reference)
    except (ResultStorageError, MissingDependencyError) as exc:
        return str(exc)
    return None
