"""The contract of retries: how many, when, and what they cost."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from penstock import StateType, flow, get_run_context, task
from penstock.states import Failed
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import DEADLINE, Ledger
from penstock.testing.sample_tasks import add, note


@task
def fail_until(ledger: Ledger, attempts: int) -> int:
    """Fail until it was tried so many times; give the number of the attempt."""
    ledger.add("tried")
    tried = len(ledger.lines())
    if tried < attempts:
        raise ValueError(f"attempt {tried}")
    return tried


@task
async def fail_until_async(ledger: Ledger, attempts: int) -> int:
    """Do as `fail_until` does, in a coroutine."""
    ledger.add("tried")
    tried = len(ledger.lines())
    if tried < attempts:
        raise ValueError(f"attempt {tried}")
    return tried


@task
def record_attempt(ledger: Ledger) -> None:
    """Write the number and the state name of the attempt; fail twice."""
    run: Any = get_run_context().task_run
    ledger.add(f"{run.attempt} {run.state.name}")
    if run.attempt < 3:
        raise ValueError("again")


@task
def record_time(ledger: Ledger) -> None:
    """Write the time of the attempt, and fail."""
    ledger.add(repr(time.time()))
    raise ValueError("again")


def gaps(ledger: Ledger) -> list[float]:
    """Give the seconds between the times in a ledger."""
    times = [float(line) for line in ledger.lines()]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


class RetriesContract:
    """Section 9, on retries."""

    def test_no_retries_by_default(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert fail_until.submit(ledger, 2).exception() is not None

        example()
        assert ledger.lines() == ["tried"]

    def test_retry_until_success(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = fail_until.with_options(retries=5).submit(ledger, 3)
            assert future.result() == 3
            assert future.state.is_completed()
            assert future.task_run.attempt == 3

        example()
        assert len(ledger.lines()) == 3

    def test_retries_run_out(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(ValueError, match="^attempt 3$"):
                fail_until.with_options(retries=2).submit(ledger, 99).result()

        example()
        assert len(ledger.lines()) == 3

    def test_async_task_is_retried(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return fail_until_async.with_options(retries=2).submit(ledger, 3).result()

        assert example() == 3

    def test_called_task_is_retried(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return fail_until.with_options(retries=2)(ledger, 3)

        assert example() == 3

    def test_attempts_are_numbered_and_named(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            record_attempt.with_options(retries=2).submit(ledger).result()

        example()
        assert ledger.lines() == ["1 Running", "2 Retrying", "3 Retrying"]

    def test_delay_is_kept(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            patient = record_time.with_options(retries=1, retry_delay_seconds=0.15)
            assert patient.submit(ledger).exception() is not None

        example()
        (gap,) = gaps(ledger)
        assert 0.14 <= gap < DEADLINE

    def test_list_of_delays_is_clamped_to_its_last(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            patient = record_time.with_options(retries=3, retry_delay_seconds=[0, 0.12])
            assert patient.submit(ledger).exception() is not None

        example()
        first, second, third = gaps(ledger)
        assert first < second + third
        assert second >= 0.11
        assert third >= 0.11

    def test_condition_decides(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        def condition(task: Any, task_run: Any, state: Any) -> bool:
            return "attempt 1" in state.message

        @flow(task_runner=task_runner)
        def example() -> None:
            choosy = fail_until.with_options(retries=9, retry_condition_fn=condition)
            with pytest.raises(ValueError, match="^attempt 2$"):
                choosy.submit(ledger, 99).result()

        example()
        assert len(ledger.lines()) == 2

    def test_condition_is_told_task_run_and_state(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        def condition(task: Any, task_run: Any, state: Any) -> bool:
            ledger.add(f"{task.name} {task_run.name} {task_run.attempt} {state.type}")
            return False

        @task(retries=1, retry_condition_fn=condition)
        def choosy() -> None:
            raise ValueError("no")

        @flow(task_runner=task_runner)
        def example() -> None:
            assert choosy.submit().exception() is not None

        example()
        assert ledger.lines() == ["choosy choosy-0 1 FAILED"]

    def test_last_attempt_decides_for_the_downstream(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add.submit(fail_until.with_options(retries=2).submit(ledger, 2), 10).result()

        assert example() == 12

    def test_failed_state_made_by_the_user_is_retried(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @task(retries=1)
        def made() -> Any:
            ledger.add("tried")
            return Failed(message="by hand")

        @flow(task_runner=task_runner)
        def example() -> None:
            assert made.submit().exception() is not None

        example()
        assert len(ledger.lines()) == 2

    def test_waiting_retry_holds_no_slot(
        self, one_worker: BaseTaskRunner, deferred: bool, ledger: Ledger
    ) -> None:
        @flow(task_runner=one_worker)
        def example() -> None:
            patient = record_time.with_options(retries=1, retry_delay_seconds=0.5)
            failing = patient.submit(ledger)
            other = note.submit(ledger, "0")
            assert other.result() == "0"
            assert failing.done() is not deferred
            assert failing.exception() is not None

        example()
        assert (ledger.lines().index("0") < 2) is deferred

    def test_waiting_retry_shows_its_state(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            patient = fail_until.with_options(retries=1, retry_delay_seconds=0.4)
            future = patient.submit(ledger, 2)
            seen = set()
            while not future.done():
                future.wait(timeout=0.01)
                seen.add((future.state.type, future.state.name))
            assert ((StateType.SCHEDULED, "AwaitingRetry") in seen) is deferred
            assert future.result() == 2

        example()

    def test_many_retries_at_once(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            patient = record_time.with_options(retries=1, retry_delay_seconds=0.01)
            for future in [patient.submit(ledger) for _ in range(20)]:
                assert future.exception() is not None

        example()
        assert len(ledger.lines()) == 40

    def test_negative_delay_is_refused(self) -> None:
        with pytest.raises(ValueError, match="-1"):
            task(name="wrong", retries=1, retry_delay_seconds=-1)(lambda: None)

    def test_more_than_fifty_delays_are_refused(self) -> None:
        with pytest.raises(ValueError, match="50"):
            task(name="wrong", retries=60, retry_delay_seconds=[1.0] * 51)(lambda: None)

    # Flow retries.

    def test_flow_is_retried(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner, retries=2)
        def example() -> Any:
            ledger.add("tried")
            if len(ledger.lines()) < 3:
                raise ValueError("again")
            return "done"

        assert example() == "done"
        assert len(ledger.lines()) == 3

    def test_flow_retry_keeps_completed_task_runs(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        attempts: list[int] = []

        @flow(task_runner=task_runner, retries=1)
        def example() -> Any:
            attempts.append(1)
            value = note.submit(ledger, "once").result()
            if len(attempts) == 1:
                raise ValueError("again")
            return value

        assert example() == "once"
        assert len(attempts) == 2
        assert ledger.lines() == ["once"]

    def test_flow_retry_runs_failed_task_runs_again(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner, retries=1)
        def example() -> Any:
            return fail_until.submit(ledger, 2).result()

        assert example() == 2
        assert len(ledger.lines()) == 2
