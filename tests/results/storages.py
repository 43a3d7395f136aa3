"""What the tests of storages have in common: contents to store, and where the bytes lie."""

from __future__ import annotations

import hashlib
from typing import Any

from penstock.results.base import Content, ResultStorage
from penstock.results.container import pack
from penstock.results.references import Reference
from penstock.results.serializers import serializer_named


def content(data: bytes, pieces: int = 1) -> Content:
    """Give bytes as the content of an object, with a head of 4 bytes."""
    step = max(1, -(-len(data) // pieces))
    body = [data[at : at + step] for at in range(0, len(data), step)]
    return Content(4, lambda: b"head", body, 4 + len(data))


def keep(storage: ResultStorage, value: Any, name: str = "a/b-1", by: str = "pickle") -> bytes:
    """Store a value and give what the history would keep of it."""
    serializer = serializer_named(by)
    packed = pack(serializer.dump_parts(value), serializer.name, {"flow_run_id": None})
    storage.write(name, packed.content)
    head, body = packed.digests()
    size = packed.content.size
    return Reference(storage.location, name, size, body, head, by).to_bytes()


def sha256(data: Any) -> str:
    """Give the SHA-256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()
