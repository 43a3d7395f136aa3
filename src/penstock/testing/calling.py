"""The contract of calling: call, submit and map, in every mix of sync and async code."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from penstock import State, TaskFuture, flow, task
from penstock.errors import OutsideFlowError
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import Ledger
from penstock.testing.sample_tasks import add, add_async, fail, note


@task
def whereabouts() -> tuple[int, int]:
    """Say in which process and thread this runs."""
    return os.getpid(), threading.get_ident()


@task
async def loop_identity() -> tuple[int, int]:
    """Say in which process and on which loop this runs."""
    return os.getpid(), id(asyncio.get_running_loop())


def here() -> tuple[int, int]:
    """Give the process and thread of the caller."""
    return os.getpid(), threading.get_ident()


class CallingContract:
    """Section 4: three forms of a call, each the same on every runner."""

    # Sync tasks and async tasks, in sync flows and async flows.

    def test_sync_task_called_in_sync_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add(1, 2)

        assert example() == 3

    def test_sync_task_submitted_in_sync_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add.submit(1, 2).result()

        assert example() == 3

    def test_sync_task_mapped_in_sync_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return {"values": add.map([1, 2], [3, 4]).result()}

        assert example() == {"values": [4, 6]}

    def test_async_task_called_in_sync_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            value: Any = add_async(1, 2)
            return value

        assert example() == 3

    def test_async_task_submitted_in_sync_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add_async.submit(1, 2).result()

        assert example() == 3

    def test_async_task_mapped_in_sync_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return {"values": add_async.map([1, 2], [3, 4]).result()}

        assert example() == {"values": [4, 6]}

    def test_sync_task_called_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return add(1, 2)

        assert asyncio.run(example()) == 3

    def test_sync_task_submitted_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return await add.submit(1, 2)

        assert asyncio.run(example()) == 3

    def test_sync_task_mapped_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return {"values": [await future for future in add.map([1, 2], [3, 4])]}

        assert asyncio.run(example()) == {"values": [4, 6]}

    def test_async_task_called_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return await add_async(1, 2)

        assert asyncio.run(example()) == 3

    def test_async_task_submitted_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return await add_async.submit(1, 2)

        assert asyncio.run(example()) == 3

    def test_async_task_mapped_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return {"values": [await future for future in add_async.map([1, 2], [3, 4])]}

        assert asyncio.run(example()) == {"values": [4, 6]}

    def test_futures_await_together(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            futures = [add_async.submit(1, 1), add.submit(2, 2)]
            return {"values": await asyncio.gather(*futures)}

        assert asyncio.run(example()) == {"values": [2, 4]}

    # What the forms give.

    def test_submit_gives_a_future(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert isinstance(add.submit(1, 2), TaskFuture)
            assert isinstance(add_async.submit(1, 2), TaskFuture)

        example()

    def test_submit_in_async_flow_is_not_awaited(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            assert isinstance(add.submit(1, 2), TaskFuture)
            assert isinstance(add_async.submit(1, 2), TaskFuture)

        asyncio.run(example())

    def test_map_gives_a_list_of_futures(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures = add.map([1, 2], 3)
            assert isinstance(futures, list)
            assert all(isinstance(future, TaskFuture) for future in futures)

        example()

    def test_called_task_can_give_its_state(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            good: Any = add(1, 2, return_state=True)
            bad: Any = fail("no", return_state=True)
            assert isinstance(good, State)
            assert good.result() == 3
            assert bad.is_failed()

        example()

    def test_submitted_task_can_give_its_state(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            good: Any = add.submit(1, 2, return_state=True)
            bad: Any = fail.submit("no", return_state=True)
            assert isinstance(good, State)
            assert good.result() == 3
            assert bad.is_failed()

        example()

    def test_mapped_task_can_give_its_states(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            states: Any = add.map([1, 2], 3, return_state=True)
            assert [state.result() for state in states] == [4, 5]

        example()

    def test_async_task_can_give_its_state_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            call: Any = add_async(1, 2, return_state=True)
            state = await call
            assert isinstance(state, State)
            assert state.result() == 3

        asyncio.run(example())

    def test_flow_can_give_its_state(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add.submit(1, 2).result()

        state: Any = example(return_state=True)
        assert isinstance(state, State)
        assert state.result() == 3

    # Where code runs.

    def test_flow_body_runs_in_the_calling_thread(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return here()

        assert example() == here()

    def test_called_task_runs_in_the_caller(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert whereabouts() == here()

        example()

    def test_async_flow_runs_on_the_callers_loop(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return asyncio.get_running_loop()

        async def main() -> None:
            assert await example() is asyncio.get_running_loop()

        asyncio.run(main())

    def test_called_async_task_runs_on_the_callers_loop(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            assert await loop_identity() == (os.getpid(), id(asyncio.get_running_loop()))

        asyncio.run(example())

    def test_submitted_async_task_runs_on_the_flows_loop(
        self, task_runner: BaseTaskRunner, in_process: bool
    ) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            found = await loop_identity.submit()
            same = found == (os.getpid(), id(asyncio.get_running_loop()))
            assert same is in_process

        asyncio.run(example())

    def test_sync_flow_inside_a_running_loop(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            called: Any = add_async(1, 1)
            return {"values": (called, add.submit(1, 2).result(), add_async.submit(2, 2).result())}

        async def main() -> Any:
            return example()

        assert asyncio.run(main()) == {"values": (2, 3, 4)}

    def test_blocking_on_the_flows_loop_resolves_or_says_to_await(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            future = add_async.submit(1, 2)
            said = "await"
            try:
                future.result()
            except RuntimeError as error:
                said = str(error)
            assert "await" in said
            assert await future == 3

        asyncio.run(example())

    # Outside a flow.

    def test_task_called_outside_a_flow_runs(self) -> None:
        assert add(1, 2) == 3

    def test_submit_outside_a_flow_is_refused(self) -> None:
        with pytest.raises(OutsideFlowError) as caught:
            add.submit(1, 2)
        assert isinstance(caught.value, RuntimeError)

    def test_map_outside_a_flow_is_refused(self) -> None:
        with pytest.raises(OutsideFlowError):
            add.map([1, 2], 3)

    # Options.

    def test_runner_may_be_reassigned(self, task_runner: BaseTaskRunner) -> None:
        @flow
        def example() -> Any:
            return add.submit(1, 2).result()

        example.task_runner = task_runner
        assert example() == 3
        assert example.task_runner == task_runner

    def test_flow_keeps_the_runner_it_was_given_unstarted(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add.submit(1, 2).result()

        assert [example(), example()] == [3, 3]
        assert example.task_runner == task_runner

    def test_flow_copied_with_options_uses_the_runner(self, task_runner: BaseTaskRunner) -> None:
        @flow(name="first")
        def example() -> Any:
            return add.submit(1, 2).result()

        copy = example.with_options(task_runner=task_runner)
        assert copy() == 3
        assert copy.name == "first"
        assert copy.task_runner == task_runner

    def test_task_copied_with_options_keeps_the_others(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @task(retries=2, name="stubborn")
        def stubborn() -> None:
            ledger.add("tried")
            raise ValueError("never")

        @flow(task_runner=task_runner)
        def example() -> None:
            assert stubborn.with_options(name="other").submit().wait() is not None
            assert stubborn.with_options(retries=0).submit().wait() is not None

        example()
        assert len(ledger.lines()) == 3 + 1

    def test_leaving_the_flow_waits_for_what_was_submitted(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            for number in range(5):
                note.submit(ledger, str(number))

        example()
        assert sorted(ledger.lines()) == ["0", "1", "2", "3", "4"]

    def test_leaving_an_async_flow_waits_too(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            for number in range(3):
                note.submit(ledger, str(number))
            add_async.submit(1, 2)

        asyncio.run(example())
        assert sorted(ledger.lines()) == ["0", "1", "2"]
