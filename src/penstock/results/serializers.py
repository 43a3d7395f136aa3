"""Serializers by name: "pickle", "json", "compressed/…", and those of the user's own.

What is called `module:attribute` is imported when it is needed to store or load; one that was
given as an object is called like that too, where the name leads back to it.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from penstock.core.pickling import dump_pieces, try_out
from penstock.core.unpicklable import refusal, unpicklable
from penstock.errors import (
    InvalidOptionError,
    MissingDependencyError,
    ResultStorageError,
    SerializationError,
)
from penstock.results.base import Buffer, Part, Serializer
from penstock.states import describe_exception

APART_BYTES = 64 * 1024
"""Buffers from this size on, such as arrays, are stored as they are beside the pickle."""

_COMPRESSED = "compressed/"
_LEVEL = 3  # most of what higher ones gain, in a third of the time
_OWN_NAME_LENGTH = 200
_ADVICE = (
    "return plain data, choose another result_serializer, or leave the result out of the storage "
    "with persist_result=False"
)


class PickleSerializer(Serializer):
    """Python's pickle, protocol 5; cloudpickle for what pickle cannot do."""

    name = "pickle"

    def dumps(self, value: Any) -> bytes:
        return b"".join(self._dumped(value, sys.maxsize)[0])

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)

    def dump_parts(self, value: Any) -> list[Part]:
        pieces, buffers = self._dumped(value, APART_BYTES)
        return [pieces, *([buffer] for buffer in buffers)]

    def load_parts(self, parts: Sequence[memoryview]) -> Any:
        return pickle.loads(parts[0], buffers=parts[1:])

    def _dumped(self, value: Any, least: int) -> tuple[list[bytes], list[memoryview]]:
        try:
            return dump_pieces(value, least)
        except MissingDependencyError:
            raise
        except BaseException as exc:
            raise unpicklable("the result", value, refusal(exc), try_out, _ADVICE) from exc


class JsonSerializer(Serializer):
    """JSON, for values that come back exactly as they were.

    None, True, False, whole numbers, finite floats and texts, and lists and dicts of them, with
    texts as keys. Nothing else, no subclasses: a tuple would come back as a list.
    """

    name = "json"

    def dumps(self, value: Any) -> bytes:
        _require_exact(value)
        try:
            return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError) as exc:
            raise SerializationError(
                f'The result cannot be kept as JSON: {exc}. Use result_serializer="pickle".'
            ) from exc

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


_EXACT = frozenset({type(None), bool, int, float, str})


def _require_exact(value: Any) -> None:
    """Refuse what JSON would change, naming where it is.

    Raises:
        SerializationError: there is such a thing in it.
    """
    seen: set[int] = set()
    rest: list[tuple[str, Any]] = [("the result", value)]
    while rest:
        path, item = rest.pop()
        kind = type(item)
        if kind in _EXACT:
            continue
        # What contains itself is refused when it is written.
        if kind in (list, dict) and id(item) in seen:
            continue
        seen.add(id(item))
        if kind is list:
            rest += [(f"{path}[{index}]", each) for index, each in enumerate(item)]
        elif kind is dict:
            for key, each in item.items():
                if type(key) is not str:
                    raise _not_json(f"a key of {path}", key)
                rest.append((f"{path}[{key[:40]!a}]", each))
        else:
            raise _not_json(path, item)


def _not_json(path: str, item: Any) -> SerializationError:
    return SerializationError(
        f"The result cannot be kept as JSON: {path} is of type {type(item).__qualname__!r}, which "
        'would not come back as it was. Return plain data, or use result_serializer="pickle".'
    )


class CompressedSerializer(Serializer):
    """Another serializer's bytes, compressed part by part."""

    def __init__(self, name: str, inner: Serializer, method: str) -> None:
        self.name = name
        self._inner = inner
        self._compressor, self._decompress = _METHODS[method]

    def dumps(self, value: Any) -> bytes:
        return b"".join(self._compressed([self._inner.dumps(value)]))

    def loads(self, data: bytes) -> Any:
        return self._inner.loads(self._decompress(data))

    def dump_parts(self, value: Any) -> list[Part]:
        return [self._compressed(part) for part in self._inner.dump_parts(value)]

    def load_parts(self, parts: Sequence[memoryview]) -> Any:
        # Arrays may be changed by whoever gets them.
        plain = [memoryview(bytearray(self._decompress(part))) for part in parts]
        return self._inner.load_parts(plain)

    def _compressed(self, part: Part) -> list[Buffer]:
        compressor = self._compressor()
        pieces = [compressor.compress(piece) for piece in part]
        return [piece for piece in (*pieces, compressor.flush()) if piece]


def _lzma_compressor() -> Any:
    import lzma  # few use it

    return lzma.LZMACompressor(preset=1)


def _lzma_decompress(part: Any) -> bytes:
    import lzma

    return lzma.decompress(part)


_METHODS: dict[str, tuple[Callable[[], Any], Callable[[Any], bytes]]] = {
    "zlib": (lambda: zlib.compressobj(_LEVEL), zlib.decompress),
    "lzma": (_lzma_compressor, _lzma_decompress),
}
_PLAIN: dict[str, Serializer] = {"pickle": PickleSerializer(), "json": JsonSerializer()}


class OwnSerializer(Serializer):
    """A serializer of the user's own.

    Attributes:
        name: the path by which it can be imported, where there is one, else its own name.
    """

    def __init__(self, own: Any, name: str) -> None:
        self.own = own
        self.name = name

    def dumps(self, value: Any) -> bytes:
        try:
            data = self.own.dumps(value)
        except Exception as exc:
            raise SerializationError(
                f"The serializer {self.name!r} cannot turn the result into bytes: "
                f"{describe_exception(exc)}"
            ) from exc
        if not isinstance(data, bytes | bytearray | memoryview):
            raise SerializationError(
                f"The serializer {self.name!r} turned the result into an object of type "
                f"{type(data).__qualname__!r}; its dumps must give bytes."
            )
        return bytes(data)

    def loads(self, data: bytes) -> Any:
        return self.own.loads(data)

    def __reduce__(self) -> tuple[Any, ...]:
        return known_from_now_on, (self.own, self.name)


_own: dict[str, OwnSerializer] = {}


def checked_serializer(given: Any, option: str = "result_serializer") -> Serializer | None:
    """Check the option: a name, an import path `module:attribute`, an object, or None.

    Args:
        option: how it is called, for messages.

    Raises:
        InvalidOptionError: it is no serializer; the text names the option and the value.

    Example:
        >>> checked_serializer("compressed/json").name
        'compressed/json'
    """
    if given is None:
        return None
    if isinstance(given, str):
        try:
            return serializer_named(given)
        except ResultStorageError as exc:
            raise InvalidOptionError(f"{option} is {given!r}: {exc}") from exc
    return _checked_own(given, option)


def _checked_own(given: Any, option: str) -> Serializer:
    if isinstance(given, PickleSerializer | JsonSerializer | CompressedSerializer | OwnSerializer):
        return given
    name = getattr(given, "name", None)
    fits = callable(getattr(given, "dumps", None)) and callable(getattr(given, "loads", None))
    if not fits or not isinstance(name, str) or not 0 < len(name) <= _OWN_NAME_LENGTH:
        raise InvalidOptionError(
            f"{option} is an object of type {type(given).__qualname__!r}; it must be a name such "
            'as "pickle", "json" or "compressed/pickle", an import path "module:attribute", or an '
            "object with `name`, `dumps` and `loads`."
        )
    if isinstance(given, type):
        raise InvalidOptionError(f"{option} is the class {given.__qualname__!r}; give an instance.")
    path = _path_to(given) or name
    if path in _PLAIN or path.startswith(_COMPRESSED):
        raise InvalidOptionError(f"{option} is called {path!r}, which is the name of another one.")
    return known_from_now_on(given, path)


def known_from_now_on(own: Any, name: str) -> OwnSerializer:
    """Have a serializer of the user's be found by its name in this process."""
    known = _own.get(name)
    if known is None or known.own is not own:
        known = _own[name] = OwnSerializer(own, name)
    return known


def _path_to(given: Any) -> str | None:
    """Give the import path that leads to an object, or to a class whose instance will do."""
    module = type(given).__module__
    found = sys.modules.get(module)
    if found is None or module == "__main__":
        return None
    for name, value in list(vars(found).items()):
        if value is given:
            return f"{module}:{name}"
    return None


def serializer_named(name: str) -> Serializer:
    """Give the serializer of a name, importing it where the name is a path.

    Raises:
        ResultStorageError: there is none of that name here.

    Example:
        >>> serializer_named("json").dumps([1])
        b'[1]'
    """
    serializer = _PLAIN.get(name) or _own.get(name)
    if serializer is not None:
        return serializer
    if name.startswith(_COMPRESSED):
        method, _, inner = name.removeprefix(_COMPRESSED).partition("/")
        if method not in _METHODS:
            method, inner = "zlib", name.removeprefix(_COMPRESSED)
        if not inner or inner.startswith(_COMPRESSED):
            raise ResultStorageError(f"{name!r} does not say what is compressed.")
        return CompressedSerializer(name, serializer_named(inner), method)
    if ":" in name:
        return _imported(name)
    raise ResultStorageError(
        f'there is no serializer {name!r} here; there are "pickle", "json", "compressed/pickle", '
        '"compressed/lzma/pickle" and the like, and those at an import path "module:attribute".'
    )


def _imported(path: str) -> Serializer:
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
        if isinstance(found, type):
            found = found()
    except Exception as exc:
        raise ResultStorageError(
            f"the serializer {path!r} cannot be imported: {describe_exception(exc)}"
        ) from exc
    if not callable(getattr(found, "dumps", None)) or not callable(getattr(found, "loads", None)):
        raise ResultStorageError(f"{path!r} is no serializer: it has no `dumps` and `loads`.")
    return known_from_now_on(found, path)
