"""Load what the history keeps of a result."""

from __future__ import annotations

from typing import Any

from penstock.results.small import decode_small


def load_kept(data: bytes, codec: str) -> Any:
    """Give the value of a kept result. Runs code of the value's classes."""
    return decode_small(data, codec)


def why_unusable(data: bytes, codec: str) -> str | None:
    """Say why a kept result cannot be used, without loading it; None where it can."""
    return None
