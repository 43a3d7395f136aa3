"""Identify the inputs of a task run by a digest that is the same in every process.

The encoding is canonical: it depends on values, not on object identities, hash seeds or memory
addresses. Plain scalars go through `marshal` version 2, which knows neither references nor
interning. Everything else goes through a pickler without a memo, in which

- a future or state stands by its own identity, not by its value;
- sets are encoded by the sorted digests of their elements (dicts keep their order: a function
  can see it);
- classes and importable functions stand by module and qualified name; lambdas, closures and
  functions of `__main__` by their code, defaults and closed-over values;
- other objects stand by what pickle would store of them.

There is no identity (None) for what pickle refuses, for cyclic data, bare `object()`s, classes
made inside functions, and for inputs over `ELEMENT_LIMIT` or `BYTE_LIMIT`: such a task run is
simply run again on resume. Giving up is quick: collections and buffers are measured before they
are read.

The encoding of functions by code, and of third-party objects, can differ between Python or
library versions; then, too, the task run is run again.
"""

from __future__ import annotations

import marshal
import pickle
import sys
from collections.abc import Callable
from hashlib import blake2b
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, GeneratorType, ModuleType
from typing import Any

from penstock.annotations import Dependency
from penstock.core.inputs import SCALARS, Found
from penstock.core.scripts import module_key

ELEMENT_LIMIT = 100_000
"""The most objects, at all depths, that are encoded before giving up."""

BYTE_LIMIT = 1 << 20
"""The most bytes that are encoded before giving up: 1 MiB."""

LARGE_ELEMENT_LIMIT = 100_000_000
LARGE_BYTE_LIMIT = 1 << 32
"""The limits of `large_digest`: 100 million objects, and 4 GiB."""

IdentityOf = Callable[[Dependency], bytes | None]
"""Gives the identity of the run behind a future or state, or None when it has none."""

_SIZED = frozenset({str, bytes})
_UNSIZED = SCALARS - _SIZED - {int}
_COLLECTIONS = frozenset({list, tuple, dict})
_MASK = (1 << 60) - 1


class Unidentifiable(Exception):
    """The inputs have no identity; never leaves this module."""


def input_digest(
    task_key: bytes | str,
    values: tuple[object, ...],
    identity_of: IdentityOf,
    found: Found | None = None,
) -> bytes | None:
    """Give the digest of a task and the values of its parameters.

    Args:
        task_key: identifies the task.
        values: the parameters' values, in order.
        identity_of: gives the identity of a future's or state's run.
        found: what `inputs.find` found in these values; it knows the elements of generators.

    Returns:
        16 bytes, or None when the values have no identity; see the module's docstring.
    """
    try:
        if _is_plain(values):
            return _marshal_digest((task_key, values))
        others, upstreams = _apart(values, identity_of)
        if upstreams and _is_plain(others):
            return _marshal_digest((task_key, others, upstreams))
        return _Encoder(identity_of, found).digest((task_key, values))
    except Exception:  # whatever a user's __reduce__ raises; RecursionError and PicklingError too
        return None


def large_digest(values: tuple[object, ...]) -> bytes | None:
    """Give the digest of values that hold no futures, up to much larger limits.

    It takes about a second for each GiB.

    Returns:
        16 bytes, or None when the values have no identity; see the module's docstring.

    Example:
        >>> large_digest(("load", 7)) == large_digest(("load", 7))
        True
    """
    try:
        if _is_plain(values):
            return _marshal_digest(values)
        encoder = _Encoder(_no_identity, None)
        encoder.left, encoder.writer.left = LARGE_ELEMENT_LIMIT, LARGE_BYTE_LIMIT
        return encoder.digest(values)
    except Exception:  # as in `input_digest`
        return None


def _no_identity(dependency: Dependency) -> None:
    """Give None: values that were resolved hold no futures."""


def run_identity(digest: bytes, ordinal: int) -> bytes:
    """Give the identity of a task run: its input digest and its ordinal among equals.

    Returns:
        16 bytes; the digest itself for ordinal 0.
    """
    if not ordinal:
        return digest
    # 96 bits of the digest still tell inputs apart; the ordinal takes the place of the rest.
    return digest[:12] + ordinal.to_bytes(4, "big")


def nested_digest(digest: bytes, parent: bytes | None) -> bytes | None:
    """Give the input digest of a task run that is made in another one, whose identity counts.

    Without that, the run made in one could take the place of an equal one made in another.

    Args:
        parent: the identity of the task run that it is made in; None when that has none.
    """
    return None if parent is None else blake2b(parent + digest, digest_size=16).digest()


class Ordinals:
    """Counts equal digests within one flow run, in less than 90 bytes per distinct digest.

    Not thread-safe: two threads could get the same ordinal. 60 bits of a digest are kept; that
    two of a million distinct ones coincide has a chance of one in two million, and would only
    give one of them an ordinal it need not have.
    """

    __slots__ = ("_repeats", "_seen")

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._repeats: dict[int, int] = {}

    def next(self, digest: bytes) -> int:
        """Give how often this digest came before: 0 for the first."""
        key = hash(digest) & _MASK
        seen = self._seen
        if key not in seen:
            seen.add(key)
            return 0
        ordinal = self._repeats[key] = self._repeats.get(key, 0) + 1
        return ordinal


def _marshal_digest(plain: Any) -> bytes:
    return blake2b(marshal.dumps(plain, 2), digest_size=16).digest()


def _apart(
    values: tuple[object, ...], identity_of: IdentityOf
) -> tuple[tuple[object, ...], tuple[tuple[int, bytes], ...]]:
    """Split into other values, and the places and identities of futures and states."""
    others: list[object] = []
    upstreams: list[tuple[int, bytes]] = []
    for index, value in enumerate(values):
        if isinstance(value, Dependency):
            upstreams.append((index, _identity(value, identity_of)))
        else:
            others.append(value)
    return tuple(others), tuple(upstreams)


def _identity(dependency: Dependency, identity_of: IdentityOf) -> bytes:
    identity = identity_of(dependency)
    if identity is None:
        raise Unidentifiable("an upstream has no identity")
    return identity


def _is_plain(values: tuple[object, ...]) -> bool:
    """Say whether `marshal` encodes these canonically, and within the limits."""
    if _UNSIZED.issuperset(map(type, values)):
        return len(values) <= ELEMENT_LIMIT
    left = BYTE_LIMIT
    for value in values:
        kind = type(value)
        if kind in _SIZED:
            left -= len(value)  # type: ignore[arg-type]
        elif kind is int:
            left -= value.bit_length() >> 3  # type: ignore[attr-defined]
        elif kind in _COLLECTIONS:
            if len(value) > ELEMENT_LIMIT:  # type: ignore[arg-type]
                return False  # a pickler counts all of them, at all depths
            left -= _plain_size(value, kind)
        elif kind not in SCALARS:
            return False
        if left < 0:
            return False
    return True


def _plain_size(value: Any, kind: type) -> int:
    """Estimate the encoded bytes of a flat collection of scalars; endless when it is none."""
    if kind is dict:
        return _flat_size(value) + _flat_size(value.values())
    return _flat_size(value)


def _flat_size(elements: Any) -> int:
    kinds = set(map(type, elements))
    if not kinds <= SCALARS:
        return LARGE_BYTE_LIMIT + 1
    if kinds <= _UNSIZED:
        return 9 * len(elements)
    if kinds == {int}:
        return 9 * len(elements) + (sum(map(int.bit_length, elements)) >> 3)
    if kinds <= _SIZED:
        return 9 * len(elements) + sum(map(len, elements))
    return sum(map(_scalar_size, elements))


def _scalar_size(value: Any) -> int:
    kind = type(value)
    if kind in _SIZED:
        return 9 + len(value)
    return 9 + (value.bit_length() >> 3 if kind is int else 0)


class _Writer:
    """Feeds a hash, and refuses what goes over the limit."""

    __slots__ = ("hash", "left")

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=16, person=b"inputs")
        self.left = BYTE_LIMIT

    def write(self, data: Any) -> None:
        view = memoryview(data)
        self.left -= view.nbytes
        if self.left < 0:
            raise Unidentifiable("too many bytes")
        self.hash.update(view)


class _Encoder:
    """What the picklers of one digest share: the limits, and what is being encoded."""

    def __init__(self, identity_of: IdentityOf, found: Found | None) -> None:
        self.identity_of = identity_of
        self.found = found
        self.left = ELEMENT_LIMIT
        self.active: set[int] = set()
        self.writer = _Writer()

    def digest(self, value: object) -> bytes:
        """Give the digest of one value, apart from what is around it."""
        outer, self.writer = self.writer, _Writer()
        self.writer.left = outer.left
        try:
            upstreams = self._dump(value)
            self.writer.hash.update(b"".join(upstreams))
            self.writer.hash.update(len(upstreams).to_bytes(8, "big"))
            outer.left = self.writer.left
            return self.writer.hash.digest()
        finally:
            self.writer = outer

    def _dump(self, value: object) -> list[bytes]:
        pickler = _Pickler(self)
        pickler.fast = True  # no memo: equal objects are encoded alike whether or not they are one
        pickler.dump(value)
        return pickler.upstreams

    def count(self, elements: int) -> None:
        self.left -= elements
        if self.left < 0:
            raise Unidentifiable("too many elements")


class _Pickler(pickle.Pickler):
    """Replaces what pickle would encode by identity, order of hashes, or not at all."""

    def __init__(self, encoder: _Encoder) -> None:
        super().__init__(encoder.writer, protocol=5)
        self.encoder = encoder
        self.upstreams: list[bytes] = []

    def persistent_id(self, obj: Any) -> object:
        kind = type(obj)
        if kind in _UNSIZED:
            return None
        if kind in _COLLECTIONS:
            return self._collection(obj, kind)
        if kind in _MEASURED:
            self._spend(obj.bit_length() >> 3 if kind is int else len(obj))
            return None
        encode = _ENCODERS.get(kind)
        if encode is not None:
            return encode(self, obj)
        if issubclass(kind, Dependency):
            return self._upstream(obj)
        return self._class(obj) if issubclass(kind, type) else None

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is object:
            raise Unidentifiable("a bare object is equal to nothing but itself")
        self.encoder.count(1)
        if hasattr(kind, "nbytes"):
            self._spend(obj.nbytes)
        elif hasattr(kind, "itemsize") and hasattr(kind, "__len__"):
            self._spend(len(obj) * obj.itemsize)
        if isinstance(obj, (set, frozenset)):
            return kind, (self._set(obj),), getattr(obj, "__dict__", None)
        if hasattr(kind, "__len__") and isinstance(obj, (list, dict)):
            self.encoder.count(len(obj))
        return NotImplemented

    def _collection(self, obj: Any, kind: type) -> bytes | None:
        self.encoder.count(len(obj))
        flat = SCALARS.issuperset(map(type, obj))
        if not flat or (kind is dict and not SCALARS.issuperset(map(type, obj.values()))):
            return None
        # All in one, instead of one call of `persistent_id` for each element.
        self._spend(_plain_size(obj, kind))
        return marshal.dumps(obj, 2)

    def _spend(self, size: int) -> None:
        if size > self.encoder.writer.left:
            raise Unidentifiable("too many bytes")

    def _upstream(self, dependency: Dependency) -> int:
        identity = _identity(dependency, self.encoder.identity_of)
        self.upstreams.append(len(identity).to_bytes(2, "big") + identity)
        return 0

    def _set(self, elements: Any) -> bytes:
        self.encoder.count(len(elements))
        self._spend(sum(_scalar_size(each) for each in elements if type(each) in SCALARS))
        encoded = sorted(
            marshal.dumps(each, 2) if type(each) in SCALARS else self.encoder.digest(each)
            for each in elements
        )
        self._spend(sum(map(len, encoded)))
        parts = b"".join(len(each).to_bytes(8, "big") + each for each in encoded)
        return type(elements).__name__.encode() + blake2b(parts, digest_size=16).digest()

    def _class(self, obj: type) -> bytes:
        if "<locals>" in obj.__qualname__:
            raise Unidentifiable("a class made inside a function has no name to stand for it")
        return f"class {module_key(obj.__module__)}:{obj.__qualname__}".encode()

    def _builtin(self, obj: Any) -> bytes | None:
        home = obj.__self__
        if home is None or isinstance(home, ModuleType):
            return f"function {obj.__module__}:{obj.__qualname__}".encode()
        return None  # a method of an object, like [].append: pickle takes both apart

    def _module(self, obj: ModuleType) -> bytes:
        return f"module {obj.__name__}".encode()

    def _function(self, fn: FunctionType) -> bytes:
        if _importable(fn):
            return f"function {fn.__module__}:{fn.__qualname__}".encode()
        encoder = self.encoder
        if id(fn) in encoder.active:
            return b"function being encoded"  # it calls itself through its closure
        encoder.active.add(id(fn))
        try:
            cells = [_cell(cell) for cell in fn.__closure__ or ()]
            state = (fn.__code__, fn.__defaults__, fn.__kwdefaults__, cells)
            return b"code " + encoder.digest(state)
        finally:
            encoder.active.discard(id(fn))

    def _code(self, code: CodeType) -> bytes:
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        return self.encoder.digest((code.co_code, code.co_consts, shape, names))

    def _generator(self, generator: object) -> bytes:
        found = self.encoder.found
        elements = None if found is None else found.elements(generator)
        if elements is None:
            raise Unidentifiable("the elements of a generator are not known yet")
        return b"generator " + self.encoder.digest(elements)


_MEASURED = frozenset({int, str, bytes, bytearray})
_ENCODERS: dict[type, Callable[[_Pickler, Any], object]] = {
    set: _Pickler._set,
    frozenset: _Pickler._set,
    type: _Pickler._class,
    FunctionType: _Pickler._function,
    BuiltinFunctionType: _Pickler._builtin,
    CodeType: _Pickler._code,
    ModuleType: _Pickler._module,
    GeneratorType: _Pickler._generator,
}


def _cell(cell: CellType) -> object:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()  # empty: the variable is not assigned yet


def _importable(fn: FunctionType) -> bool:
    """Say whether module and qualified name lead back to this function."""
    found: Any = sys.modules.get(fn.__module__)
    if fn.__module__ == "__main__" or found is None:
        return False
    for name in fn.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is fn
