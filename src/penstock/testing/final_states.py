"""The contract of a flow run's final state: rules 1 to 5 of section 3."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import State, StateType, TaskFuture, allow_failure, as_completed, flow, quote, task
from penstock import wait as wait_for_futures
from penstock.errors import CancelledRun, FailedRun, UpstreamFailed
from penstock.states import Cancelled, Completed, Failed
from penstock.task_runners import BaseTaskRunner
from penstock.testing.fixtures import RecordList
from penstock.testing.sample_tasks import add, fail, identity


@task
def cancelled_by_hand() -> Any:
    """End as CANCELLED."""
    return Cancelled(message="not needed")


@task
def leave() -> Any:
    """End as CRASHED."""
    raise SystemExit(3)


def state_of(runner: BaseTaskRunner, body: Any) -> State:
    """Run a function as a flow and give its final state."""
    state: Any = flow(name="example", task_runner=runner)(body)(return_state=True)
    assert isinstance(state, State)
    return state


def result_of(runner: BaseTaskRunner, body: Any) -> Any:
    """Run a function as a flow and give its result."""
    return flow(name="example", task_runner=runner)(body)()


class RaisedContract:
    """Rules 1 and 2: exceptions, and states made by the user."""

    def test_exception_fails_the_flow(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            raise ValueError("text")

        state = state_of(task_runner, body)
        assert state.type is StateType.FAILED
        assert state.message == "Flow run encountered an exception. ValueError: text"

    def test_exception_is_raised_as_it_was(self, task_runner: BaseTaskRunner) -> None:
        original = ValueError("text")

        def body() -> None:
            raise original

        with pytest.raises(ValueError, match="^text$") as caught:
            result_of(task_runner, body)
        assert caught.value is original

    def test_failure_of_a_task_that_is_raised_fails_the_flow(
        self, task_runner: BaseTaskRunner
    ) -> None:
        state = state_of(task_runner, lambda: fail.submit("text").result())
        assert state.message == "Flow run encountered an exception. ValueError: text"

    def test_interrupt_is_raised_again(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            state_of(task_runner, body)

    def test_exit_is_raised_again(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            raise SystemExit(3)

        with pytest.raises(SystemExit) as caught:
            result_of(task_runner, body)
        assert caught.value.code == 3

    def test_state_made_by_the_user_is_used(self, task_runner: BaseTaskRunner) -> None:
        state = state_of(task_runner, lambda: Completed(message="by hand", data=4))
        assert (state.type, state.message) == (StateType.COMPLETED, "by hand")
        assert result_of(task_runner, lambda: Completed(data=4)) == 4

    def test_failed_state_made_by_the_user_is_used(self, task_runner: BaseTaskRunner) -> None:
        state = state_of(task_runner, lambda: Failed(message="by hand"))
        assert (state.type, state.message) == (StateType.FAILED, "by hand")
        with pytest.raises(FailedRun, match="by hand"):
            result_of(task_runner, lambda: Failed(message="by hand"))

    def test_completed_state_overrules_failures(self, task_runner: BaseTaskRunner) -> None:
        def body() -> State:
            fail.submit()
            return Completed(message="good enough")

        assert state_of(task_runner, body).message == "good enough"


class AggregatedContract:
    """Rule 3: a future or state, or a collection of them."""

    def test_future_alone(self, task_runner: BaseTaskRunner) -> None:
        state = state_of(task_runner, lambda: add.submit(1, 2))
        assert state.type is StateType.COMPLETED
        assert state.message == "All states completed."
        assert result_of(task_runner, lambda: add.submit(1, 2)) == 3

    def test_failed_future_alone(self, task_runner: BaseTaskRunner) -> None:
        state = state_of(task_runner, lambda: fail.submit("text"))
        assert (state.type, state.message) == (StateType.FAILED, "1/1 states failed.")
        with pytest.raises(ValueError, match="^text$"):
            result_of(task_runner, lambda: fail.submit("text"))

    def test_state_of_a_run_alone(self, task_runner: BaseTaskRunner) -> None:
        state = state_of(task_runner, lambda: fail.submit("text").wait())
        assert (state.type, state.message) == (StateType.FAILED, "1/1 states failed.")
        assert result_of(task_runner, lambda: add.submit(1, 2).wait()) == 3

    def test_list_of_futures(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            return [add.submit(1, 2), add.submit(3, 4)]

        assert state_of(task_runner, body).message == "All states completed."
        assert result_of(task_runner, body) == [3, 7]

    def test_tuple_of_futures(self, task_runner: BaseTaskRunner) -> None:
        value = result_of(task_runner, lambda: (add.submit(1, 2), add.submit(3, 4)))
        assert value == (3, 7)
        assert type(value) is tuple

    def test_set_of_futures(self, task_runner: BaseTaskRunner) -> None:
        assert result_of(task_runner, lambda: {add.submit(1, 2), add.submit(3, 4)}) == {3, 7}

    def test_futures_and_states_mixed(self, task_runner: BaseTaskRunner) -> None:
        value = result_of(task_runner, lambda: [add.submit(1, 2), Completed(data=5)])
        assert value == [3, 5]

    def test_mapped_futures(self, task_runner: BaseTaskRunner) -> None:
        assert result_of(task_runner, lambda: add.map([1, 2, 3], 1)) == [2, 3, 4]

    def test_some_failed(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            return [fail.submit("first"), add.submit(1, 2), fail.submit("second")]

        state = state_of(task_runner, body)
        assert (state.type, state.message) == (StateType.FAILED, "2/3 states failed.")
        with pytest.raises(ValueError, match="^first$"):
            result_of(task_runner, body)

    def test_first_failure_is_first_in_the_collection(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            first, second = fail.submit("submitted first"), fail.submit("returned first")
            first.wait()
            return [second, first]

        with pytest.raises(ValueError, match="^returned first$"):
            result_of(task_runner, body)

    def test_crash_counts_as_failed(self, task_runner: BaseTaskRunner) -> None:
        state = state_of(task_runner, lambda: [leave.submit(), add.submit(1, 2)])
        assert (state.type, state.message) == (StateType.FAILED, "1/2 states failed.")

    def test_some_cancelled(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            return [add.submit(1, 2), cancelled_by_hand.submit(), fail.submit()]

        state = state_of(task_runner, body)
        assert (state.type, state.message) == (StateType.CANCELLED, "1/3 states cancelled.")

    def test_cancelled_alone_raises_cancelled_run(self, task_runner: BaseTaskRunner) -> None:
        with pytest.raises(CancelledRun):
            result_of(task_runner, lambda: [add.submit(1, 2), cancelled_by_hand.submit()])

    def test_some_not_final(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            bad = fail.submit("the root")
            return [add.submit(bad, 1), add.submit(1, 2), add.submit(bad, 2)]

        state = state_of(task_runner, body)
        assert (state.type, state.message) == (StateType.FAILED, "2/3 states are not final.")
        with pytest.raises(UpstreamFailed):
            result_of(task_runner, body)

    def test_failed_goes_before_not_final(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            bad = fail.submit()
            return [bad, add.submit(bad, 1), add.submit(1, 2)]

        assert state_of(task_runner, body).message == "1/3 states failed."

    def test_result_of_a_failure_is_the_collection_of_states(
        self, task_runner: BaseTaskRunner
    ) -> None:
        state = state_of(task_runner, lambda: (fail.submit(), add.submit(1, 2)))
        states = state.result(raise_on_failure=False)
        assert [member.type for member in states] == [StateType.FAILED, StateType.COMPLETED]
        assert states[1].result() == 3


class UnseenFailuresContract:
    """Rule 4: a flow that gives None is judged by the failures that nobody looked at."""

    def test_nothing_at_all_completes(self, task_runner: BaseTaskRunner) -> None:
        state = state_of(task_runner, lambda: None)
        assert state.type is StateType.COMPLETED
        assert state.result() is None

    def test_all_completed(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            add.submit(1, 2)
            add(3, 4)

        assert state_of(task_runner, body).is_completed()

    def test_unseen_failure_fails_the_flow(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            add.map([1, 2, 3], 1)
            fail.submit("unseen")
            fail.submit("unseen")

        state = state_of(task_runner, body)
        assert (state.type, state.message) == (StateType.FAILED, "2/5 task runs failed.")
        with pytest.raises(ValueError, match="^unseen$"):
            result_of(task_runner, body)

    def test_run_that_is_not_ready_is_no_failure_of_its_own(
        self, task_runner: BaseTaskRunner
    ) -> None:
        def body() -> None:
            add.submit(add.submit(fail.submit(), 1), 1)

        assert state_of(task_runner, body).message == "1/3 task runs failed."

    def test_module_level_wait_does_not_look(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            wait_for_futures([fail.submit()])

        assert state_of(task_runner, body).message == "1/1 task runs failed."

    def test_as_completed_does_not_look(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            for _ in as_completed([fail.submit()]):
                pass

        assert state_of(task_runner, body).message == "1/1 task runs failed."

    def test_done_callback_does_not_look(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            fail.submit().add_done_callback(lambda future: None)

        assert state_of(task_runner, body).message == "1/1 task runs failed."

    def test_only_the_unseen_ones_are_counted(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            assert fail.submit("seen").exception() is not None
            fail.submit("unseen")
            add.submit(1, 2)

        state = state_of(task_runner, body)
        assert state.message == "1/3 task runs failed."
        with pytest.raises(ValueError, match="^unseen$"):
            state.result()

    @pytest.mark.parametrize(
        "look",
        [
            lambda: fail(return_state=True),
            lambda: fail.submit(return_state=True),
            lambda: fail.submit().wait(),
            lambda: fail.submit().exception(),
            lambda: fail.submit().result(raise_on_failure=False),
            lambda: identity.submit(allow_failure(fail.submit())),
        ],
        ids=[
            "called for its state",
            "submitted for its state",
            "wait",
            "exception",
            "result without raising",
            "allow_failure",
        ],
    )
    def test_failure_that_was_looked_at(self, task_runner: BaseTaskRunner, look: Any) -> None:
        def body() -> None:
            look()

        assert state_of(task_runner, body).is_completed()

    @pytest.mark.parametrize(
        "handle",
        [lambda: fail(), lambda: fail.submit().result(), lambda: fail.map(["a"]).result()],
        ids=["called", "submitted", "mapped"],
    )
    def test_failure_that_was_handled(self, task_runner: BaseTaskRunner, handle: Any) -> None:
        def body() -> None:
            with pytest.raises(ValueError, match="boom|a"):
                handle()

        assert state_of(task_runner, body).is_completed()

    def test_awaited_failure_was_looked_at(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            with pytest.raises(ValueError, match="^boom$"):
                await fail.submit()

        state: Any = asyncio.run(example(return_state=True))
        assert state.is_completed()

    def test_state_that_was_read_was_looked_at(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            future = fail.submit()
            wait_for_futures([future])
            assert future.state.is_failed()

        assert state_of(task_runner, body).is_completed()

    def test_unseen_cancellation_is_no_failure(self, task_runner: BaseTaskRunner) -> None:
        def body() -> None:
            cancelled_by_hand.submit()
            fail.submit()

        assert state_of(task_runner, body).message == "1/2 task runs failed."


class ReturnedDataContract:
    """Rule 5: everything else is data."""

    def test_value_is_the_result(self, task_runner: BaseTaskRunner) -> None:
        for value in (0, "", [], {}, [1, 2], "text", {"a": 1}, ValueError("kept")):
            assert result_of(task_runner, lambda value=value: value) == value

    def test_generator_becomes_a_list(self, task_runner: BaseTaskRunner) -> None:
        assert result_of(task_runner, lambda: (number for number in range(3))) == [0, 1, 2]

    def test_dict_of_futures_is_data(self, task_runner: BaseTaskRunner) -> None:
        value = result_of(task_runner, lambda: {"a": add.submit(1, 2), "b": [add.submit(3, 4)]})
        assert value == {"a": 3, "b": [7]}

    def test_mixed_list_is_data(self, task_runner: BaseTaskRunner) -> None:
        assert result_of(task_runner, lambda: [add.submit(1, 2), "text"]) == [3, "text"]

    def test_no_future_is_left_in_the_result(self, task_runner: BaseTaskRunner) -> None:
        value = result_of(task_runner, lambda: {"a": (add.submit(1, 2), 1)})
        assert not isinstance(value["a"][0], TaskFuture)

    def test_failed_future_in_data_fails_the_flow(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            return {"a": fail.submit("inside"), "b": 1}

        assert state_of(task_runner, body).type is StateType.FAILED
        with pytest.raises(ValueError, match="^inside$"):
            result_of(task_runner, body)

    def test_states_in_data_stay_states(self, task_runner: BaseTaskRunner) -> None:
        value = result_of(task_runner, lambda: {"a": fail.submit("inside").wait()})
        assert isinstance(value["a"], State)
        assert value["a"].is_failed()

    def test_data_overrules_unseen_failures_with_one_warning(
        self, task_runner: BaseTaskRunner, records: RecordList
    ) -> None:
        def body() -> Any:
            fail.submit()
            fail.submit()
            return "data"

        assert result_of(task_runner, body) == "data"
        warnings = [record for record in records.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert "fail-0" in warnings[0].getMessage()
        assert "fail-1" in warnings[0].getMessage()

    def test_quoted_value_is_given_as_it_is(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            bad = fail.submit()
            return quote([bad, Failed(message="just data")])

        value = result_of(task_runner, body)
        assert isinstance(value, quote)
        future, state = value.unquote()
        assert isinstance(future, TaskFuture)
        assert state.message == "just data"

    def test_quoted_none_is_data(self, task_runner: BaseTaskRunner) -> None:
        def body() -> Any:
            fail.submit()
            return quote(None)

        assert state_of(task_runner, body).is_completed()
