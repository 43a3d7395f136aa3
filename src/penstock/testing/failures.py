"""The contract of failures: what a task body raises, and what becomes of it."""

from __future__ import annotations

import asyncio
import threading
import traceback
from typing import Any

import pytest

from penstock import StateType, flow, task
from penstock.errors import CrashedRun, RemoteTaskError
from penstock.task_runners import BaseTaskRunner
from penstock.testing.fixtures import interrupts_fail
from penstock.testing.ledger import Ledger
from penstock.testing.sample_tasks import add, fail, fail_async


class Demanding(Exception):
    """An exception whose constructor takes more than a text."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"code {code}: {reason}")
        self.code = code
        self.reason = reason


class Locked(Exception):
    """An exception that holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Unspeakable(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@task
def raise_demanding() -> None:
    """Raise an exception that needs arguments."""
    raise Demanding(7, reason="because")


@task
def raise_locked() -> None:
    """Raise an exception that cannot be pickled."""
    raise Locked("held")


@task
def raise_unspeakable() -> None:
    """Raise an exception without a text."""
    raise Unspeakable


@task
def raise_chained() -> None:
    """Raise an exception with a cause."""
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise ValueError("the effect") from error


@task
def raise_noted() -> None:
    """Raise an exception with a note."""
    error = ValueError("noted")
    error.add_note("look here")
    raise error


@task
def raise_group() -> None:
    """Raise several exceptions at once."""
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


@task
def raise_circular() -> None:
    """Raise an exception whose causes go round in a circle."""
    first, second = ValueError("first"), KeyError("second")
    second.__cause__ = first
    first.__cause__ = second
    raise first


@task
def raise_stop_iteration() -> None:
    """Raise what would end a generator."""
    raise StopIteration("done")


@task
def recurse_for_ever(depth: int = 0) -> int:
    """Call without end."""

    def deeper(level: int) -> int:
        return deeper(level + 1) + 1

    return deeper(depth)


@task
def interrupted_by(kind: str) -> None:
    """Raise what is no Exception."""
    raise interruption(kind)


@task
async def interrupted_by_async(kind: str) -> None:
    """Raise what is no Exception, in a coroutine."""
    raise interruption(kind)


def interruption(kind: str) -> BaseException:
    """Make an exception that is no Exception."""
    made: dict[str, BaseException] = {
        "KeyboardInterrupt": KeyboardInterrupt(),
        "SystemExit": SystemExit(3),
        "CancelledError": asyncio.CancelledError(),
        "GeneratorExit": GeneratorExit("bye"),
    }
    return made[kind]


INTERRUPTIONS = [
    ("KeyboardInterrupt", "Execution was aborted by an interrupt signal."),
    ("SystemExit", "Execution was aborted by Python system exit call."),
    ("CancelledError", "Execution was cancelled by the runtime environment."),
    (
        "GeneratorExit",
        "Execution was interrupted by an unexpected exception: GeneratorExit: bye",
    ),
]


def raised_by(runner: BaseTaskRunner, called: Any) -> BaseException:
    """Submit a task in a flow and give what its result raises."""

    @flow(task_runner=runner)
    def example() -> Any:
        with pytest.raises(BaseException) as caught:
            called.submit().result()
        return {"raised": caught.value}

    raised: BaseException = example()["raised"]
    return raised


class FailuresContract:
    """Section 8, last part, and section 13: exceptions survive the way back."""

    def test_type_and_text_survive(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, fail)
        assert type(raised) is ValueError
        assert raised.args == ("boom",)

    def test_async_failure_survives(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, fail_async)
        assert type(raised) is ValueError
        assert raised.args == ("boom",)

    def test_traceback_names_the_users_function(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, raise_demanding)
        assert "raise_demanding" in "".join(traceback.format_exception(raised))

    def test_cause_survives(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, raise_chained)
        assert str(raised) == "the effect"
        assert isinstance(raised.__cause__, KeyError)
        assert raised.__cause__.args == ("the cause",)

    def test_notes_survive(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, raise_noted)
        assert "look here" in getattr(raised, "__notes__", [])

    def test_exception_group_survives(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, raise_group)
        assert isinstance(raised, ExceptionGroup)
        assert [type(member) for member in raised.exceptions] == [ValueError, KeyError]

    def test_circle_of_causes_does_no_harm(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, raise_circular)
        assert "first" in str(raised)

    def test_exception_with_a_demanding_constructor(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, raise_demanding)
        if not isinstance(raised, Demanding):
            assert isinstance(raised, RemoteTaskError)
            assert "Demanding" in str(raised)
        assert "code 7: because" in str(raised)

    def test_exception_that_cannot_be_pickled(self, task_runner: BaseTaskRunner) -> None:
        raised = raised_by(task_runner, raise_locked)
        if not isinstance(raised, Locked):
            assert isinstance(raised, RemoteTaskError)
            assert "Locked" in str(raised)
            assert "raise_locked" in str(raised)
        assert "held" in str(raised)

    def test_exception_without_a_text(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            state = raise_unspeakable.submit().wait()
            assert state is not None
            assert state.type is StateType.FAILED
            assert "Unspeakable" in (state.message or "")

        example()

    def test_stop_iteration_is_a_failure(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            state = raise_stop_iteration.submit().wait()
            assert state is not None
            assert state.type is StateType.FAILED
            assert state.message == "Task run encountered an exception. StopIteration: done"

        example()

    def test_endless_recursion_is_a_failure(self, task_runner: BaseTaskRunner) -> None:
        assert isinstance(raised_by(task_runner, recurse_for_ever), RecursionError)

    def test_called_task_raises_the_original(self, task_runner: BaseTaskRunner) -> None:
        original = ValueError("the very one")

        @task
        def raise_original() -> None:
            raise original

        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(ValueError, match="the very one") as caught:
                raise_original()
            assert caught.value is original

        example()

    def test_failure_leaves_others_alone(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            first, bad, second = add.submit(1, 1), fail.submit(), add.submit(2, 2)
            assert (first.result(), second.result()) == (2, 4)
            assert bad.exception() is not None

        example()

    def test_failure_can_be_asked_twice(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = fail.submit("again")
            for _ in range(2):
                with pytest.raises(ValueError, match="^again$"):
                    future.result()

        example()


class CrashesContract:
    """Section 13: what is no Exception crashes its own task run and nothing else."""

    @pytest.mark.parametrize(("kind", "message"), INTERRUPTIONS)
    @interrupts_fail()
    def test_sync_task_crashes(self, task_runner: BaseTaskRunner, kind: str, message: str) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            state = interrupted_by.submit(kind).wait()
            assert state is not None
            assert state.type is StateType.CRASHED
            assert state.message == message
            return add.submit(1, 2).result()

        assert example() == 3

    @pytest.mark.parametrize(("kind", "message"), INTERRUPTIONS)
    @interrupts_fail()
    def test_async_task_crashes(self, task_runner: BaseTaskRunner, kind: str, message: str) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            state = interrupted_by_async.submit(kind).wait()
            assert state is not None
            assert state.type is StateType.CRASHED
            assert state.message == message
            return add.submit(1, 2).result()

        assert example() == 3

    @pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit", "GeneratorExit"])
    @interrupts_fail()
    def test_async_flow_is_not_interrupted(self, task_runner: BaseTaskRunner, kind: str) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            for called in (interrupted_by, interrupted_by_async):
                with pytest.raises(CrashedRun):
                    await called.submit(kind)
            return await add.submit(1, 2)

        assert asyncio.run(example()) == 3

    @pytest.mark.parametrize(("kind", "message"), INTERRUPTIONS)
    @interrupts_fail()
    def test_result_raises_crashed_run(
        self, task_runner: BaseTaskRunner, kind: str, message: str
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(CrashedRun) as caught:
                interrupted_by.submit(kind).result()
            assert message in str(caught.value)
            assert type(caught.value.__cause__).__name__ == kind

        example()

    @interrupts_fail()
    def test_state_holds_the_original(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            state = interrupted_by.submit("SystemExit").wait()
            assert state is not None
            kept = state.result(raise_on_failure=False)
            assert isinstance(kept, SystemExit)
            assert kept.code == 3

        example()

    @pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit", "GeneratorExit"])
    @interrupts_fail()
    def test_called_task_raises_the_interruption(
        self, task_runner: BaseTaskRunner, kind: str
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            with pytest.raises(BaseException) as caught:
                interrupted_by(kind)
            assert type(caught.value).__name__ == kind
            return add(1, 2)

        assert example() == 3

    @interrupts_fail()
    def test_crash_is_not_retried(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @task(retries=3, worker_loss_retries=3)
        def leave() -> None:
            ledger.add("called")
            raise SystemExit(1)

        @flow(task_runner=task_runner)
        def example() -> None:
            state = leave.submit().wait()
            assert state is not None
            assert state.is_crashed()

        example()
        assert ledger.lines() == ["called"]

    @interrupts_fail()
    def test_crash_leaves_others_alone(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            futures = [add.submit(1, number) for number in range(3)]
            bad = interrupted_by.submit("SystemExit")
            futures += [add.submit(1, number) for number in range(3)]
            assert [future.result() for future in futures] == [1, 2, 3] * 2
            state = bad.wait()
            assert state is not None
            assert state.is_crashed()

        example()

    @interrupts_fail()
    def test_unseen_crash_fails_the_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            interrupted_by.submit("SystemExit")
            add.submit(1, 2)

        state: Any = example(return_state=True)
        assert (state.type, state.message) == (StateType.FAILED, "1/2 task runs failed.")
        with pytest.raises(CrashedRun):
            example()
