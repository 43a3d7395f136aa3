from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import os
import pathlib
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.annotations import Dependency, allow_failure
from penstock.core.identity import (
    BYTE_LIMIT,
    ELEMENT_LIMIT,
    Ordinals,
    input_digest,
    run_identity,
)
from penstock.core.inputs import find


class Future(Dependency):
    def __init__(self, identity: bytes | None) -> None:
        self.identity = identity


def identity_of(dependency: Dependency) -> bytes | None:
    assert isinstance(dependency, Future)
    return dependency.identity


def digest(*values: object) -> bytes | None:
    return input_digest("module:task", values, identity_of)


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Named(set[Any]):
    pass


def adder(number: int) -> Callable[[int], int]:
    return lambda x: x + number


def counter(step: int) -> Callable[[int], int]:
    def count(n: int) -> int:
        return 0 if n <= 0 else step + count(n - 1)

    return count


DISTINCT: list[Callable[[], tuple[object, ...]]] = [
    lambda: (),
    lambda: (1,),
    lambda: (1.0,),
    lambda: (True,),
    lambda: (None,),
    lambda: ("1",),
    lambda: (b"1",),
    lambda: (bytearray(b"1"),),
    lambda: (0.0,),
    lambda: (-0.0,),
    lambda: (1, 2),
    lambda: ((1, 2),),
    lambda: ([1, 2],),
    lambda: ([[1], 2],),
    lambda: ([1, [2]],),
    lambda: ({1, 2},),
    lambda: (frozenset({1, 2}),),
    lambda: (Named({1, 2}),),
    lambda: ({"a", "b", "c", "d"},),
    lambda: ({("a", 1), ("b", 2)},),
    lambda: ({1: 2},),
    lambda: ({"a": {1, 2}},),
    lambda: ({"a": 1, "b": 2},),
    lambda: ({"b": 2, "a": 1},),
    lambda: (OrderedDict(a=1),),
    lambda: (Counter("ab"),),
    lambda: (Point(1),),
    lambda: (Point(2),),
    lambda: (Point([1]),),
    lambda: (Color.RED,),
    lambda: (Color.BLUE,),
    lambda: (Color,),
    lambda: (Point,),
    lambda: (datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),),
    lambda: (datetime.date(2024, 1, 2),),
    lambda: (decimal.Decimal("1.0"),),
    lambda: (decimal.Decimal("1.00"),),
    lambda: (uuid.UUID(int=5),),
    lambda: (pathlib.PurePosixPath("/a"),),
    lambda: (10**30,),
    lambda: (np.arange(4),),
    lambda: (np.arange(4.0),),
    lambda: (np.arange(4).reshape(2, 2),),
    lambda: (np.int64(1),),
    lambda: (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),),
    lambda: (pd.DataFrame({"a": [1, 3], "b": ["x", "y"]}),),
    lambda: (pd.Series([1, 2]),),
    lambda: (adder(1),),
    lambda: (adder(2),),
    lambda: (counter(1),),
    lambda: (counter(2),),
    lambda: (lambda x: x * 2,),
    lambda: (lambda x=1: x * 2,),
    lambda: (os.path.join,),
    lambda: (len,),
    lambda: (functools.partial(max, 1),),
    lambda: (functools.partial(max, 2),),
    lambda: ([].append,),
    lambda: ("x".join,),
    lambda: (os,),
    lambda: (...,),
    lambda: (range(5),),
    lambda: (Future(b"1" * 16),),
    lambda: (Future(b"2" * 16),),
    lambda: (Future(b"1" * 16), 1),
    lambda: (1, Future(b"1" * 16)),
    lambda: (Future(b"1" * 16), {1}),
    lambda: (Future(b"1" * 16), [1]),
    lambda: ([Future(b"1" * 16), Future(b"2" * 16)],),
    lambda: ([Future(b"2" * 16), Future(b"1" * 16)],),
    lambda: ({Future(b"1" * 16), Future(b"2" * 16)},),
    lambda: (allow_failure(Future(b"1" * 16)),),
    lambda: (b"1" * 16,),
]


def test_digests_tell_values_apart_and_equal_ones_together() -> None:
    digests = [digest(*make()) for make in DISTINCT]
    missing = [index for index, each in enumerate(digests) if each is None]
    assert missing == []
    assert all(len(each) == 16 for each in digests if each)
    assert [digest(*make()) for make in DISTINCT] == digests
    repeated = {each: digests.index(each) for each in digests if digests.count(each) > 1}
    assert repeated == {}


SCRIPT = """
from tests.core.test_identity import DISTINCT, digest
print([digest(*make()) for make in DISTINCT])
"""


def test_digests_are_the_same_in_every_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=50,
            cwd=pathlib.Path(__file__).parents[2],
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "None" not in outputs.pop()


def test_the_task_counts() -> None:
    for values in [(1,), ({1},)]:
        keys: list[str | bytes] = ["a:b", "a:c", b"a:b"]
        assert len({input_digest(key, values, identity_of) for key in keys}) == 3


def test_one_object_twice_is_like_two_equal_ones() -> None:
    text = "".join(["a", "b", "c", "d"])
    same, equal = [text, text, {1}], [text, "".join(list("abcd")), {1}]
    assert digest(same) == digest(equal)
    inner = [1, {2}]
    assert digest([inner, inner]) == digest([[1, {2}], [1, {2}]])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=4)
    ),
    max_leaves=10,
)


def rebuilt(value: Any) -> Any:
    """Make an equal value of new objects, sets filled in another order."""
    if isinstance(value, (list, tuple)):
        return type(value)([rebuilt(each) for each in value])
    if isinstance(value, dict):
        return {str(key): rebuilt(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return frozenset(sorted(value, key=repr, reverse=True))
    return "".join(list(value)) if isinstance(value, str) else value


@given(values)
def test_digest_depends_on_the_value_only(value: Any) -> None:
    assert digest(value) == digest(rebuilt(value)) is not None


@given(values, values)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    if one != other and one == one:  # what is not equal to itself, NaN, has one digest
        assert digest(one) != digest(other)


def test_surrogates_and_nan() -> None:
    assert digest("\ud800") == digest("\ud800") is not None
    assert digest(float("nan")) == digest(float("nan")) is not None


class Unpicklable:
    def __reduce__(self) -> str:
        raise KeyError("no")


def local_class() -> type:
    class Local:
        pass

    return Local


def cyclic() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make",
    [
        threading.Lock, object, Unpicklable, local_class, lambda: local_class()(), cyclic, deep,
        lambda: (each for each in "ab"), lambda: Future(None), lambda: [{Future(None)}],
        lambda: {"a": [object()]},
    ],
)  # fmt: skip
def test_what_has_no_identity(make: Callable[[], object]) -> None:
    assert digest(make()) is None
    assert digest(1, [make()]) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: [0] * 10_000_000,
        lambda: [0.5, "x"] * 5_000_000,
        lambda: [(), None] * ELEMENT_LIMIT,
        lambda: dict.fromkeys(range(ELEMENT_LIMIT + 1)),
        lambda: set(range(ELEMENT_LIMIT + 1)),
        lambda: [[0] * 1000] * (ELEMENT_LIMIT // 1000 + 1),
        lambda: "x" * (BYTE_LIMIT + 1),
        lambda: ["é" * 10_000_000],
        lambda: [{b"x" * 50_000_000}],
        lambda: bytearray(50_000_000),
        lambda: 1 << 80_000_000,
        lambda: np.zeros(20_000_000),
        lambda: np.zeros((4000, 4000)).T[::2],
        lambda: np.array([None] * 1_000_000),
        lambda: pd.DataFrame(np.zeros((1_000_000, 10))),
        lambda: pd.Series([0] * 10_000_000),
        lambda: ["x" * 600_000, "y" * 600_000],
        lambda: Point(["x" * 60_000] * 100),
    ],
)
def test_beyond_the_limits_there_is_no_identity_and_that_is_quick(
    make: Callable[[], object],
) -> None:
    value = make()
    digest(value)
    spent = []
    for _ in range(5):
        before = time.perf_counter()
        assert digest(value) is None
        spent.append(time.perf_counter() - before)
    assert min(spent) < 0.1  # a few milliseconds, with room for a busy machine


def test_within_the_limits_there_is_one() -> None:
    futures: list[object] = [Future(index.to_bytes(16, "big")) for index in range(50_000)]
    for value in (futures, "x" * 1_000_000, list(range(50_000)), np.zeros(100_000)):
        assert digest(value) is not None


def test_generators_are_known_by_the_elements_that_were_read() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2, 3)

    generator, other = numbers(), numbers()
    one = input_digest("t", (generator,), identity_of, find((generator,)))
    two = input_digest("t", (other,), identity_of, find((other,)))
    assert one == two is not None
    assert one != input_digest("t", ([1, 2, 3],), identity_of)


def test_a_closure_before_its_variable_is_assigned() -> None:
    found: list[Callable[[], object]] = []

    def make(assign: bool) -> None:
        found.append(lambda: later)
        if assign:
            later = 1

    make(False)
    assert digest(found[0]) is not None


# --- ordinals and run identities ---


def test_ordinals_count_equal_digests() -> None:
    ordinals = Ordinals()
    one, two = b"1" * 16, b"2" * 16
    assert [ordinals.next(each) for each in (one, two, one, one, two)] == [0, 0, 1, 2, 1]


def test_ordinals_take_at_most_ninety_bytes_per_digest() -> None:
    ordinals = Ordinals()
    for number in range(60_000):
        ordinals.next(number.to_bytes(16, "little") * 2)
    seen = ordinals._seen
    used = sys.getsizeof(seen) + sum(map(sys.getsizeof, seen))
    assert used / 60_000 <= 90
    assert not ordinals._repeats


def test_run_identity() -> None:
    one = digest(1)
    assert one is not None
    identities = [run_identity(one, ordinal) for ordinal in range(3)]
    assert identities[0] == one
    assert len(set(identities)) == 3
    assert {len(each) for each in identities} == {16}
