"""The contract of upstreams that did not complete, and of order without data."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import StateType, allow_failure, flow, task
from penstock.errors import CancelledRun, UpstreamFailed
from penstock.states import Cancelled
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import Ledger
from penstock.testing.sample_tasks import add, add_async, fail, fail_async, identity, note, total


@task
def cancelled_by_hand() -> Any:
    """End as CANCELLED."""
    return Cancelled(message="not needed")


@task
def leave() -> Any:
    """End as CRASHED."""
    raise SystemExit(3)


def not_ready_message(key: Any) -> str:
    """Give the message of a run whose upstream did not complete."""
    return f"Upstream task run '{key}' did not reach a 'COMPLETED' state."


class UpstreamContract:
    """Section 7: what happens after an upstream that did not complete, and `wait_for`."""

    def test_downstream_of_a_failure_is_not_ready(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit()
            state = add.submit(bad, 1).wait()
            assert state is not None
            assert (state.type, state.name) == (StateType.PENDING, "NotReady")
            assert state.message == not_ready_message(bad.key)
            assert bad.exception() is not None

        example()

    def test_downstream_of_a_failure_is_never_called(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit()
            note.submit(ledger, "called", after=bad).wait()
            note.submit(ledger, "called", after=[{"deep": bad}]).wait()
            assert bad.exception() is not None

        example()
        assert ledger.lines() == []

    def test_result_of_a_run_that_is_not_ready(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit("the root")
            with pytest.raises(UpstreamFailed) as caught:
                add.submit(bad, 1).result()
            assert str(bad.key) in str(caught.value)
            assert isinstance(caught.value.__cause__, ValueError)
            assert bad.exception() is not None

        example()

    def test_called_task_after_a_failure(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit("the root")
            with pytest.raises(UpstreamFailed):
                add(bad, 1)
            state: Any = add(bad, 1, return_state=True)
            assert state.name == "NotReady"
            assert bad.exception() is not None

        example()

    def test_chain_after_a_failure(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit("the root")
            second = add.submit(bad, 1)
            third = add_async.submit(second, 1)
            state = third.wait()
            assert state is not None
            assert state.message == not_ready_message(second.key)
            with pytest.raises(UpstreamFailed) as caught:
                third.result()
            causes = []
            cause: BaseException | None = caught.value
            while cause is not None:
                causes.append(cause)
                cause = cause.__cause__
            assert str(causes[-1]) == "the root"
            assert bad.exception() is not None

        example()

    def test_fan_in_with_one_failure(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures: list[Any] = [identity.submit(number) for number in range(20)]
            bad = fail.submit()
            futures.insert(10, bad)
            state = total.submit(futures).wait()
            assert state is not None
            assert state.message == not_ready_message(bad.key)
            assert bad.exception() is not None

        example()

    def test_downstream_of_a_crash_is_not_ready(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = leave.submit()
            state = add.submit(bad, 1).wait()
            assert state is not None
            assert state.message == not_ready_message(bad.key)
            assert bad.state.is_crashed()

        example()

    def test_downstream_of_a_cancelled_run_is_not_ready(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = cancelled_by_hand.submit()
            state = add.submit(bad, 1).wait()
            assert state is not None
            assert state.message == not_ready_message(bad.key)

        example()

    def test_failed_state_as_argument(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad: Any = fail_async.submit(return_state=True)
            state = add.submit(bad, 1).wait()
            assert state is not None
            assert state.name == "NotReady"

        example()

    def test_independent_runs_go_on(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit()
            add.submit(bad, 1)
            assert add.submit(1, 2).result() == 3
            assert bad.exception() is not None

        example()

    # allow_failure

    def test_allowed_failure_arrives_as_the_exception(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            value: Any = identity.submit(allow_failure(fail.submit("let in"))).result()
            assert isinstance(value, ValueError)
            assert str(value) == "let in"

        example()

    def test_allowed_success_arrives_as_the_value(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return identity.submit(allow_failure(add.submit(1, 2))).result()

        assert example() == 3

    def test_allowed_list_mixes_both(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures: Any = [add.submit(1, 2), fail.submit("let in")]
            value: Any = identity.submit(allow_failure(futures)).result()
            assert value[0] == 3
            assert isinstance(value[1], ValueError)

        example()

    def test_allowed_crash_arrives_as_an_exception(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            value: Any = identity.submit(allow_failure(leave.submit())).result()
            assert isinstance(value, BaseException)

        example()

    def test_allowed_cancellation_arrives_as_an_exception(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            value: Any = identity.submit(allow_failure(cancelled_by_hand.submit())).result()
            assert isinstance(value, CancelledRun)

        example()

    def test_allowed_run_that_is_not_ready_arrives_as_an_exception(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit()
            value: Any = identity.submit(allow_failure(add.submit(bad, 1))).result()
            assert isinstance(value, UpstreamFailed)
            assert bad.exception() is not None

        example()

    def test_allowing_one_does_not_allow_another(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            first, second = fail.submit("allowed"), fail.submit("not allowed")
            state = add.submit(allow_failure(first), second).wait()
            assert state is not None
            assert state.message == not_ready_message(second.key)
            assert [type(bad.exception()) for bad in (first, second)] == [ValueError] * 2

        example()

    # wait_for

    def test_wait_for_orders(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            first: Any = None
            for number in range(10):
                upstream = [] if first is None else [first]
                first = note.submit(ledger, str(number), wait_for=upstream)

        example()
        assert ledger.lines() == [str(number) for number in range(10)]

    def test_wait_for_a_failure_is_not_ready(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit()
            state = note.submit(ledger, "called", wait_for=[add.submit(1, 2), bad]).wait()
            assert state is not None
            assert state.message == not_ready_message(bad.key)
            assert bad.exception() is not None

        example()
        assert ledger.lines() == []

    def test_wait_for_an_allowed_failure(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit()
            note.submit(ledger, "called", wait_for=[allow_failure(bad)]).result()
            assert bad.exception() is not None

        example()
        assert ledger.lines() == ["called"]

    def test_wait_for_with_a_called_task(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            first = note.submit(ledger, "first")
            note(ledger, "second", wait_for=[first])

        example()
        assert ledger.lines() == ["first", "second"]

    def test_wait_for_with_map(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            first = note.submit(ledger, "first")
            note.map(ledger, ["second", "second"], wait_for=[first])

        example()
        assert ledger.lines() == ["first", "second", "second"]
