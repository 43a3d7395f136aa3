"""The contract of `map`: what is zipped, what stays constant, what is refused."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import flow, task, unmapped
from penstock.errors import MappingLengthMismatch, MappingMissingIterable
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import Ledger, wait_until
from penstock.testing.sample_tasks import add, add_async, fail, identity, note


@task
def pair(left: Any, right: Any = ("default",), **more: Any) -> Any:
    """Give the arguments back in a dict."""
    return {"left": left, "right": right, **more}


@task
def reject_odd(number: int) -> int:
    """Fail for odd numbers."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@task
def numbers_up_to(count: int) -> list[int]:
    """Give a list to map over."""
    return list(range(count))


def mapped(runner: BaseTaskRunner, called: Any, *args: Any, **kwargs: Any) -> Any:
    """Map a task in a flow on the runner and give the values."""

    @flow(task_runner=runner)
    def example() -> Any:
        return {"values": [future.result() for future in called.map(*args, **kwargs)]}

    return example()["values"]


class MappingContract:
    """Section 4, on `map`."""

    def test_one_iterable(self, task_runner: BaseTaskRunner) -> None:
        assert mapped(task_runner, identity, [1, 2, 3]) == [1, 2, 3]

    def test_two_iterables_are_zipped(self, task_runner: BaseTaskRunner) -> None:
        assert mapped(task_runner, add, [1, 2], [10, 20]) == [11, 22]

    def test_keywords_are_mapped(self, task_runner: BaseTaskRunner) -> None:
        assert mapped(task_runner, add, x=[1, 2], y=(10, 20)) == [11, 22]

    def test_every_iterable_is_mapped(self, task_runner: BaseTaskRunner) -> None:
        values = mapped(task_runner, add, range(3), (number for number in (5, 6, 7)))
        assert values == [5, 7, 9]

    def test_text_is_constant(self, task_runner: BaseTaskRunner) -> None:
        assert mapped(task_runner, add, ["a", "b"], "xy") == ["axy", "bxy"]

    def test_bytes_are_constant(self, task_runner: BaseTaskRunner) -> None:
        assert mapped(task_runner, add, [b"a", b"b"], b"xy") == [b"axy", b"bxy"]

    def test_mappings_are_constant(self, task_runner: BaseTaskRunner) -> None:
        values = mapped(task_runner, pair, [1, 2], {"a": 1})
        assert values == [{"left": 1, "right": {"a": 1}}, {"left": 2, "right": {"a": 1}}]

    def test_what_is_no_iterable_is_constant(self, task_runner: BaseTaskRunner) -> None:
        values = mapped(task_runner, pair, [1, 2], None)
        assert values == [{"left": 1, "right": None}, {"left": 2, "right": None}]

    def test_unmapped_is_constant(self, task_runner: BaseTaskRunner) -> None:
        values = mapped(task_runner, pair, [1, 2], unmapped([7, 8, 9]))
        assert values == [{"left": 1, "right": [7, 8, 9]}, {"left": 2, "right": [7, 8, 9]}]

    def test_defaults_are_never_mapped(self, task_runner: BaseTaskRunner) -> None:
        values = mapped(task_runner, pair, [1, 2])
        assert values == [
            {"left": 1, "right": ("default",)},
            {"left": 2, "right": ("default",)},
        ]

    def test_extra_keywords_are_mapped(self, task_runner: BaseTaskRunner) -> None:
        values = mapped(task_runner, pair, 0, 0, more=[1, 2], same=3)
        assert values == [
            {"left": 0, "right": 0, "more": 1, "same": 3},
            {"left": 0, "right": 0, "more": 2, "same": 3},
        ]

    def test_extra_positions_are_mapped(self, task_runner: BaseTaskRunner) -> None:
        @task
        def collect(*values: Any) -> Any:
            return {"values": values}

        values = mapped(task_runner, collect, [1, 2], 0, [3, 4])
        assert values == [{"values": (1, 0, 3)}, {"values": (2, 0, 4)}]

    def test_empty_iterable_gives_an_empty_list(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert add.map([], 3) == []
            assert add.map([], []) == []

        example()

    def test_no_iterable_is_refused(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(MappingMissingIterable):
                add.map(1, 2)
            with pytest.raises(MappingMissingIterable):
                add.map("text", unmapped([1]))

        example()

    def test_unequal_lengths_are_refused(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(MappingLengthMismatch):
                note.map(ledger, ["a", "b", "c"], after=[1, 2])

        example()
        assert ledger.lines() == []

    def test_order_is_kept(self, task_runner: BaseTaskRunner) -> None:
        assert mapped(task_runner, identity, range(300)) == list(range(300))

    def test_names_are_numbered(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert [future.name for future in add.map([1, 2, 3], 0)] == ["add-0", "add-1", "add-2"]

        example()

    def test_one_failure_leaves_the_others_alone(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            states = [future.wait() for future in reject_odd.map(range(4))]
            completed = [state.is_completed() for state in states if state is not None]
            assert completed == [True, False, True, False]

        example()

    def test_result_of_all_raises_the_first_failure(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures = reject_odd.map(range(4))
            with pytest.raises(ValueError, match="^1 is odd$"):
                futures.result()
            futures.wait()
            assert all(future.done() for future in futures)
            assert futures[3].exception() is not None

        example()

    # Futures in map.

    def test_future_argument_is_resolved_first(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return {"values": add.map(numbers_up_to.submit(3), 10).result()}

        assert example() == {"values": [10, 11, 12]}

    def test_future_of_a_constant_is_constant(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return {"values": add.map([1, 2], identity.submit(10)).result()}

        assert example() == {"values": [11, 12]}

    def test_unmapped_future_is_resolved_and_constant(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            futures = pair.map([1, 2], unmapped(numbers_up_to.submit(2)))
            return {"values": futures.result()}

        assert example() == {"values": [{"left": 1, "right": [0, 1]}, {"left": 2, "right": [0, 1]}]}

    def test_list_of_futures_is_mapped_one_by_one(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return {"values": add.map(add.map([1, 2, 3], 10), 100).result()}

        assert example() == {"values": [111, 112, 113]}

    def test_each_element_has_its_own_upstream(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            upstream = reject_odd.map(range(4))
            states = [future.wait() for future in add.map(upstream, 0)]
            names = [state.name for state in states if state is not None]
            assert names == ["Completed", "NotReady", "Completed", "NotReady"]
            assert [future.exception() is None for future in upstream] == [True, False] * 2

        example()

    def test_map_of_async_tasks_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return {"values": await asyncio.gather(*add_async.map([1, 2, 3], 1))}

        assert asyncio.run(example()) == {"values": [2, 3, 4]}

    def test_map_of_failures_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            futures = fail.map(["a", "b"])
            results = await asyncio.gather(*futures, return_exceptions=True)
            assert [str(result) for result in results] == ["a", "b"]

        asyncio.run(example())

    # Lazy map.

    def test_lazy_map_takes_an_endless_iterable(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            futures = iter(add.map(itertools.count(), 1, max_in_flight=2))
            return {"values": [next(futures).result() for _ in range(6)]}

        assert example() == {"values": [1, 2, 3, 4, 5, 6]}

    def test_lazy_map_reads_no_further_than_it_must(self, task_runner: BaseTaskRunner) -> None:
        taken: list[int] = []

        def source() -> Iterator[int]:
            for number in itertools.count():
                taken.append(number)
                yield number

        @flow(task_runner=task_runner)
        def example() -> None:
            futures = iter(identity.map(source(), max_in_flight=3))
            for _ in range(5):
                next(futures).result()
            wait_until(lambda: len(taken) >= 5)
            assert len(taken) <= 5 + 3 + 1

        example()

    def test_lazy_map_of_something_finite_gives_everything(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            futures = identity.map(range(20), max_in_flight=4)
            return {"values": [future.result() for future in futures]}

        assert example() == {"values": list(range(20))}
