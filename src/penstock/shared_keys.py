"""Instances that are made in great numbers share the names of their attributes."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def share_keys(kind: type[T], *names: str) -> type[T]:
    """Have the instances of a class share these names, whenever each of them is first set.

    CPython keeps the attributes of an instance without a dict, in an array for which the class
    has the names. But it takes in a new name only while there are few instances: one that is
    first set when thousands of runs are on their way, such as how each ended, would cost every
    one of them a dict of its own, of a kilobyte.

    Args:
        names: at most 30, which is as many as CPython shares.

    Example:
        >>> class Point: ...
        >>> share_keys(Point, "x", "y") is Point
        True
    """
    first = object.__new__(kind)
    for name in names:
        setattr(first, name, None)
    return kind
