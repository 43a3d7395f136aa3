"""Serializers: exact round trips, or clear refusals."""

from __future__ import annotations

import json
import pickle
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import InvalidOptionError, ResultStorageError, SerializationError
from penstock.results.container import pack, verified_parts
from penstock.results.kept import load_kept
from penstock.results.local import LocalStorage
from penstock.results.serializers import (
    APART_BYTES,
    OwnSerializer,
    checked_serializer,
    serializer_named,
)
from penstock.results.small import decode_small
from tests.results import serializers
from tests.results.storages import keep

NAMES = ["pickle", "compressed/pickle", "compressed/zlib/pickle", "compressed/lzma/pickle"]
JSON_NAMES = ["json", "compressed/json"]

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary(max_size=300) | st.decimals(allow_nan=False) | st.datetimes(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)  # fmt: skip


def there_and_back(value: Any, name: str) -> Any:
    """Take a value through a container."""
    serializer = serializer_named(name)
    packed = pack(serializer.dump_parts(value), name, {})
    data = bytearray(packed.content.head())
    for piece in packed.content.body:
        data += piece
    assert len(data) == packed.content.size
    return serializer.load_parts(verified_parts(data, *packed.digests()))


@settings(deadline=None)
@given(value=anything, name=st.sampled_from(NAMES))
def test_anything_comes_back_pickled(value: Any, name: str) -> None:
    back = there_and_back(value, name)
    assert back == value
    assert pickle.dumps(back) == pickle.dumps(pickle.loads(pickle.dumps(value)))


@settings(deadline=None)
@given(value=plain, name=st.sampled_from(JSON_NAMES))
def test_plain_values_come_back_as_json(value: Any, name: str) -> None:
    back = there_and_back(value, name)
    assert back == value
    assert repr(back) == repr(value)


@settings(deadline=None)
@given(value=plain)
def test_small_json_comes_back_from_the_history(value: Any) -> None:
    data = serializer_named("json").dumps(value)
    assert repr(decode_small(data, "json")) == repr(value)
    assert repr(json.loads(data)) == repr(value)


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 3 * APART_BYTES), max_size=6),
    name=st.sampled_from(["pickle", "compressed/pickle"]),
)
def test_arrays_of_any_size_come_back(sizes: list[int], name: str) -> None:
    arrays = [numpy.arange(size, dtype="u1") for size in sizes]
    back = there_and_back(arrays, name)
    assert all(map(numpy.array_equal, back, arrays))
    assert all(array.flags.writeable for array in back)


def test_large_array_is_not_copied() -> None:
    array = numpy.arange(1_000_000.0)
    *_, buffer = serializer_named("pickle").dump_parts({"a": array})
    assert numpy.shares_memory(numpy.frombuffer(buffer[0]), array)


def test_large_bytes_are_not_copied() -> None:
    data = b"x" * 1_000_000
    (pieces,) = serializer_named("pickle").dump_parts([data])
    assert any(piece is data for piece in pieces)


NOT_JSON: dict[str, tuple[Any, str]] = {
    "tuple": ((1, 2), r"the result is of type 'tuple'"),
    "set": ([{1}], r"the result\[0\] is of type 'set'"),
    "bytes": ({"a": {"b": b"x"}}, r"the result\['a'\]\['b'\] is of type 'bytes'"),
    "key": ({"a": {1: 2}}, r"a key of the result\['a'\] is of type 'int'"),
    "subclass": (OrderedDict(a=1), r"is of type 'OrderedDict'"),
    "flag": (numpy.bool_(True), r"is of type 'bool"),
    "number": (numpy.float64(1), r"is of type 'float64'"),
    "nan": ([float("nan")], r"Out of range float values"),
    "inf": ([float("inf")], r"Out of range float values"),
    "huge": (10**5000, r"Exceeds the limit"),
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_what_json_would_change_is_refused(case: str) -> None:
    value, text = NOT_JSON[case]
    with pytest.raises(SerializationError, match=f"The result cannot be kept as JSON: .*{text}"):
        serializer_named("json").dumps(value)


def test_what_contains_itself_is_no_json() -> None:
    value: list[Any] = []
    value.append({"a": value})
    with pytest.raises(SerializationError, match="Circular reference"):
        serializer_named("json").dumps(value)


def test_what_is_nested_too_deeply_is_no_json() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SerializationError, match="cannot be kept as JSON"):
        serializer_named("json").dumps(value)


def test_what_cannot_be_pickled_is_named_with_advice() -> None:
    with pytest.raises(SerializationError, match=r"the result -> \['a'\] .*persist_result=False"):
        serializer_named("pickle").dump_parts({"a": threading.Lock()})


def test_closures_are_pickled() -> None:
    amount = 3
    assert there_and_back(lambda value: value + amount, "pickle")(4) == 7


# Serializers of the user's own.


def test_object_is_found_by_its_path(tmp_path: Path) -> None:
    serializer = checked_serializer(serializers.backwards)
    assert serializer is not None
    assert serializer.name == "tests.results.serializers:backwards"
    storage = LocalStorage(str(tmp_path))
    reference = keep(storage, "abc", by=serializer.name)
    assert b"cba" in (tmp_path / "a" / "b-1").read_bytes()
    assert load_kept(reference, "stored") == "abc"


@pytest.mark.parametrize("name", ["backwards", "Reversed"])
def test_path_is_imported(name: str) -> None:
    serializer = checked_serializer(f"tests.results.serializers:{name}")
    assert serializer is not None
    assert serializer.dumps("abc") == b"cba"
    assert serializer_named(f"compressed/tests.results.serializers:{name}").dumps("a")


def test_own_serializer_travels() -> None:
    serializer = checked_serializer(serializers.backwards)
    back = pickle.loads(pickle.dumps(serializer))
    assert isinstance(back, OwnSerializer)
    assert back.dumps("ab") == b"ba"


def test_own_serializer_that_fails_is_told() -> None:
    class Failing:
        name = "failing"

        def dumps(self, value: Any) -> bytes:
            raise ValueError("no such luck")

        def loads(self, data: bytes) -> Any:
            return None

    serializer = checked_serializer(Failing())
    assert serializer is not None
    with pytest.raises(SerializationError, match="'failing' cannot turn .* ValueError: no such l"):
        serializer.dumps(1)


def test_own_serializer_must_give_bytes() -> None:
    class Texts:
        name = "texts"

        def dumps(self, value: Any) -> Any:
            return "text"

        def loads(self, data: bytes) -> Any:
            return None

    serializer = checked_serializer(Texts())
    assert serializer is not None
    with pytest.raises(SerializationError, match="type 'str'; its dumps must give bytes"):
        serializer.dumps(1)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("pikcle", "result_serializer is 'pikcle': there is no serializer 'pikcle'"),
        ("", "result_serializer is ''"),
        ("compressed/", "does not say what is compressed"),
        ("compressed/nothing", "there is no serializer 'nothing'"),
        ("compressed/compressed/json", "does not say what is compressed"),
        ("no.such.module:x", "cannot be imported: ModuleNotFoundError"),
        ("tests.results.serializers:nothing", "cannot be imported: AttributeError"),
        ("tests.results.serializers:not_one", "is no serializer"),
        (7, "result_serializer is an object of type 'int'"),
        (serializers.not_one, "an object of type 'object'"),
        (serializers.Reversed, "is the class 'Reversed'; give an instance"),
    ],
)
def test_what_is_no_serializer_is_refused(given: Any, text: str) -> None:
    with pytest.raises(InvalidOptionError, match=text):
        checked_serializer(given)


def test_serializer_that_is_not_here_is_told(tmp_path: Path) -> None:
    reference = keep(LocalStorage(str(tmp_path)), [1])
    unknown = reference.replace(b'"serializer":"pickle"', b'"serializer":"unheard-of"')
    with pytest.raises(ResultStorageError, match="cannot be loaded: there is no serializer 'unhea"):
        load_kept(unknown, "stored")
