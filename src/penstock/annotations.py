"""Marks on arguments: `unmapped`, `allow_failure`, `quote`, and what stands for a later value."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Dependency:
    """Base of what stands for a value that a run will produce: futures and states."""

    __slots__ = ()


class Annotation(Generic[T]):
    """A value together with how Penstock is to treat it."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):
    """Keep an iterable argument of `map` constant.

    Example:
        >>> unmapped([1, 2]).value
        [1, 2]
    """

    __slots__ = ()


class allow_failure(Annotation[T]):
    """Let upstreams that did not complete through; their value is the exception.

    Example:
        >>> allow_failure("a future").value
        'a future'
    """

    __slots__ = ()


class quote(Annotation[T]):
    """Pass a value as it is: it is not searched for futures, waited for or aggregated.

    Example:
        >>> quote([1]).unquote()
        [1]
    """

    __slots__ = ()

    def unquote(self) -> T:
        """Give the quoted value."""
        return self.value
