"""The contract of futures, and of waiting for several of them."""

from __future__ import annotations

import asyncio
import gc
import uuid
import warnings
import weakref
from typing import Any

import pytest

from penstock import StateType, TaskFuture, as_completed, flow, task, wait, wait_async
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import Gate, Ledger, wait_until
from penstock.testing.sample_tasks import add, add_async, fail, hold, hold_async


class Token:
    """An object that can be referred to weakly."""


@task
def make_token() -> Token:
    """Give a new object."""
    return Token()


class FuturesContract:
    """Section 5: one future."""

    def test_future_has_a_name(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert add.submit(1, 2).name == "add-0"

        example()

    def test_future_key_is_the_task_run_id(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            first, second = add.submit(1, 2), add.submit(1, 2)
            assert isinstance(first.key, uuid.UUID)
            assert first.key != second.key
            assert first.task_run.id == first.key

        example()

    def test_future_has_its_task_run(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = add.submit(1, y=2)
            future.result()
            assert future.task_run.name == future.name
            assert future.task_run.state.is_completed()
            assert future.task_run.attempt == 1

        example()

    def test_future_has_a_state(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = add.submit(1, 2)
            future.wait()
            assert future.state.type is StateType.COMPLETED
            assert future.state.result() == 3

        example()

    def test_state_is_not_final_while_it_runs(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            future = hold.submit(ledger, gate)
            assert future.done() is not deferred
            assert future.state.is_final() is not deferred
            gate.open()
            future.wait()
            assert future.done()
            assert future.state.is_final()

        example()

    def test_wait_gives_the_state(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            good, bad = add.submit(1, 2).wait(), fail.submit().wait()
            assert good is not None
            assert bad is not None
            assert good.is_completed()
            assert bad.is_failed()

        example()

    def test_wait_gives_none_when_time_is_up(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            future = hold.submit(ledger, gate)
            assert (future.wait(timeout=0.03) is None) is deferred
            assert (future.wait(timeout=0) is None) is deferred
            gate.open()
            assert future.wait(timeout=10) is not None

        example()

    def test_result_raises_timeout_error_when_time_is_up(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            future = hold.submit(ledger, gate)
            if deferred:
                with pytest.raises(TimeoutError):
                    future.result(timeout=0.03)
                with pytest.raises(TimeoutError):
                    future.exception(timeout=0.03)
            gate.open()
            assert future.result(timeout=10) == "held"

        example()

    def test_result_raises_what_the_task_raised(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(ValueError, match="^text$"):
                fail.submit("text").result()

        example()

    def test_result_can_give_the_exception(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            result: Any = fail.submit("text").result(raise_on_failure=False)
            assert isinstance(result, ValueError)
            assert str(result) == "text"

        example()

    def test_exception_of_a_failed_run(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert isinstance(fail.submit().exception(), ValueError)

        example()

    def test_exception_of_a_completed_run_is_none(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert add.submit(1, 2).exception() is None

        example()

    def test_await_gives_the_value(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            future = add.submit(1, 2)
            assert await future == 3
            assert await future == 3

        asyncio.run(example())

    def test_await_raises_the_failure(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            with pytest.raises(ValueError, match="^text$"):
                await fail.submit("text")

        asyncio.run(example())

    def test_await_can_be_given_up(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        async def value_of(future: TaskFuture[Any]) -> Any:
            return await future

        @flow(task_runner=task_runner)
        async def example() -> None:
            if not deferred:
                gate.open()
            future = hold_async.submit(ledger, gate)
            if deferred:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(value_of(future), 0.03)
            gate.open()
            assert await future == "held"

        asyncio.run(example())

    def test_truth_of_a_future_warns(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = add.submit(1, 2)
            with pytest.warns(UserWarning, match="TaskFuture"):
                assert future

        example()

    def test_futures_go_into_sets_and_dicts(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            first, second = add.submit(1, 2), add.submit(1, 2)
            assert len({first, second, first}) == 2
            assert first != second

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            example()

    def test_done_callback_runs_once(self, task_runner: BaseTaskRunner) -> None:
        seen: list[Any] = []

        @flow(task_runner=task_runner)
        def example() -> None:
            future = add.submit(1, 2)
            future.add_done_callback(seen.append)
            future.wait()
            wait_until(lambda: bool(seen))
            assert seen == [future]

        example()
        assert len(seen) == 1

    def test_done_callback_added_late_runs(self, task_runner: BaseTaskRunner) -> None:
        seen: list[Any] = []

        @flow(task_runner=task_runner)
        def example() -> None:
            future = add.submit(1, 2)
            future.wait()
            future.add_done_callback(seen.append)
            wait_until(lambda: bool(seen))

        example()
        assert len(seen) == 1

    def test_error_in_a_done_callback_changes_nothing(self, task_runner: BaseTaskRunner) -> None:
        def explode(future: Any) -> None:
            raise ValueError("in the callback")

        @flow(task_runner=task_runner)
        def example() -> Any:
            future = add.submit(1, 2)
            future.add_done_callback(explode)
            return future.result()

        assert example() == 3

    def test_future_can_be_asked_after_the_flow(self, task_runner: BaseTaskRunner) -> None:
        kept: list[Any] = []

        @flow(task_runner=task_runner)
        def example() -> None:
            kept.append(add.submit(1, 2))
            kept.append(add_async.submit(3, 4))

        example()
        assert [future.result() for future in kept] == [3, 7]

    def test_value_nobody_can_ask_for_is_released(
        self, task_runner: BaseTaskRunner, in_process: bool
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = make_token.submit()
            reference = weakref.ref(future.result())
            if in_process:
                gc.collect()
                assert reference() is not None
            del future
            gc.collect()
            wait_until(lambda: reference() is None)

        example()


class WaitingContract:
    """Section 5: `wait` and `as_completed`."""

    def test_wait_for_all(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures = [add.submit(1, number) for number in range(5)]
            done, not_done = wait(futures)
            assert done == set(futures)
            assert not_done == set()

        example()

    def test_wait_gives_a_named_tuple(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            result = wait([add.submit(1, 2)])
            assert len(result.done) == 1
            assert result.not_done == set()

        example()

    def test_wait_for_nothing(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert wait([]) == (set(), set())

        example()

    def test_wait_stops_when_time_is_up(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            quick = add.submit(1, 2)
            quick.wait()
            if not deferred:
                gate.open()
            slow = hold.submit(ledger, gate)
            done, not_done = wait([quick, slow], timeout=0.03)
            assert (done, not_done) == (({quick}, {slow}) if deferred else ({quick, slow}, set()))
            gate.open()
            assert wait([quick, slow]).done == {quick, slow}

        example()

    def test_wait_for_the_first(
        self, task_runner: BaseTaskRunner, overlaps: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not overlaps:
                gate.open()
            slow = hold.submit(ledger, gate)
            quick = add.submit(1, 2)
            done, not_done = wait([slow, quick], return_when="FIRST_COMPLETED")
            assert done | not_done == {slow, quick}
            assert quick in done or not overlaps
            assert (slow in not_done) or not overlaps
            gate.open()

        example()

    def test_wait_for_the_first_exception(
        self, task_runner: BaseTaskRunner, overlaps: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not overlaps:
                gate.open()
            slow = hold.submit(ledger, gate)
            bad = fail.submit()
            done, not_done = wait([slow, bad], return_when="FIRST_EXCEPTION")
            assert bad in done
            assert (slow in not_done) or not overlaps
            gate.open()
            assert isinstance(bad.exception(), ValueError)

        example()

    def test_wait_for_the_first_exception_without_any(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures = [add.submit(1, 2), add.submit(3, 4)]
            assert wait(futures, return_when="FIRST_EXCEPTION").done == set(futures)

        example()

    def test_wait_raises_no_failure(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures = [fail.submit(), add.submit(1, 2)]
            assert wait(futures).done == set(futures)
            assert futures[0].exception() is not None

        example()

    def test_wait_in_async_code_is_awaited(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            futures = [add.submit(1, 2), add_async.submit(1, 2), fail.submit()]
            done, not_done = await wait_async(futures)
            assert (done, not_done) == (set(futures), set())
            assert futures[2].exception() is not None

        asyncio.run(example())

    def test_wait_in_async_code_stops_when_time_is_up(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            if not deferred:
                gate.open()
            future = hold_async.submit(ledger, gate)
            found = await wait_async([future], timeout=0.03)
            assert (future in found.not_done) or not deferred
            gate.open()
            assert (await wait_async([future])).done == {future}

        asyncio.run(example())

    def test_as_completed_gives_every_future_once(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures = [add.submit(0, number) for number in range(10)]
            values = [future.result() for future in as_completed(futures)]
            assert sorted(values) == list(range(10))

        example()

    def test_as_completed_gives_the_quick_one_first(
        self, task_runner: BaseTaskRunner, overlaps: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not overlaps:
                gate.open()
            slow = hold.submit(ledger, gate)
            quick = add.submit(1, 2)
            order = []
            for future in as_completed([slow, quick]):
                order.append(future.result())
                gate.open()
            assert order == [3, "held"] or not overlaps
            assert set(order) == {3, "held"}

        example()

    def test_as_completed_raises_when_time_is_up(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            future = hold.submit(ledger, gate)
            if deferred:
                with pytest.raises(TimeoutError):
                    list(as_completed([future], timeout=0.03))
            gate.open()
            assert list(as_completed([future], timeout=10)) == [future]

        example()

    def test_as_completed_of_nothing(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert list(as_completed([])) == []

        example()

    def test_as_completed_in_async_code(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            futures = [add.submit(0, 1), add_async.submit(0, 2), add.submit(0, 3)]
            values = [await future async for future in as_completed(futures)]
            assert sorted(values) == [1, 2, 3]

        asyncio.run(example())

    def test_as_completed_in_async_code_raises_when_time_is_up(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            if not deferred:
                gate.open()
            future = hold_async.submit(ledger, gate)
            if deferred:
                with pytest.raises(TimeoutError):
                    [found async for found in as_completed([future], timeout=0.03)]
            gate.open()
            assert [found async for found in as_completed([future])] == [future]

        asyncio.run(example())
