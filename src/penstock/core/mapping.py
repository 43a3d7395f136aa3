"""Turn the arguments of `map` into the arguments of one call per element.

Constant for every call: `unmapped(x)`, `quote(x)`, `str`, `bytes` and other buffers, mappings,
tables (any class called `DataFrame`: iterating one gives column names), pydantic models, futures
and everything that cannot be iterated. All other arguments are iterated in step. Futures must
have been replaced by their values before. `allow_failure(iterable)` is iterated, each element
inside its own `allow_failure`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, repeat, zip_longest
from typing import Any, NamedTuple

from penstock.annotations import Dependency, allow_failure, quote, unmapped
from penstock.errors import MappingLengthMismatch, MappingMissingIterable

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The positional and keyword arguments of one call."""

_CONSTANT_TYPES = (str, bytes, bytearray, memoryview, Mapping, Dependency, quote)
_END: Any = object()


class _Argument(NamedTuple):
    """One argument of `map`: `elements` is None when it is the same for every call."""

    name: str
    value: object
    elements: Iterable[object] | None


def list_arguments(
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    names: Sequence[str] = (),
    function: str = "the function",
) -> list[Call]:
    """List the arguments of every call, after listing every iterable.

    Args:
        args: the positional arguments of `map`, futures replaced.
        kwargs: its keyword arguments, futures replaced.
        names: the function's parameter names, to name positional arguments in errors.
        function: the function's name, for errors.

    Raises:
        MappingMissingIterable: no argument can be iterated.
        MappingLengthMismatch: the iterables differ in length; the text gives each length.

    Example:
        >>> list_arguments(([1, 2], "x"), {})
        [((1, 'x'), {}), ((2, 'x'), {})]
    """
    arguments = _arguments(args, kwargs, names, function)
    listed = [each._replace(elements=_listed(each.elements)) for each in arguments]
    lengths = {each.name: len(each.elements) for each in listed if each.elements is not None}  # type: ignore[arg-type]
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise MappingLengthMismatch(
            f"Cannot map {function}: the iterables differ in length: {told}. "
            "Wrap what is the same for every call in `unmapped(...)`."
        )
    columns = _columns(listed)
    positional, keyword = columns[: len(args)], columns[len(args) :]
    return list(zip(_tuples(positional), _dicts(tuple(kwargs), keyword), strict=False))


def zip_arguments(
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    names: Sequence[str] = (),
    function: str = "the function",
) -> Iterator[Call]:
    """Iterate over the arguments of every call, reading one element of each iterable at a time.

    Takes endless iterables. Parameters as in `list_arguments`.

    Raises:
        MappingMissingIterable: at once, when no argument can be iterated.
        MappingLengthMismatch: while iterating, when one iterable ends before another; the calls
            before were already given.
    """
    arguments = _arguments(args, kwargs, names, function)
    return map(_call, _rows(arguments, function), repeat(len(args)), repeat(tuple(kwargs)))


def is_mapped(value: object) -> bool:
    """Say whether `map` iterates over an argument (a future counts as constant here)."""
    return _elements(value) is not None


def _arguments(
    args: Sequence[object], kwargs: Mapping[str, object], names: Sequence[str], function: str
) -> list[_Argument]:
    given = [
        (names[index] if index < len(names) else f"argument {index + 1}", value)
        for index, value in enumerate(args)
    ]
    arguments = [
        _Argument(name, value.value if isinstance(value, unmapped) else value, _elements(value))
        for name, value in [*given, *kwargs.items()]
    ]
    if all(each.elements is None for each in arguments):
        raise MappingMissingIterable(
            f"Cannot map {function}: none of its arguments can be iterated over"
            f"{_told(arguments)}. Strings, bytes, mappings and tables are passed to every call "
            "as they are; pass a list, or use `submit` for one call."
        )
    return arguments


def _told(arguments: list[_Argument]) -> str:
    types = ", ".join(f"{each.name!r} is of type {type(each.value).__name__}" for each in arguments)
    return f" ({types})" if types else ""


def _elements(value: object) -> Iterable[object] | None:
    """Give what to iterate over, or None for a constant."""
    if isinstance(value, allow_failure):
        inner = _elements(value.value)
        return None if inner is None else map(allow_failure, inner)
    kind = type(value)
    if kind is list or kind is tuple or kind is range:
        return value  # type: ignore[return-value]
    if isinstance(value, (unmapped, *_CONSTANT_TYPES)) or _is_record(kind):
        return None
    try:
        return iter(value)  # type: ignore[call-overload,no-any-return]
    except TypeError:
        return None


def _is_record(kind: type) -> bool:
    if any(base.__name__ == "DataFrame" for base in kind.__mro__):
        return True
    return hasattr(kind, "__pydantic_validator__")


def _listed(elements: Iterable[object] | None) -> Sequence[object] | None:
    if elements is None or isinstance(elements, (list, tuple, range)):
        return elements
    return list(elements)


def _columns(arguments: list[_Argument]) -> list[Iterable[object]]:
    return [repeat(each.value) if each.elements is None else each.elements for each in arguments]


def _rows(arguments: list[_Argument], function: str) -> Iterator[tuple[object, ...]]:
    """Zip the iterables; constants have no end and never end the zip."""
    mapped = [index for index, each in enumerate(arguments) if each.elements is not None]
    iterables = [each.elements for each in arguments if each.elements is not None]
    for number, elements in zip(count(), zip_longest(*iterables, fillvalue=_END), strict=False):
        if any(element is _END for element in elements):
            names = [arguments[index].name for index in mapped]
            raise _ended(names, elements, number, function)
        row = [each.value for each in arguments]
        for index, element in zip(mapped, elements, strict=True):
            row[index] = element
        yield tuple(row)


def _ended(
    names: list[str], elements: tuple[object, ...], number: int, function: str
) -> MappingLengthMismatch:
    pairs = list(zip(names, elements, strict=True))
    ended = ", ".join(repr(name) for name, element in pairs if element is _END)
    others = ", ".join(repr(name) for name, element in pairs if element is not _END)
    return MappingLengthMismatch(
        f"Cannot map {function} any further: {ended} ended after {number} elements while "
        f"{others} went on. Wrap what is the same for every call in `unmapped(...)`."
    )


def _call(row: tuple[object, ...], positional: int, keywords: tuple[str, ...]) -> Call:
    return row[:positional], dict(zip(keywords, row[positional:], strict=True))


def _tuples(columns: list[Iterable[object]]) -> Iterator[tuple[object, ...]]:
    return zip(*columns, strict=False) if columns else repeat(())


def _dicts(names: tuple[str, ...], columns: list[Iterable[object]]) -> Iterator[dict[str, object]]:
    if not names:
        return iter(dict, None)  # a new empty dict each time
    if len(names) == 1:
        return ({names[0]: value} for value in columns[0])
    return map(dict, map(zip, repeat(names), zip(*columns, strict=False)))
