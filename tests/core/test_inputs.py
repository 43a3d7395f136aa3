from __future__ import annotations

import collections
import dataclasses
import typing
from collections.abc import Hashable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.annotations import Dependency, allow_failure, quote, unmapped
from penstock.core import inputs
from penstock.core.inputs import LIMIT, find, replace
from penstock.errors import ParameterTypeError


class Future(Dependency):
    """A future for tests: its value is known from the start."""

    __slots__ = ("name", "value")

    def __init__(self, value: object = None, name: str = "load-0") -> None:
        self.value = value
        self.name = name


def value_of(dependency: Dependency, allowed: bool) -> object:
    assert isinstance(dependency, Future)
    return dependency.value


def flag_of(dependency: Dependency, allowed: bool) -> object:
    return allowed


def replaced(value: object) -> Any:
    return replace((value,), value_of)[0]


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0
    made: Any = dataclasses.field(init=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    y: Any = 0


class Pair(typing.NamedTuple):
    left: Any
    right: Any


class Tagged(list[Any]):
    tag: str = ""


class Coordinates(tuple[Any, ...]):
    unit: str


class Bag(dict[Any, Any]):
    pass


def generate(*elements: object) -> Iterator[object]:
    yield from elements


@pytest.mark.parametrize(
    "value",
    [
        1, "text", None, [], {}, (), [1, [2, {"a": {3}}]], Point(1), Frozen([1]), Pair(1, 2),
        np.array([Future()], dtype=object), pd.DataFrame({"a": [1]}), object(), Future, len,
        {"a": [1.5, None, (True,)]}, Tagged([1]), [[[[[1]]]]], frozenset({1}), range(3),
        iter([Future()]), collections.deque([Future()]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_nothing_to_replace(value: object) -> None:
    assert find((value,)) is None
    values = (value,)
    assert replace(values, value_of) is values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Future(1), 1),
        ([Future(1), 2], [1, 2]),
        ((Future(1),), (1,)),
        ({Future(1), 2}, {1, 2}),
        (frozenset({Future(1)}), frozenset({1})),
        ({"a": Future(1)}, {"a": 1}),
        ({Future("a"): 1}, {"a": 1}),
        ({(Future("a"), 1): [Future(2)]}, {("a", 1): [2]}),
        (Frozen(Future(1), [Future(2)]), Frozen(1, [2])),
        (Pair(Future(1), 2), Pair(1, 2)),
        ([[[[Future(1)]]]], [[[[1]]]]),
        (unmapped(Future(1)), 1),
        (unmapped([2]), [2]),
        (allow_failure([Future(1)]), [1]),
        ([allow_failure(unmapped(Future(1)))], [1]),
        (
            collections.OrderedDict(b=1, a=Future(2)),
            collections.OrderedDict(b=1, a=2),
        ),
        (collections.Counter({Future("a"): 2}), collections.Counter(a=2)),
    ],
)
def test_replaces_in_every_container(value: object, expected: object) -> None:
    result = replaced(value)
    assert result == expected
    assert type(result) is type(expected)


def test_the_original_is_left_alone() -> None:
    future = Future(1)
    original: list[Any] = [{"a": future}, Frozen(future)]
    replaced(original)
    assert original[0]["a"] is future
    assert original[1].x is future


def test_what_holds_no_future_is_the_same_object() -> None:
    clean, frame = [1, [2]], pd.DataFrame({"a": [1]})
    result = replaced([clean, Future(1), frame, {"deep": clean, "f": Future(2)}])
    assert result[0] is clean
    assert result[2] is frame
    assert result[3]["deep"] is clean


def test_keeps_types_and_attributes() -> None:
    tagged = Tagged([Future(1)])
    tagged.tag = "t"
    coordinates = Coordinates((Future(1), 2))
    coordinates.unit = "m"
    default: collections.defaultdict[str, Any] = collections.defaultdict(list, a=Future(1))
    bag = Bag(a=Future(1))
    bag.note = "n"  # type: ignore[attr-defined]
    results = replaced([tagged, coordinates, default, bag])
    assert [type(each) for each in results] == [Tagged, Coordinates, collections.defaultdict, Bag]
    assert results == [[1], (1, 2), {"a": 1}, {"a": 1}]
    assert (results[0].tag, results[1].unit, results[3].note) == ("t", "m", "n")
    assert results[2]["new"] == []


def test_dataclass_fields_without_init_and_without_value() -> None:
    point = Point(Future(1))
    assert replaced(point).x == 1
    assert not hasattr(replaced(point), "made")
    point.made = Future(3)
    assert replaced(point).made == 3


def test_insertion_order_of_dicts_is_kept() -> None:
    assert list(replaced({"c": 1, Future("b"): 2, "a": Future(3)})) == ["c", "b", "a"]


def test_dependencies_are_unique_and_in_order() -> None:
    one, two, three = Future(1), Future(2), Future(3)
    found = find(([one, {"k": two}], two, {three: one}))
    assert found is not None
    assert list(found.dependencies) == [one, two, three]


def test_a_failure_is_allowed_only_where_every_occurrence_allows_it() -> None:
    one, two = Future(1), Future(2)
    found = find((allow_failure([one, two]), [two]))
    assert found is not None
    assert found.dependencies == {one: True, two: False}


def test_the_same_list_with_and_without_allow_failure() -> None:
    shared = [Future(1)]
    assert replace((shared, allow_failure(shared), shared), flag_of) == ([False], [True], [False])


def test_allow_failure_inside_reaches_down() -> None:
    value = [Future(), allow_failure({"a": [Future(), unmapped(Future())]}), Future()]
    assert replace((value,), flag_of) == ([False, {"a": [True, True]}, False],)


def test_quote_is_not_entered_but_unwrapped() -> None:
    future = Future(1)
    inner = [future]
    found = find((quote(inner), [quote(future)]))
    assert found is not None
    assert found.dependencies == {}
    result = found.replace((quote(inner), [quote(future)]), value_of)
    assert result[1] == [quote(future)]  # another object than the one that was searched
    values = (quote(inner), [quote(future)])
    assert replace(values, value_of) == (inner, [future])
    assert replace(values, value_of)[0] is inner


def test_futures_added_later_are_left_alone() -> None:
    first, late = Future(1), Future(2)
    values = ([first],)
    found = find(values)
    assert found is not None
    values[0].append(late)
    assert found.replace(values, value_of) == ([1, late],)


# --- generators ---


def test_generators_become_iterators_over_the_same_elements() -> None:
    assert list(replaced(generate(1, 2))) == [1, 2]
    assert list(replaced(generate(1, Future(2), [Future(3)]))) == [1, 2, [3]]
    assert [list(each) for each in replaced([generate(Future(1))])] == [[1]]


def test_a_generator_given_twice_stays_one_iterator() -> None:
    generator = generate(1, 2)
    one, two = replace((generator, [generator]), value_of)
    assert one is two[0]  # type: ignore[index]


def test_endless_generators() -> None:
    def endless(first: object) -> Iterator[object]:
        yield first
        yield from count()

    result = replaced(endless(1))
    assert list(islice(result, 3)) == [1, 0, 1]
    future, other = replace((Future(5), endless(1)), value_of)
    assert future == 5
    assert list(islice(other, LIMIT + 5))[-1] == LIMIT + 3  # type: ignore[call-overload]


def test_a_generator_raises_where_it_would_have_raised() -> None:
    def failing() -> Iterator[object]:
        yield Future(1)
        raise LookupError("gone")

    result = replaced(failing())
    assert next(result) == 1
    with pytest.raises(LookupError, match="gone"):
        next(result)


def test_elements_of_a_generator_that_was_read() -> None:
    generator, endless = generate(1, 2), (number for number in count())
    found = find((generator, endless))
    assert found is not None
    assert found.elements(generator) == [1, 2]
    assert found.elements(endless) is None


# --- limits ---


def test_a_large_list_is_not_walked_through() -> None:
    class Counting(list[Any]):
        pass

    large: list[Any] = [0.5, object()] * LIMIT
    assert find(([*large, Future(1)],)) is None
    assert find(([Future(1), *large, Future(2)],)) is not None


def test_once_a_future_was_seen_the_walk_goes_to_the_end() -> None:
    values = ([Future(1), *[object()] * (3 * LIMIT), [Future(2)]],)
    found = find(values)
    assert found is not None
    assert len(found.dependencies) == 2
    assert found.replace(values, value_of)[0][-1] == [2]  # type: ignore[index]


def test_the_limit_counts_across_containers() -> None:
    assert find(([[object()] * 10] * LIMIT + [Future(1)],)) is None


def test_a_generator_read_before_the_limit_is_still_replaced() -> None:
    generator = generate(1, 2)
    iterator, same = replace((generator, large := [object()] * (2 * LIMIT)), value_of)
    assert list(iterator) == [1, 2]  # type: ignore[call-overload]
    assert same is large


def test_depth_is_no_limit() -> None:
    value: Any = [Future(1)]
    for _ in range(5_000):
        value = [value]
    result = replaced(value)
    for _ in range(5_000):
        (result,) = result
    assert result == [1]


def test_many_futures() -> None:
    futures = [Future(number) for number in range(50_000)]
    found = find((futures,))
    assert found is not None
    assert found.replace((futures,), value_of) == (list(range(50_000)),)


# --- cycles ---


def test_cycles_without_futures() -> None:
    cycle: list[Any] = [1]
    cycle.append({"back": cycle})
    assert find((cycle,)) is None


def test_cycles_with_futures_lead_back_to_the_new_objects() -> None:
    cycle: list[Any] = [Future(1)]
    inner = {"back": cycle, "clean": [1]}
    cycle.append(inner)
    result = replaced(cycle)
    assert result[0] == 1
    assert result[1]["back"] is result
    assert result[1]["clean"] is inner["clean"]


def test_a_future_found_after_the_cycle_was_closed() -> None:
    outer: list[Any] = []
    inner = [outer]
    outer += [inner, Future(1)]
    result = replaced(outer)
    assert result[1] == 1
    assert result[0][0] is result


def test_dataclass_cycles() -> None:
    child, parent = Point(Future(1)), Point(2)
    child.y, parent.y = parent, [child]
    result = replaced(parent)
    assert result.y[0].x == 1
    assert result.y[0].y is result


def test_shared_containers_stay_shared() -> None:
    shared = [Future(1)]
    result = replaced([shared, shared])
    assert result[0] is result[1]


# --- errors ---


@pytest.mark.parametrize(
    ("value", "role"),
    [
        ({Future([])}, "an element of a set"),
        (frozenset({Future([])}), "an element of a frozenset"),
        ({Future([]): 1}, "a key of a dict"),
    ],
)
def test_unhashable_values_are_named(value: object, role: str) -> None:
    with pytest.raises(
        ParameterTypeError, match=f"The value of 'load-0' cannot be {role}: 'list' objects"
    ):
        replaced(value)


def test_a_container_that_cannot_be_copied_is_named() -> None:
    class Stubborn(list[Any]):
        def __copy__(self) -> Any:
            raise RuntimeError

    with pytest.raises(ParameterTypeError, match="Stubborn"):
        replaced(Stubborn([Future(1)]))


# --- any nesting ---


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.integers() | st.text(max_size=3)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(keys, inner, max_size=4),
            st.builds(Frozen, inner, inner),
            st.builds(Pair, inner, inner),
            inner.map(unmapped),
        ),
        max_leaves=30,
    )


def wrapped(value: Any) -> Any:
    """Put a future in the place of every even number, and drop nothing else."""
    if isinstance(value, int):
        return Future(value) if value % 2 == 0 else value
    if type(value) in (list, tuple):
        return type(value)(map(wrapped, value))
    if isinstance(value, dict):
        return {key: wrapped(each) for key, each in value.items()}
    if isinstance(value, Frozen):
        return Frozen(wrapped(value.x), wrapped(value.y))
    if isinstance(value, Pair):
        return Pair(*map(wrapped, value))
    return unmapped(wrapped(value.value)) if isinstance(value, unmapped) else value


def bare(value: Any) -> Any:
    """Take every annotation off."""
    if isinstance(value, unmapped):
        return bare(value.value)
    if type(value) in (list, tuple):
        return type(value)(map(bare, value))
    if isinstance(value, dict):
        return {key: bare(each) for key, each in value.items()}
    if isinstance(value, Frozen):
        return Frozen(bare(value.x), bare(value.y))
    return Pair(*map(bare, value)) if isinstance(value, Pair) else value


@given(nested(st.integers() | st.text(max_size=3) | st.none()))
def test_any_nesting_is_replaced(value: Any) -> None:
    assert replaced(wrapped(value)) == bare(value)


@given(nested(st.integers(1, 1) | st.text(max_size=3)))
def test_identity_is_kept_exactly_where_nothing_is_replaced(value: Any) -> None:
    (result,) = replace((value,), value_of)
    assert (result is value) == (find((value,)) is None)


def test_scalars_are_immutable_and_hashable() -> None:
    assert all(issubclass(kind, Hashable) for kind in inputs.SCALARS)
