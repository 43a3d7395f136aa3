"""Kept results as values again: what the history holds itself, and what lies in a storage.

Whoever only lists or shows results needs `references.py`. Here values are made of bytes, and
only of bytes whose digest the history vouches for.
"""

from __future__ import annotations

from typing import Any

from penstock.errors import ResultStorageError
from penstock.results.references import STORED, reference_of, verified
from penstock.results.references import why_unusable as why_unusable
from penstock.results.serializers import serializer_named
from penstock.results.small import decode_small
from penstock.states import describe_exception


def load_kept(data: bytes, codec: str) -> Any:
    """Give the value of a kept result. Runs code of the value's classes.

    Args:
        data, codec: the history's columns `result` and `result_codec`.

    Raises:
        ResultMissing: it is not in its storage any more.
        ResultCorrupt: what lies there is not what was stored; nothing of it was unpickled.
        ResultStorageError: the storage or the serializer cannot be used, or the value cannot be
            rebuilt here.

    Example:
        >>> load_kept(b"7", "json")
        7
    """
    if codec != STORED:
        try:
            return decode_small(data, codec)
        except Exception as exc:
            raise ResultStorageError(
                f"The kept result cannot be rebuilt here: {describe_exception(exc)}"
            ) from exc
    reference = reference_of(data)
    parts = verified(reference)
    try:
        return serializer_named(reference.serializer).load_parts(parts)
    except ResultStorageError as exc:
        raise ResultStorageError(f"The result {reference.place} cannot be loaded: {exc}") from exc
    except Exception as exc:
        raise ResultStorageError(
            f"The result {reference.place} is whole, but cannot be rebuilt here: "
            f"{describe_exception(exc)}. What made it must be importable here as well."
        ) from exc
