from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.annotations import Dependency, allow_failure, quote, unmapped
from penstock.core.mapping import is_mapped, list_arguments, zip_arguments
from penstock.errors import MappingLengthMismatch, MappingMissingIterable


class Broken:
    def __iter__(self) -> Iterator[int]:
        raise TypeError("not now")


CONSTANTS = [
    "text", b"bytes", bytearray(b"x"), memoryview(b"x"), 1, None, {"a": 1}, OrderedDict(a=1),
    np.array(5), pd.DataFrame({"a": [1, 2]}), Dependency(), quote([1, 2]), object(), Broken(),
]  # fmt: skip


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda value: type(value).__name__)
def test_constants(constant: object) -> None:
    calls = list_arguments((range(2), constant), {})
    assert len(calls) == 2
    assert all(args[1] is constant for args, _ in calls)
    assert not is_mapped(constant)


@pytest.mark.parametrize(
    "iterable",
    [[1, 2], (1, 2), {1, 2}, range(1, 3), np.array([1, 2]), pd.Series([1, 2]), iter([1, 2])],
    ids=lambda value: type(value).__name__,
)
def test_iterables(iterable: Any) -> None:
    assert [args for args, _ in list_arguments((iterable,), {})] == [(1,), (2,)]


def test_zips_positional_and_keyword_arguments() -> None:
    calls = list_arguments(([1, 2], "c"), {"k": (3, 4), "d": 5})
    assert calls == [((1, "c"), {"k": 3, "d": 5}), ((2, "c"), {"k": 4, "d": 5})]
    assert list(zip_arguments(([1, 2], "c"), {"k": (3, 4), "d": 5})) == calls


def test_keywords_only() -> None:
    assert list_arguments((), {"k": [1, 2]}) == [((), {"k": 1}), ((), {"k": 2})]
    assert list_arguments((7,), {"k": [1]}) == [((7,), {"k": 1})]


def test_each_call_has_a_dict_of_its_own() -> None:
    first, second = list_arguments(([1, 2],), {})
    assert first[1] is not second[1]


def test_unmapped_is_unwrapped_and_constant() -> None:
    assert list_arguments(([1], unmapped([2, 3])), {}) == [((1, [2, 3]), {})]


def test_allow_failure_goes_to_each_element() -> None:
    calls = list_arguments((allow_failure([1, 2]), allow_failure("x")), {})
    assert calls[1] == ((allow_failure(2), allow_failure("x")), {})
    assert list_arguments(([1], unmapped(allow_failure([2]))), {})[0][0][1] == allow_failure([2])
    assert list_arguments(([1], allow_failure(unmapped([2]))), {})[0][0][1] == allow_failure(
        unmapped([2])
    )


def test_empty_iterables_give_no_calls() -> None:
    assert list_arguments(([], ()), {"k": {}.keys()}) == []
    assert list(zip_arguments(([], ()), {})) == []


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), (("abc", 1), {"k": unmapped([1])})])
def test_nothing_to_map(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    for mapping in (list_arguments, zip_arguments):
        with pytest.raises(MappingMissingIterable, match="none of its arguments"):
            mapping(args, kwargs)


def test_unequal_lengths_name_each_parameter() -> None:
    with pytest.raises(MappingLengthMismatch, match=r"'x' has 3, 'y' has 2, 'k' has 3"):
        list_arguments(([1, 2, 3], [1, 2], 5), {"k": "abc" and [1] * 3}, names=("x", "y", "z"))


def test_endless_iterables() -> None:
    calls = zip_arguments((count(), "c"), {"k": count(10)})
    assert list(islice(calls, 2)) == [((0, "c"), {"k": 10}), ((1, "c"), {"k": 11})]


def test_lazy_reading_takes_one_element_at_a_time() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    next(zip_arguments((source(),), {}))
    assert taken == [0]


def test_lazy_mismatch_comes_when_one_ends() -> None:
    calls = zip_arguments((count(), [1, 2]), {}, names=("x", "y"), function="'load'")
    assert [next(calls)[0], next(calls)[0]] == [(0, 1), (1, 2)]
    with pytest.raises(
        MappingLengthMismatch, match=r"Cannot map 'load' any further: 'y' ended after 2 elements"
    ):
        next(calls)


def test_records_are_constant() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", x=(int, 1))()
    assert not is_mapped(model)


@given(st.lists(st.lists(st.integers(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_eager_and_lazy_agree(columns: list[list[int]]) -> None:
    keyword = {f"k{index}": column for index, column in enumerate(columns)}
    eager = list_arguments((*columns, "c"), keyword)
    assert list(zip_arguments((*columns, "c"), keyword)) == eager
    assert [args[:-1] for args, _ in eager] == list(zip(*columns, strict=True))
