"""The contract of subflows, of tasks inside tasks, and of flows that run many times at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from penstock import StateType, flow, get_run_context, task
from penstock.errors import OutsideFlowError
from penstock.task_runners import BaseTaskRunner, ConcurrentTaskRunner, SequentialTaskRunner
from penstock.testing.ledger import Ledger
from penstock.testing.sample_tasks import add, add_async, fail, identity, note


@task
def submit_inside(depth: int) -> int:
    """Submit itself until the depth is used up, and wait for it."""
    if depth == 0:
        return 0
    inner: int = submit_inside.submit(depth - 1).result()
    return inner + 1


@task
async def submit_inside_async(depth: int) -> int:
    """Do as `submit_inside` does, in coroutines."""
    if depth == 0:
        return 0
    inner: int = await submit_inside_async.submit(depth - 1)
    return inner + 1


@task
def call_inside(depth: int) -> int:
    """Call itself until the depth is used up."""
    if depth == 0:
        return 0
    inner: int = call_inside(depth - 1)
    return inner + 1


@task
def map_inside(count: int) -> int:
    """Map another task and add up."""
    values: list[int] = add.map(range(count), 1).result()
    return sum(values)


@task
def fibonacci(number: int) -> int:
    """Submit two of itself and wait for both."""
    if number < 2:
        return number
    first, second = fibonacci.submit(number - 1), fibonacci.submit(number - 2)
    total: int = first.result() + second.result()
    return total


@task
def give_child() -> Any:
    """Give the future of a child instead of its value."""
    return add.submit(1, 2)


@task
def leave_child(ledger: Ledger) -> None:
    """Submit a child and do not wait for it."""
    note.submit(ledger, "child")


@task
def chain_inside() -> int:
    """Submit a child that depends on another one."""
    value: int = add.submit(add.submit(1, 2), 3).result()
    return value


@task
def fail_inside() -> Any:
    """Let the failure of a child pass."""
    return fail.submit("from the child").result()


@task
def catch_inside() -> str:
    """Handle the failure of a child."""
    try:
        fail.submit("from the child").result()
    except ValueError as error:
        return f"caught {error}"
    return "nothing to catch"


@flow
def triple(number: int) -> int:
    """Give three times the number, by a task."""
    value: int = add.submit(number, 2 * number).result()
    return value


@flow
async def triple_async(number: int) -> int:
    """Give three times the number, by an async task."""
    value: int = await add_async.submit(number, 2 * number)
    return value


@flow
def fail_as_flow() -> None:
    """Raise a ValueError."""
    raise ValueError("from the subflow")


class NestedTasksContract:
    """Section 4: tasks inside tasks, on any number of workers, without deadlock."""

    @pytest.mark.parametrize("called", [submit_inside, submit_inside_async], ids=["sync", "async"])
    def test_tasks_submitted_inside_tasks(self, task_runner: BaseTaskRunner, called: Any) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return called.submit(3).result()

        assert example() == 3

    @pytest.mark.parametrize("called", [submit_inside, submit_inside_async], ids=["sync", "async"])
    def test_tasks_submitted_inside_tasks_with_one_worker(
        self, one_worker: BaseTaskRunner, called: Any
    ) -> None:
        @flow(task_runner=one_worker)
        def example() -> Any:
            return {"values": [future.result() for future in called.map([3, 3, 3])]}

        assert example() == {"values": [3, 3, 3]}

    def test_async_tasks_submitted_inside_tasks_in_async_flow(
        self, one_worker: BaseTaskRunner
    ) -> None:
        @flow(task_runner=one_worker)
        async def example() -> Any:
            return await submit_inside_async.submit(3)

        assert asyncio.run(example()) == 3

    def test_sync_tasks_submitted_inside_tasks_in_async_flow(
        self, one_worker: BaseTaskRunner
    ) -> None:
        @flow(task_runner=one_worker)
        async def example() -> Any:
            return await submit_inside.submit(3)

        assert asyncio.run(example()) == 3

    def test_tasks_called_inside_tasks(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return call_inside.submit(3).result()

        assert example() == 3

    def test_tasks_mapped_inside_tasks(self, one_worker: BaseTaskRunner) -> None:
        @flow(task_runner=one_worker)
        def example() -> Any:
            return {"values": map_inside.map([3, 4, 5]).result()}

        assert example() == {"values": [6, 10, 15]}

    def test_recursive_tasks(self, one_worker: BaseTaskRunner) -> None:
        @flow(task_runner=one_worker)
        def example() -> Any:
            return fibonacci.submit(5).result()

        assert example() == 5

    def test_task_may_give_the_future_of_a_child(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return give_child.submit().result()

        assert example() == 3

    def test_child_nobody_waited_for_ends_before_the_flow(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            leave_child.submit(ledger)

        example()
        assert ledger.lines() == ["child"]

    def test_children_may_depend_on_each_other(self, one_worker: BaseTaskRunner) -> None:
        @flow(task_runner=one_worker)
        def example() -> Any:
            return chain_inside.submit().result()

        assert example() == 6

    def test_failure_of_a_child_reaches_the_parent(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(ValueError, match="^from the child$"):
                fail_inside.submit().result()

        example()

    def test_failure_of_a_child_can_be_handled(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return catch_inside.submit().result()

        assert example() == "caught from the child"

    def test_submit_in_a_task_outside_a_flow_is_refused(self) -> None:
        with pytest.raises(OutsideFlowError):
            submit_inside(1)

    def test_futures_cross_engines(self, task_runner: BaseTaskRunner) -> None:
        here = add.with_options(task_runner=SequentialTaskRunner())
        there = add.with_options(task_runner=ConcurrentTaskRunner())

        @flow(task_runner=task_runner)
        def example() -> Any:
            return add.submit(there.submit(here.submit(add.submit(1, 1), 1), 1), 1).result()

        assert example() == 5

    def test_task_on_this_runner_in_a_flow_on_another(self, task_runner: BaseTaskRunner) -> None:
        placed = add.with_options(task_runner=task_runner)

        @flow(task_runner=SequentialTaskRunner())
        def example() -> Any:
            return {"values": placed.map(add.map([1, 2], 1), 1).result()}

        assert example() == {"values": [3, 4]}


class SubflowsContract:
    """Section 3: flows inside flows."""

    def test_subflow_gives_its_value(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return triple.with_options(task_runner=task_runner)(2)

        assert example() == 6

    def test_async_subflow_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return await triple_async.with_options(task_runner=task_runner)(2)

        assert asyncio.run(example()) == 6

    def test_async_subflow_in_sync_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            value: Any = triple_async.with_options(task_runner=task_runner)(2)
            return value

        assert example() == 6

    def test_sync_subflow_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return triple.with_options(task_runner=task_runner)(2)

        assert asyncio.run(example()) == 6

    def test_subflow_has_its_own_runner(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=SequentialTaskRunner())
        def inner() -> Any:
            return str(get_run_context().task_runner)

        @flow(task_runner=task_runner)
        def example() -> Any:
            before = str(get_run_context().task_runner)
            return {"names": [before, inner(), str(get_run_context().task_runner)]}

        names = example()["names"]
        assert names == [str(task_runner), "SequentialTaskRunner", str(task_runner)]

    def test_subflow_failure_is_raised(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            fail_as_flow()

        state: Any = example(return_state=True)
        assert state.message == "Flow run encountered an exception. ValueError: from the subflow"

    def test_handled_subflow_failure_does_no_harm(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(ValueError, match="from the subflow"):
                fail_as_flow()
            inner: Any = fail_as_flow(return_state=True)
            assert inner.is_failed()

        state: Any = example(return_state=True)
        assert state.is_completed()

    def test_subflow_takes_futures(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            number: Any = add.submit(1, 1)
            return triple(number)

        assert example() == 6

    def test_state_of_a_subflow_is_aggregated(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return fail_as_flow(return_state=True)

        state: Any = example(return_state=True)
        assert (state.type, state.message) == (StateType.FAILED, "1/1 states failed.")

    def test_submitted_flow_gives_a_future(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = triple.submit(2)
            assert future.name.startswith("triple")
            assert future.result() == 6
            assert future.state.is_completed()

        example()

    def test_submitted_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return await triple_async.submit(2)

        assert asyncio.run(example()) == 6

    def test_mapped_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return {"values": [future.result() for future in triple.map([1, 2, 3])]}

        assert example() == {"values": [3, 6, 9]}

    def test_submitted_flow_is_a_dependency(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add.submit(triple.submit(add.submit(1, 1)), 1).result()

        assert example() == 7

    def test_unseen_failure_of_a_submitted_flow_is_counted(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            fail_as_flow.submit()
            triple(1)
            add.submit(1, 2)

        state: Any = example(return_state=True)
        assert state.message == "1/3 task runs failed."

    def test_task_runs_of_a_subflow_are_not_counted_in_the_parent(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            triple(1)
            fail.submit()

        state: Any = example(return_state=True)
        assert state.message == "1/2 task runs failed."

    def test_recursive_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def factorial(number: int) -> int:
            if number == 0:
                return 1
            smaller: int = factorial(number - 1)
            return identity.submit(number * smaller).result()  # type: ignore[no-any-return]

        assert factorial(4) == 24

    def test_one_flow_many_times_at_once_in_threads(self, task_runner: BaseTaskRunner) -> None:
        values: dict[int, Any] = {}

        @flow(task_runner=task_runner)
        def example(number: int) -> Any:
            return {"values": [add.submit(number, other) for other in range(5)]}

        def run(number: int) -> None:
            values[number] = example(number)["values"]

        threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert values == {number: [number + other for other in range(5)] for number in range(6)}

    def test_one_flow_many_times_at_once_on_a_loop(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example(number: int) -> Any:
            first, second = add.submit(number, 0), add_async.submit(number, 1)
            return {"values": (await first, await second)}

        async def main() -> Any:
            return await asyncio.gather(*(example(number) for number in range(5)))

        expected = [{"values": (number, number + 1)} for number in range(5)]
        assert asyncio.run(main()) == expected
