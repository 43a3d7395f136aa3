"""Arguments and code as bytes, to travel to another process.

    values ──pack──► data ─┬─ small: one plain pickle, known by its first byte
                           └─ b"L": a pickle of (the rest, pieces), where a piece says which
                              positions it fills and of which large parts it is made
                     large ── contents by digest: each travels once, however often it is used

Contents of at least `LARGE_BYTES` travel apart from the data, once for all calls that use them.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from penstock.core.callables import Decorated
from penstock.core.inputs import SCALARS
from penstock.core.pickling import LARGE_BYTES, dumps, try_out
from penstock.core.signatures import callable_name
from penstock.core.unpicklable import refusal, unpicklable
from penstock.errors import MissingDependencyError, SerializationError
from penstock.runtime.unpacking import unpacking_here

MEMO_ENTRIES = 64
"""Large arguments that the memo of one `map` remembers: those used last."""

SCRIPT = b"__main__"
"""What the pickle of a thing contains that is looked up in the main module."""

Buffer = bytes | bytearray | memoryview
Resolver = Callable[[Any], object]

_PLAIN = 0x80  # every pickle starts with it
_MARK_LARGE = b"L"
_LONG_TYPES = frozenset({bytes, bytearray, str})


class Large(NamedTuple):
    """A content that travels apart.

    Attributes:
        digest: 16 bytes of BLAKE2b of the content, in hexadecimal.
        buffer: the content, as it was when it was packed.
    """

    digest: str
    buffer: Buffer


class Parcel(NamedTuple):
    """The argument values of one call, packed; `large` holds each content once."""

    data: bytes
    large: tuple[Large, ...]


class Piece(NamedTuple):
    """One argument that has large parts.

    Attributes:
        kind: "bytes", "bytearray" or "str": the content of the only part; "pickle": a pickle.
        data: the pickle; None when it is itself large, and then the first part.
        large: the large parts, in the order of use.
    """

    kind: str
    data: bytes | None
    large: tuple[Large, ...]


class Placeholder:
    """Stands for a value that lies on the worker already: unpickled, it is that value.

    Args:
        token: what the resolver given to `unpack` is called with, of a built-in type.
    """

    __slots__ = ("token",)

    def __init__(self, token: object) -> None:
        self.token = token

    def __reduce__(self) -> tuple[Callable[[Any], object], tuple[object]]:
        return resolve, (self.token,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placeholder) and self.token == other.token

    def __hash__(self) -> int:
        return hash(self.token)


class _Current(threading.local):
    resolver: Resolver | None = None


_current = _Current()


def resolve(token: Any) -> object:
    """Give the value that a placeholder stands for; called while one is unpickled.

    Raises:
        SerializationError: nobody gave a resolver.
    """
    if _current.resolver is None:
        raise SerializationError(
            "The arguments hold a placeholder for the value of another run, and nothing here "
            "knows that value. Unpack them with a resolver."
        )
    return _current.resolver(token)


def pack(
    values: tuple[object, ...], names: Sequence[str], memo: dict[int, Any] | None = None
) -> Parcel:
    """Pack the argument values of one call.

    Objects that appear several times in the values stay one object, except that an argument with
    large parts shares nothing with the other arguments but itself.

    Args:
        values: one for each parameter.
        names: the names of the parameters, for error messages.
        memo: an empty dict that all calls of one `map` share: an argument with large parts is
            then pickled and digested only once. It is not to change in between.

    Raises:
        SerializationError: a value cannot be pickled; the text gives the path to the culprit.
        MissingDependencyError: cloudpickle is needed and not installed.

    Example:
        >>> unpack(pack((1, [2]), ("x", "y")).data, {})
        (1, [2])
    """
    if SCALARS.issuperset(map(type, values)):
        if not _has_long(values):
            return Parcel(pickle.dumps(values, 5), ())
    elif not (memo and not memo.keys().isdisjoint(map(id, values))) and not _has_long(values):
        found: list[Any] = []
        try:
            data = dumps(values, found)
        except MissingDependencyError:
            raise
        except BaseException as exc:
            refusal(exc)
            raise _refused_argument(values, names, exc) from exc
        if not found and len(data) < LARGE_BYTES:
            return Parcel(data, ())
    return _pack_apart(values, names, memo)


def unpack(
    data: bytes,
    large: Mapping[str, Buffer],
    resolver: Resolver | None = None,
    *,
    known: dict[Hashable, object] | None = None,
) -> tuple[object, ...]:
    """Undo `pack`, on a worker.

    Args:
        data: the data of a parcel.
        large: the large contents by digest. What is made of them, but strings and bytearrays,
            uses them in place and is read-only, for several runs share them.
        resolver: gives the value for the token of a `Placeholder`.
        known: an empty dict that all calls of one `map` share: an argument with large parts that
            they have in common is then one object.

    Raises:
        ImportError: a module is missing here; its `name` says which.
        SerializationError: a large content is missing, or a resolver.
    """
    # Written out: it happens for every task run.
    outer = _current.resolver
    _current.resolver = resolver or outer
    unpacking_here.depth += 1
    try:
        return _unpack(data, large, {} if known is None else known)
    finally:
        unpacking_here.depth -= 1
        _current.resolver = outer


def pack_code(definition: Decorated | Callable[..., Any]) -> bytes:
    """Pack a flow, a task or another callable: a reference where it can be imported, else by value.

    Raises:
        SerializationError: something that it uses cannot be pickled; the text names the closure
            variable, global or option.
        MissingDependencyError: cloudpickle is needed and not installed.
    """
    if not isinstance(definition, Decorated):
        return dump_value(definition, f"the function {callable_name(definition)!r}")
    kind = "flow" if "Flow" in type(definition).__name__ else "task"
    return dump_value(definition, f"{kind} {getattr(definition, 'name', definition.key)!r}")


def dump_value(value: object, label: str) -> bytes:
    """Pickle a value in one piece; `pickle.loads` is the reverse.

    Args:
        value: the value.
        label: what it is, for the error message.

    Raises:
        SerializationError: it cannot be pickled; the text gives the path to the culprit.
        MissingDependencyError: cloudpickle is needed and not installed.
    """
    try:
        return dumps(value)
    except MissingDependencyError:
        raise
    except BaseException as exc:
        raise unpicklable(label, value, refusal(exc), try_out) from exc


def unpack_code(data: bytes, resolver: Resolver | None = None) -> Any:
    """Undo `pack_code`, on a worker.

    Args:
        resolver: gives what futures stand for that the code closes over.

    Raises:
        ImportError: a module is missing here; its `name` says which.
    """
    with resolving(resolver):
        return pickle.loads(data)


@contextmanager
def resolving(resolver: Resolver | None) -> Iterator[None]:
    """Let placeholders that are unpickled in this thread be resolved, inside the block."""
    outer = _current.resolver
    _current.resolver = resolver or outer
    unpacking_here.depth += 1
    try:
        yield
    finally:
        unpacking_here.depth -= 1
        _current.resolver = outer


def _refused_argument(
    values: tuple[object, ...], names: Sequence[str], reason: BaseException
) -> SerializationError:
    for name, value in zip(names, values, strict=False):
        try:
            try_out(value)
        except BaseException as exc:
            return unpicklable(f"argument {name!r}", value, refusal(exc), try_out)
    return unpicklable("the arguments", values, reason, try_out)


def _has_long(values: tuple[Any, ...]) -> bool:
    for value in values:  # noqa: SIM110 (three times as fast as `any`)
        if type(value) in _LONG_TYPES and len(value) >= LARGE_BYTES:
            return True
    return False


def _pack_apart(
    values: tuple[object, ...], names: Sequence[str], memo: dict[int, Any] | None
) -> Parcel:
    """Pack values some of which have large parts: those one by one, the rest together."""
    memo = {} if memo is None else memo
    rest = list(values)
    positions: dict[int, list[int]] = {}
    for position, value in enumerate(values):
        positions.setdefault(id(value), []).append(position)
    layout: list[tuple[list[int], str, bytes | None, tuple[str, ...]]] = []
    large: dict[str, Large] = {}
    for places in positions.values():
        piece = _piece(values[places[0]], names, places[0], memo)
        if piece is None:
            continue
        for place in places:
            rest[place] = None
        large.update((part.digest, part) for part in piece.large)
        layout.append((places, piece.kind, piece.data, tuple(p.digest for p in piece.large)))
    try:
        packed = dumps(tuple(rest))
    except BaseException as exc:
        refusal(exc)
        raise _refused_argument(values, names, exc) from exc
    data = _MARK_LARGE + pickle.dumps((packed, layout), 5)
    return Parcel(data, tuple(large.values()))


def _piece(value: Any, names: Sequence[str], position: int, memo: dict[int, Any]) -> Piece | None:
    """Give the piece for an argument with large parts, out of the memo if it is there."""
    known = memo.pop(id(value), None)
    if known is None:
        try:
            piece = _new_piece(value)
        except MissingDependencyError:
            raise
        except BaseException as exc:
            label = f"argument {names[position]!r}"
            raise unpicklable(label, value, refusal(exc), try_out) from exc
        if piece is None:
            return None
        known = value, piece  # with the value, so that no other gets its id
        while len(memo) >= MEMO_ENTRIES:
            del memo[next(iter(memo))]
    memo[id(value)] = known  # at the end: used last
    return known[1]  # type: ignore[no-any-return]


def _new_piece(value: Any) -> Piece | None:
    kind = type(value)
    if kind in _LONG_TYPES:
        if len(value) < LARGE_BYTES:
            return None
        # A bytearray that is looked at through a view could not be resized by its owner.
        content = value.encode("utf-8", "surrogatepass") if kind is str else bytes(value)
        return Piece(kind.__name__, None, (_large(content),))
    if kind in SCALARS:
        return None
    found: list[Any] = []
    data = dumps(value, found)
    if len(data) >= LARGE_BYTES:
        return Piece("pickle", None, tuple(map(_large, [data, *found])))
    return Piece("pickle", data, tuple(map(_large, found))) if found else None


# One copy of each content, as long as anything on its way refers to it: what the caller does to
# an array after its submission is not meant for the task run.
_copies: WeakValueDictionary[str, memoryview] = WeakValueDictionary()


def _large(buffer: Buffer) -> Large:
    digest = blake2b(buffer, digest_size=16).hexdigest()
    copy = _copies.get(digest)
    if copy is None:
        copy = _copies[digest] = memoryview(bytes(buffer))
    return Large(digest, copy)


def _unpack(
    data: bytes, large: Mapping[str, Buffer], known: dict[Hashable, object]
) -> tuple[object, ...]:
    if data[0] == _PLAIN:
        return pickle.loads(data)  # type: ignore[no-any-return]
    packed, layout = layout_of(data)
    values = list(pickle.loads(packed))
    for places, kind, inner, digests in layout:
        name = kind, inner, tuple(digests)
        if name not in known:
            contents = [_content(large, digest) for digest in digests]
            known[name] = _unpacked_piece(kind, inner, contents)
        for place in places:
            values[place] = known[name]
    return tuple(values)


def layout_of(data: bytes) -> tuple[bytes, list[tuple[list[int], str, bytes | None, list[str]]]]:
    """Give what is in data with large parts: the rest, and the arguments that have such parts."""
    return pickle.loads(memoryview(data)[1:])  # type: ignore[no-any-return]


def _content(large: Mapping[str, Buffer], digest: str) -> Buffer:
    try:
        return large[digest]
    except KeyError:
        raise SerializationError(
            f"A part of the arguments, {digest}, has not arrived on this worker."
        ) from None


def _unpacked_piece(kind: str, data: bytes | None, contents: list[Buffer]) -> object:
    if kind == "bytes":
        return bytes(contents[0])
    if kind == "bytearray":
        return bytearray(contents[0])
    if kind == "str":
        return str(contents[0], "utf-8", "surrogatepass")
    pickled, *buffers = contents if data is None else (data, *contents)
    # Several task runs share them.
    return pickle.loads(pickled, buffers=[memoryview(each).toreadonly() for each in buffers])
