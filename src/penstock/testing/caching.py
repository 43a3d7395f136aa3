"""The contract of caching: which runs run, which take a value that is there."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from penstock import allow_failure, flow, get_run_context, task
from penstock.errors import CacheKeyError
from penstock.states import State
from penstock.task_runners import BaseTaskRunner
from penstock.tasks import task_input_hash, task_source_hash
from penstock.testing.ledger import DEADLINE, Gate, Ledger
from penstock.testing.sample_tasks import identity


def by_value(context: Any, parameters: Any) -> str:
    """Make the key of the value alone, and of the test's own ledger."""
    return f"{parameters['ledger'].path} {parameters['value']!r}"


@task(cache_key_fn=by_value)
def square(ledger: Ledger, value: int) -> int:
    """Write a line, and square a number."""
    ledger.add(f"square {value}")
    return value * value


@task(cache_key_fn=by_value)
async def square_async(ledger: Ledger, value: int) -> int:
    """Do as `square` does, in a coroutine."""
    ledger.add(f"square {value}")
    return value * value


@task(cache_key_fn=by_value)
def square_slowly(ledger: Ledger, value: int, gate: Gate) -> int:
    """Do as `square` does once the gate is open."""
    ledger.add(f"square {value}")
    gate.wait()
    return value * value


@task(cache_key_fn=by_value)
async def square_slowly_async(ledger: Ledger, value: int, gate: Gate) -> int:
    """Do as `square_slowly` does, in a coroutine."""
    ledger.add(f"square {value}")
    await gate.wait_async()
    return value * value


@task(cache_key_fn=by_value)
def fail_first(ledger: Ledger, value: int) -> int:
    """Fail when it is the first to write a line."""
    ledger.add(f"tried {value}")
    if len(ledger.lines()) == 1:
        raise ValueError("the first")
    return value


@task(cache_key_fn=by_value)
def square_within(ledger: Ledger, value: int, depth: int) -> int:
    """Call itself with the same key."""
    ledger.add(f"depth {depth}")
    return value * value if depth == 0 else square_within(ledger, value, depth - 1)


@task
def square_both_ways(ledger: Ledger, value: int) -> list[int]:
    """Square a number by a call and by a submission inside a task."""
    return [square(ledger, value), square.submit(ledger, value).result()]


@task(cache_key_fn=by_value)
def large(ledger: Ledger, value: int) -> bytes:
    """Give more than the history keeps, and less than engines keep."""
    ledger.add("large")
    return bytes(40_000 + value)


@flow
def square_flow(ledger: Ledger, value: int) -> list[int]:
    """Square a number by a call and by a submission."""
    return [square(ledger, value), square.submit(ledger, value).result()]


@task
def square_in_a_flow(ledger: Ledger, value: int) -> list[int]:
    """Square a number in a flow inside a task."""
    return square_flow(ledger, value)


def assert_cached(state: State, value: Any) -> None:
    """Check the state of a run that took a value."""
    assert state.is_completed()
    assert state.name == "Cached"
    assert (state.message or "").startswith("Cached from task run '")
    assert state.result() == value


class CachingContract:
    """Section 10, on caching."""

    def test_second_run_with_a_key_takes_the_value(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            first = square.submit(ledger, 3)
            assert first.result() == 9
            assert first.state.name == "Completed"
            second = square.submit(ledger, 3)
            second.wait()
            assert_cached(second.state, 9)
            assert str(first.task_run.id) in (second.state.message or "")
            assert second.task_run.attempt == 0
            assert first.task_run.attempt == 1
            assert square.submit(ledger, 4).result() == 16

        example()
        assert ledger.lines() == ["square 3", "square 4"]

    def test_called_mapped_and_asynchronous_runs_are_cached(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert square(ledger, 2) == 4
            assert_cached(square(ledger, 2, return_state=True), 4)
            assert square.map(ledger, [2, 2, 3]).result() == [4, 4, 9]
            value: Any = square_async(ledger, 2)
            assert value == 4
            assert square_async.submit(ledger, 3).result() == 9
            assert square_async.submit(ledger, 5).result() == 25
            assert_cached(square_async.submit(ledger, 5, return_state=True), 25)

        example()
        assert ledger.lines() == ["square 2", "square 3", "square 5"]

    def test_caching_in_an_asynchronous_flow(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            assert await square_async(ledger, 2) == 4
            assert_cached(await square_async(ledger, 2, return_state=True), 4)
            assert await square_async.submit(ledger, 2) == 4
            assert await square.submit(ledger, 2) == 4

        asyncio.run(example())
        assert ledger.lines() == ["square 2"]

    def test_values_outlast_the_flow_run(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> str:
            state = square.submit(ledger, 6, return_state=True)
            assert state.result() == 36
            return state.name

        assert example() == "Completed"
        assert example() == "Cached"
        assert ledger.lines() == ["square 6"]

    def test_parameters_of_the_key_are_resolved_and_have_defaults(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        def key(context: Any, parameters: Any) -> str:
            assert context.task_run.id == get_run_context().task_run.id
            assert list(parameters) == ["ledger", "value", "by"]
            return f"{parameters['ledger'].path} {context.task.name} {parameters['value']}"

        @task(cache_key_fn=key)
        def scale(ledger: Ledger, value: int, by: int = 2) -> int:
            ledger.add("scaled")
            return value * by

        @flow(task_runner=task_runner)
        def example() -> None:
            assert scale.submit(ledger, identity.submit(4)).result() == 8
            assert scale.submit(ledger, 4).result() == 8
            future: Any = identity.submit(4)
            assert scale(ledger, future, by=2) == 8

        example()
        assert ledger.lines() == ["scaled"]

    def test_expired_value_is_made_again(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            brief = square.with_options(cache_expiration=timedelta(milliseconds=1))
            assert brief.submit(ledger, 2).result() == 4
            time.sleep(0.002)
            assert square.submit(ledger, 2).result() == 4
            assert square.submit(ledger, 2).result() == 4

        example()
        assert ledger.lines() == ["square 2", "square 2"]

    def test_refresh_runs_and_replaces(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert square.submit(ledger, 2).result() == 4
            refreshed = square.with_options(refresh_cache=True).submit(ledger, 2)
            assert refreshed.result() == 4
            assert refreshed.state.name == "Completed"
            state = square.submit(ledger, 2, return_state=True)
            assert str(refreshed.task_run.id) in (state.message or "")

        example()
        assert ledger.lines() == ["square 2", "square 2"]

    def test_no_key_no_caching(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            plain = square.with_options(cache_key_fn=lambda context, parameters: None)
            assert plain.submit(ledger, 2).result() == 4
            assert plain.submit(ledger, 2).result() == 4

        example()
        assert ledger.lines() == ["square 2", "square 2"]

    def test_key_function_that_raises_fails_the_run(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        def key(context: Any, parameters: Any) -> str:
            raise LookupError("no key")

        @flow(task_runner=task_runner)
        def example() -> None:
            future = square.with_options(cache_key_fn=key).submit(ledger, 2)
            with pytest.raises(LookupError, match="^no key$"):
                future.result()
            assert future.state.message == (
                "Cache key function encountered an exception. LookupError: no key"
            )

        example()
        assert ledger.lines() == []

    def test_what_is_no_key_fails_the_run(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            for given, told in ((7, "gave 7"), ("x" * 1001, "1,001 characters"), ("", "gave ''")):
                odd = square.with_options(cache_key_fn=lambda context, parameters, key=given: key)
                with pytest.raises(CacheKeyError, match=told):
                    odd.submit(ledger, 2).result()

        example()
        assert ledger.lines() == []

    def test_equal_keys_at_once_run_once(
        self, task_runner: BaseTaskRunner, ledger: Ledger, gate: Gate, deferred: bool
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            futures = square_slowly.map(ledger, [7] * 10, gate)
            ledger.wait_for("square 7")
            gate.open()
            assert [future.result() for future in futures] == [49] * 10
            names = sorted(future.state.name for future in futures)
            assert names == ["Cached"] * 9 + ["Completed"]

        example()
        assert ledger.lines() == ["square 7"]

    def test_equal_keys_of_coroutines_at_once_run_once(
        self, task_runner: BaseTaskRunner, ledger: Ledger, gate: Gate, deferred: bool
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            futures = square_slowly_async.map(ledger, [7] * 4, gate)
            ledger.wait_for("square 7")
            gate.open()
            assert [future.result() for future in futures] == [49] * 4

        example()
        assert ledger.lines() == ["square 7"]

    def test_when_the_first_fails_the_next_one_runs(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures = [allow_failure(each) for each in fail_first.map(ledger, [1] * 4)]
            values = identity.submit(futures).result()
            assert sorted(map(str, values)) == ["1", "1", "1", "the first"]

        example()
        assert ledger.lines() == ["tried 1", "tried 1"]

    def test_inside_tasks(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert square_both_ways.submit(ledger, 3).result() == [9, 9]
            assert square(ledger, 3) == 9
            assert square_both_ways(ledger, 3) == [9, 9]

        example()
        assert ledger.lines() == ["square 3"]

    def test_inside_flows_inside_tasks(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert square_in_a_flow.submit(ledger, 3).result() == [9, 9]
            assert_cached(square.submit(ledger, 3, return_state=True), 9)
            assert square_in_a_flow.submit(ledger, 3).result() == [9, 9]

        example()
        assert ledger.lines() == ["square 3"]

    def test_a_run_does_not_wait_for_the_run_it_is_in(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert square_within.submit(ledger, 3, 2).result(DEADLINE) == 9

        example()
        assert ledger.lines() == ["depth 2", "depth 1", "depth 0"]

    def test_waiting_runs_can_be_cancelled(
        self, task_runner: BaseTaskRunner, ledger: Ledger, gate: Gate, overlaps: bool
    ) -> None:
        if not overlaps:
            pytest.skip("one task run at a time")

        @flow(task_runner=task_runner)
        def example() -> None:
            first = square_slowly.submit(ledger, 7, gate)
            ledger.wait_for("square 7")
            second = square_slowly.submit(ledger, 7, gate)
            assert second.cancel()
            assert second.wait(DEADLINE) is not None
            assert second.cancelled()
            gate.open()
            assert first.result() == 49

        example()
        assert ledger.lines() == ["square 7"]

    def test_value_that_is_not_kept_is_not_cached(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            unkept = large.with_options(persist_result=False)
            assert len(unkept.submit(ledger, 1).result()) == 40_001
            assert len(unkept.submit(ledger, 1).result()) == 40_001

        example()
        assert ledger.lines() == ["large", "large"]

    def test_large_value_is_stored_and_cached(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert len(large.submit(ledger, 1).result()) == 40_001
            assert_cached(large.submit(ledger, 1, return_state=True), bytes(40_001))

        example()
        assert ledger.lines() == ["large"]

    def test_keys_of_inputs_and_of_source(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @task(cache_key_fn=task_input_hash)
        def by_input(ledger: Ledger, value: Any) -> Any:
            ledger.add("by input")
            return value

        @task(cache_key_fn=task_source_hash)
        def by_source(ledger: Ledger, value: Any) -> Any:
            ledger.add("by source")
            return value

        @flow(task_runner=task_runner)
        def example() -> None:
            for each in (by_input, by_source):
                assert each.submit(ledger, {"a": [1]}).result() == {"a": [1]}
                assert each.submit(ledger, {"a": [1]}).result() == {"a": [1]}
                assert each.submit(ledger, {"a": [2]}).result() == {"a": [2]}

        example()
        assert ledger.lines() == ["by input", "by input", "by source", "by source"]
