"""Find futures in arguments, and put their values in their place.

The search follows a stack of iterators of its own, so that depth is no limit, and remembers what
it has seen, so that cycles end. It yields a plan: the containers that (transitively) hold a
future or an annotation, innermost first. Only those are rebuilt; everything else is passed on as
the same object.

Searched: list, tuple, set, frozenset, dict (keys and values), namedtuples and other subclasses of
these, dataclass instances, generators. Nothing else is entered.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import chain
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

from penstock.annotations import Annotation, Dependency, allow_failure, quote
from penstock.errors import ParameterTypeError

SCALARS: frozenset[type] = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
"""Exact built-in types that are immutable and hold nothing."""

LIMIT = 10_000
"""Elements visited before the search gives up, unless a future or an annotation was seen.

A generator is read ahead at most this far, unless it held one itself.
"""

LEAVES: frozenset[type] = SCALARS | {
    bytearray, memoryview, range, slice, type, type(NotImplemented),
    FunctionType, BuiltinFunctionType, MethodType, ModuleType,
}  # fmt: skip
"""Types that are never entered, known at a glance."""

Resolve = Callable[[Dependency, bool], object]
"""Gives the value of a dependency; the flag says that a failure is allowed."""

_LEAF, _DEPENDENCY, _QUOTE, _MARK, _DATACLASS, _LIST, _TUPLE, _SET, _FROZENSET, _DICT, _STREAM = (
    range(11)
)
_EXACT: dict[type, int] = {
    **dict.fromkeys(LEAVES, _LEAF),
    list: _LIST,
    tuple: _TUPLE,
    set: _SET,
    frozenset: _FROZENSET,
    dict: _DICT,
    GeneratorType: _STREAM,
}
_BASES = (
    (Dependency, _DEPENDENCY), (quote, _QUOTE), (Annotation, _MARK), (list, _LIST),
    (tuple, _TUPLE), (set, _SET), (frozenset, _FROZENSET), (dict, _DICT),
)  # fmt: skip
_COLLECTIONS = frozenset({list, tuple, set, frozenset})


class Found:
    """What has to be replaced in the arguments of one call.

    Attributes:
        dependencies: every future and state once, in order of appearance; True where each of its
            occurrences stands inside `allow_failure`. May be empty: annotations and generators
            have to be replaced too.
    """

    __slots__ = ("_plan", "_streams", "dependencies")

    def __init__(
        self,
        dependencies: dict[Dependency, bool],
        plan: tuple[_Node, ...] = (),
        streams: dict[int, _Stream] | None = None,
    ) -> None:
        self.dependencies = dependencies
        self._plan = plan
        self._streams = streams or {}

    def replace(self, values: tuple[object, ...], resolve: Resolve) -> tuple[object, ...]:
        """Rebuild the values that were searched, with `resolve` of each dependency in its place.

        A future that was put into a container after the search is left as it is.

        Args:
            values: the same objects that `find` was given.
            resolve: called with a dependency and whether a failure is allowed there.

        Raises:
            ParameterTypeError: a value is not hashable and its future stands in a set or as a
                dict key, or a container cannot be rebuilt.
        """
        if not self._plan:
            given: tuple[Any, ...] = values
            return tuple(
                [resolve(each, False) if isinstance(each, Dependency) else each for each in given]
            )
        return _Rebuild(self, resolve).run(values)

    def elements(self, generator: object) -> list[object] | None:
        """Give the elements of a generator that the search read to its end, else None."""
        stream = self._streams.get(id(generator))
        return stream.seen if stream is not None and stream.exhausted else None


class _Node:
    """A container on the way: `key` tells it apart, also inside and outside `allow_failure`."""

    __slots__ = ("allowed", "container", "cyclic", "key", "kind")

    def __init__(self, key: int, container: Any, kind: int, allowed: bool) -> None:
        self.key = key
        self.container = container
        self.kind = kind
        self.allowed = allowed
        self.cyclic = False


class _Stream:
    """A generator that was read ahead."""

    __slots__ = ("error", "exhausted", "seen", "source")

    def __init__(self, source: Iterator[object]) -> None:
        self.source = source
        self.seen: list[object] = []
        self.exhausted = False
        self.error: BaseException | None = None

    def read(self, hits: Callable[[], int]) -> Iterator[object]:
        before = hits()
        try:
            for element in self.source:
                self.seen.append(element)
                yield element
                if len(self.seen) >= LIMIT and hits() == before:
                    return
            self.exhausted = True
        except Exception as exc:
            self.error = exc

    def resume(self, seen: list[object]) -> Iterator[object]:
        if self.exhausted:
            return iter(seen)
        return chain(seen, self.source if self.error is None else _raising(self.error))


def find(values: tuple[object, ...]) -> Found | None:
    """Find the futures, states and annotations in the values of a call's parameters.

    Generators are read to look into them, at most `LIMIT` elements ahead; `Found.replace` gives
    an iterator over the same elements in their place.

    Returns:
        None when nothing has to be replaced: pass the values as they are.

    Example:
        >>> find((1, [2, 3])) is None
        True
    """
    if LEAVES.issuperset(map(type, values)):
        return None
    dependencies: dict[Dependency, bool] = {}
    for value in values:
        kind = type(value)
        if kind in LEAVES:
            continue
        if not issubclass(kind, Dependency):
            if _plain(value, kind, LIMIT):
                continue
            return _Search().run(values)
        dependencies[value] = False  # type: ignore[index]
    return Found(dependencies) if dependencies else None


def replace(values: tuple[object, ...], resolve: Resolve) -> tuple[object, ...]:
    """Find and replace in one go; the values themselves when nothing has to be replaced.

    Generators can be read only once: after `find` use `Found.replace`.
    """
    found = find(values)
    return values if found is None else found.replace(values, resolve)


def _plain(value: Any, kind: type, limit: int) -> bool:
    """Say at C speed that an ordinary collection holds only leaves."""
    if kind in _COLLECTIONS:
        return len(value) <= limit and LEAVES.issuperset(map(type, value))
    if kind is dict:
        return (
            len(value) <= limit
            and LEAVES.issuperset(map(type, value.values()))
            and LEAVES.issuperset(map(type, value))
        )
    return False


class _Search:
    """One walk through the values; see the module's docstring."""

    def __init__(self) -> None:
        self.dependencies: dict[Dependency, bool] = {}
        self.kinds = _EXACT.copy()
        self.streams: dict[int, _Stream] = {}
        self.nodes: dict[int, _Node] = {}
        self.finished: dict[int, _Node] = {}  # in the order of leaving them: innermost first
        self.parents: dict[int, list[int]] = {}
        self.dirty: set[int] = set()
        self.marks = 0
        self.left = LIMIT

    def hits(self) -> int:
        return len(self.dependencies) + self.marks

    def run(self, values: tuple[object, ...]) -> Found | None:
        self._walk(values)
        if not self.dirty and not self.dependencies:
            return None
        self._spread()
        plan = tuple(node for key, node in self.finished.items() if key in self.dirty)
        return Found(self.dependencies, plan, self.streams)

    def _walk(self, values: tuple[object, ...]) -> None:
        root = _Node(0, values, _TUPLE, False)
        stack: list[tuple[_Node, Iterator[object]]] = [(root, iter(values))]
        while stack:
            node, iterator = stack[-1]
            entered = self._scan(node, iterator)
            if entered is not None:
                stack.append((entered, self._children(entered)))
            elif self.left <= 0 and not self.hits():
                break
            else:
                stack.pop()
                self.finished[node.key] = node
        # Cut short: what was being read when the limit was reached still counts.
        self.finished.update((node.key, node) for node, _ in reversed(stack))

    def _scan(self, node: _Node, iterator: Iterator[object]) -> _Node | None:
        """Go on with a container until there is one to enter, or to its end."""
        kinds, dependencies, allowed = self.kinds, self.dependencies, node.allowed
        for child in iterator:
            self.left -= 1
            if self.left <= 0 and not self.hits():
                return None
            kind = kinds.get(type(child))
            if kind is None:
                kind = self._classify(type(child))
            if kind == _DEPENDENCY:
                dependencies[child] = dependencies.get(child, True) and allowed  # type: ignore[index,call-overload]
                self.dirty.add(node.key)
            elif kind != _LEAF:
                entered = self._enter(child, kind, node)
                if entered is not None:
                    return entered
        return None

    def _enter(self, child: object, kind: int, parent: _Node) -> _Node | None:
        if kind >= _LIST and self._skip(child):
            return None
        key = ~id(child) if parent.allowed else id(child)
        self.parents.setdefault(key, []).append(parent.key)
        known = self.nodes.get(key)
        if known is not None:
            known.cyclic = known.cyclic or key not in self.finished
            return None
        node = self.nodes[key] = _Node(key, child, kind, parent.allowed)
        if kind in (_QUOTE, _MARK, _STREAM):
            self.dirty.add(key)
            self.marks += kind != _STREAM
        return node

    def _skip(self, child: Any) -> bool:
        room = sys.maxsize if self.hits() else self.left
        if not _plain(child, type(child), room):
            return False
        self.left -= len(child)
        return True

    def _children(self, node: _Node) -> Iterator[object]:
        container, kind = node.container, node.kind
        if kind == _DICT:
            return chain.from_iterable(_items(container))
        if kind == _DATACLASS:
            return iter([value for _, value in _fields(container)])
        if kind == _QUOTE:
            return iter(())
        if kind == _MARK:
            node.allowed = node.allowed or isinstance(container, allow_failure)
            return iter((container.value,))
        if kind == _STREAM:
            return self._stream(container)
        return _elements(container, kind)

    def _stream(self, source: Iterator[object]) -> Iterator[object]:
        known = self.streams.get(id(source))
        if known is not None:
            return iter(known.seen)
        stream = self.streams[id(source)] = _Stream(source)
        return stream.read(self.hits)

    def _classify(self, kind: type) -> int:
        found = next((code for base, code in _BASES if issubclass(kind, base)), _LEAF)
        if found in (_LEAF, _LIST, _TUPLE, _SET, _FROZENSET, _DICT) and isinstance(
            getattr(kind, "__dataclass_fields__", None), dict
        ):
            found = _DATACLASS
        self.kinds[kind] = found
        return found

    def _spread(self) -> None:
        """Mark every container around a marked one, also around cycles."""
        pending = list(self.dirty)
        while pending:
            for parent in self.parents.get(pending.pop(), ()):
                if parent not in self.dirty:
                    self.dirty.add(parent)
                    pending.append(parent)


class _Rebuild:
    """One replacement, following the plan of a search."""

    def __init__(self, found: Found, resolve: Resolve) -> None:
        self.found = found
        self.resolve = resolve
        self.built: dict[int, object] = {}

    def run(self, values: tuple[object, ...]) -> tuple[object, ...]:
        for node in self.found._plan:
            # What a cycle leads back to must exist before it is filled.
            if node.cyclic and node.kind in _FILL:
                self.built[node.key] = _copied(node.container)
        for node in self.found._plan:
            if node.key:
                self._build(node)
        return tuple(self._swapped(values, False))

    def _build(self, node: _Node) -> None:
        container, allowed = node.container, node.allowed
        fill = _FILL.get(node.kind)
        if fill is not None:
            target = self.built.get(node.key)
            if target is None:
                target = self.built[node.key] = _copied(container)
            fill(self, target, container, allowed)
        elif node.kind == _QUOTE:
            self.built[node.key] = container.value
        elif node.kind == _MARK:
            self.built[node.key] = self._swapped((container.value,), allowed)[0]
        elif node.kind == _STREAM:
            stream = self.found._streams[id(container)]
            self.built[node.key] = stream.resume(self._swapped(stream.seen, allowed))
        else:
            base = tuple if node.kind == _TUPLE else frozenset
            elements = self._swapped(_elements(container, node.kind), allowed)
            self.built[node.key] = self._collect(base, container, elements)

    def _swapped(self, children: Iterable[object], allowed: bool) -> list[object]:
        known, built, resolve = self.found.dependencies, self.built, self.resolve
        swapped: list[object] = []
        for child in children:
            kind = type(child)
            if kind in LEAVES:
                swapped.append(child)
            elif issubclass(kind, Dependency):
                swapped.append(resolve(child, allowed) if child in known else child)
            else:
                swapped.append(built.get(~id(child) if allowed else id(child), child))
        return swapped

    def _collect(self, base: Any, container: Any, elements: list[object]) -> object:
        kind = type(container)
        if kind is base and base is tuple:
            return tuple(elements)
        try:
            collected = base.__new__(kind, elements)
            if kind is not base and hasattr(container, "__dict__"):
                collected.__dict__.update(container.__dict__)
        except Exception as exc:
            self._explain_hash(base, container, elements)
            raise _not_rebuilt(container) from exc
        return collected

    def _fill_list(self, target: Any, container: Any, allowed: bool) -> None:
        list.__setitem__(target, slice(None), self._swapped(list.__iter__(container), allowed))

    def _fill_set(self, target: Any, container: Any, allowed: bool) -> None:
        elements = self._swapped(set.__iter__(container), allowed)
        set.clear(target)
        try:
            set.update(target, elements)
        except TypeError:
            self._explain_hash(set, container, elements)
            raise

    def _fill_dict(self, target: Any, container: Any, allowed: bool) -> None:
        pairs = list(_items(container))
        keys = self._swapped([key for key, _ in pairs], allowed)
        values = self._swapped([value for _, value in pairs], allowed)
        base = OrderedDict if isinstance(container, OrderedDict) else dict
        base.clear(target)
        try:
            for key, value in zip(keys, values, strict=True):
                base.__setitem__(target, key, value)
        except TypeError:
            self._explain_hash(dict, container, keys)
            raise

    def _fill_fields(self, target: Any, container: Any, allowed: bool) -> None:
        pairs = _fields(container)
        values = self._swapped([value for _, value in pairs], allowed)
        for (name, old), new in zip(pairs, values, strict=True):
            if new is not old:
                object.__setattr__(target, name, new)

    def _explain_hash(self, base: Any, container: Any, swapped: list[object]) -> None:
        """Raise the error that names the first value that has no hash; return if all have."""
        originals = [key for key, _ in _items(container)] if base is dict else list(container)
        for original, value in zip(originals, swapped, strict=False):
            try:
                hash(value)
            except TypeError as exc:
                raise _not_hashable(original, value, base) from exc


_FILL: dict[int, Callable[[_Rebuild, Any, Any, bool], None]] = {
    _LIST: _Rebuild._fill_list,
    _SET: _Rebuild._fill_set,
    _DICT: _Rebuild._fill_dict,
    _DATACLASS: _Rebuild._fill_fields,
}


def _elements(container: Any, kind: int) -> Iterator[object]:
    # The base class's own iteration: no code of a subclass runs.
    base: Any = {_LIST: list, _TUPLE: tuple, _SET: set, _FROZENSET: frozenset}[kind]
    elements: Iterator[object] = base.__iter__(container)
    return elements


def _items(container: Any) -> Iterable[tuple[object, object]]:
    if isinstance(container, OrderedDict):
        return OrderedDict.items(container)
    return dict.items(container)


def _fields(container: Any) -> list[tuple[str, object]]:
    from dataclasses import fields

    pairs: list[tuple[str, object]] = []
    for field in fields(container):
        try:
            pairs.append((field.name, getattr(container, field.name)))
        except AttributeError:
            continue  # declared with init=False and not set yet
    return pairs


def _copied(container: Any) -> object:
    kind = type(container)
    if kind is list or kind is dict or kind is set:
        return kind()
    try:
        return copy(container)
    except Exception as exc:
        raise _not_rebuilt(container) from exc


def _raising(error: BaseException) -> Iterator[object]:
    # A generator, so that the error comes where the user's generator raised it.
    yield from ()
    raise error


def _not_rebuilt(container: object) -> ParameterTypeError:
    return ParameterTypeError(
        f"A {type(container).__qualname__!r} object holds a future and cannot be copied with the "
        "future's value in its place. Pass the future in a list, dict or dataclass instead."
    )


def _not_hashable(original: object, value: object, base: type) -> ParameterTypeError:
    name = getattr(original, "name", None)
    what = f"The value of {name!r}" if isinstance(name, str) else "The value of a future"
    role = "a key of a dict" if base is dict else f"an element of a {base.__name__}"
    return ParameterTypeError(
        f"{what} cannot be {role}: {type(value).__name__!r} objects are not hashable. "
        "Pass the future in a list instead."
    )
