"""What people write to name a run: ids, beginnings of ids, `RUN:TASK:NUMBER`."""

from __future__ import annotations

import re
from typing import NamedTuple

SHORTEST = 4
"""Hexadecimal digits that a shortened id needs at least."""

_DIGITS = 32
_HEX = re.compile("[0-9a-f]+")


class IdRange(NamedTuple):
    """All ids that begin with some digits: from `first` to `last`."""

    first: bytes
    last: bytes


def id_digits(reference: str) -> str | None:
    """Give the hexadecimal digits of a whole or shortened id; None if it cannot be one.

    Example:
        >>> id_digits("0198-AB")
        '0198ab'
    """
    digits = reference.replace("-", "").lower()
    fits = SHORTEST <= len(digits) <= _DIGITS and _HEX.fullmatch(digits)
    return digits if fits else None


def id_range(digits: str) -> IdRange:
    """Give the ids that begin with these digits."""
    return IdRange(
        bytes.fromhex(digits.ljust(_DIGITS, "0")), bytes.fromhex(digits.ljust(_DIGITS, "f"))
    )


def whole_id(reference: str) -> bytes | None:
    """Give the 16 bytes of a whole id; None if it is none."""
    digits = id_digits(reference)
    return bytes.fromhex(digits) if digits and len(digits) == _DIGITS else None


class TaskReference(NamedTuple):
    """`RUN:TASK:NUMBER` in its parts; the run is a reference of its own."""

    run: str
    task: str
    number: int


def task_reference(reference: str) -> TaskReference | None:
    """Take `RUN:TASK:NUMBER` apart; None if it is something else.

    Example:
        >>> task_reference("@last:clean:417")
        TaskReference(run='@last', task='clean', number=417)
    """
    run, _, rest = reference.partition(":")
    task, _, number = rest.rpartition(":")
    if not (run and task and number.isdecimal() and len(number) < _DIGITS):
        return None
    return TaskReference(run, task, int(number))
