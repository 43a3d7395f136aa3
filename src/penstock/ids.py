"""Run ids: UUIDs of version 7 for task runs (ascending in time), of version 4 for flow runs.

Ascending ids keep inserts at the end of the database's tree, which is what makes recording
cheap. The random start of the counter keeps processes apart.
"""

from __future__ import annotations

import itertools
import os
from uuid import UUID

_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)
_MASK = (1 << 62) - 1


def _new_counter() -> itertools.count[int]:
    # 61 random bits: there is room for 2**61 more before the count would wrap.
    return itertools.count(int.from_bytes(os.urandom(8), "big") >> 3)


_counter = _new_counter()


def new_task_run_key(now: int) -> bytes:
    """Make the 16 bytes of a new time-ordered UUID.

    Args:
        now: the time in nanoseconds since 1970.
    """
    milliseconds = now // 1_000_000
    return ((milliseconds << 80) | _VERSION_AND_VARIANT | (next(_counter) & _MASK)).to_bytes(
        16, "big"
    )


def new_flow_run_key() -> bytes:
    """Make the 16 bytes of a new random UUID: its first letters already tell runs apart."""
    number = int.from_bytes(os.urandom(16), "big")
    number = number & ~(0xF << 76) | (4 << 76)
    return (number & ~(3 << 62) | (2 << 62)).to_bytes(16, "big")


def to_uuid(key: bytes) -> UUID:
    """Turn 16 bytes into a UUID."""
    return UUID(bytes=key)


def _after_fork() -> None:
    global _counter
    _counter = _new_counter()


os.register_at_fork(after_in_child=_after_fork)
