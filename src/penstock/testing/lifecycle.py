"""The contract of the runner itself: start, submit, wait, duplicate, compare, serialise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from penstock import State, StateType
from penstock.states import Cancelled, Completed, Failed
from penstock.task_runners import BaseTaskRunner, TaskConcurrencyType
from penstock.testing.fixtures import interrupts_fail
from penstock.testing.ledger import Gate, Ledger, wait_until_async

Call = Callable[[], Awaitable[State]]

PATIENCE = 3.0
"""Seconds after which a call that is never let through gives up: long enough for any engine."""


class UnlikeAnyOther(BaseTaskRunner):
    """A runner that equals none but its own kind."""

    concurrency_type = TaskConcurrencyType.SEQUENTIAL

    async def submit(self, key: UUID, call: Call) -> None:
        raise NotImplementedError

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        raise NotImplementedError


async def run_call(runner: BaseTaskRunner, call: Call) -> State:
    """Start a runner, run one call on it, and give what `wait` gave."""
    async with runner.start():
        key = uuid4()
        await runner.submit(key, call)
        state = await runner.wait(key)
    assert state is not None
    return state


def returning(value: Any) -> Call:
    """Give a call that completes with a value."""

    async def call() -> State:
        return Completed(data=value)

    return call


def raising(exception: BaseException) -> Call:
    """Give a call that raises."""

    async def call() -> State:
        raise exception

    return call


def waiting(gate: Gate, ledger: Ledger) -> Call:
    """Give a call that completes once the gate is open, and says so."""

    async def call() -> State:
        ledger.add("started")
        await gate.wait_async(PATIENCE)
        ledger.add("ended")
        return Completed(data="waited")

    return call


class LifecycleContract:
    """Section 8: what every runner does when it is used by hand, without any flow."""

    def test_concurrency_type_is_declared(self, task_runner: BaseTaskRunner) -> None:
        assert isinstance(task_runner.concurrency_type, TaskConcurrencyType)

    def test_concurrency_type_is_a_string(self, task_runner: BaseTaskRunner) -> None:
        assert isinstance(task_runner.concurrency_type, str)

    def test_name_is_the_class_name_without_task_runner(self, task_runner: BaseTaskRunner) -> None:
        assert task_runner.name == type(task_runner).__name__.lower().replace("taskrunner", "")

    def test_logger_carries_the_name(self, task_runner: BaseTaskRunner) -> None:
        assert task_runner.logger.name == f"penstock.task_runner.{task_runner.name}"

    def test_str_is_the_class_name(self, task_runner: BaseTaskRunner) -> None:
        assert str(task_runner) == type(task_runner).__name__

    def test_start_gives_the_runner(self, task_runner: BaseTaskRunner) -> None:
        async def main() -> None:
            async with task_runner.start() as started:
                assert started is task_runner

        asyncio.run(main())

    def test_start_twice_is_refused(self, task_runner: BaseTaskRunner) -> None:
        async def main() -> None:
            async with task_runner.start():
                with pytest.raises(RuntimeError, match="^The task runner is already started!$"):
                    async with task_runner.start():
                        pass
                await task_runner.submit(key := uuid4(), returning(1))
                assert await task_runner.wait(key) is not None

        asyncio.run(main())

    def test_submit_before_start_is_refused(self, task_runner: BaseTaskRunner) -> None:
        text = "^The task runner must be started before submitting work.$"
        with pytest.raises(RuntimeError, match=text):
            asyncio.run(task_runner.submit(uuid4(), returning(1)))

    def test_submit_after_the_end_is_refused(self, task_runner: BaseTaskRunner) -> None:
        async def main() -> None:
            async with task_runner.start():
                pass
            await task_runner.submit(uuid4(), returning(1))

        with pytest.raises(RuntimeError, match="must be started before submitting work"):
            asyncio.run(main())

    def test_wait_gives_the_final_state(self, task_runner: BaseTaskRunner) -> None:
        state = asyncio.run(run_call(task_runner, returning(7)))
        assert state.is_completed()
        assert state.result() == 7

    def test_failed_state_passes_unchanged(self, task_runner: BaseTaskRunner) -> None:
        async def call() -> State:
            return Failed(message="not today", data=ValueError("no"), name="TimedOut")

        state = asyncio.run(run_call(task_runner, call))
        assert (state.type, state.name, state.message) == (
            StateType.FAILED,
            "TimedOut",
            "not today",
        )
        with pytest.raises(ValueError, match="^no$"):
            state.result()

    def test_cancelled_state_passes_unchanged(self, task_runner: BaseTaskRunner) -> None:
        async def call() -> State:
            return Cancelled(message="not needed")

        state = asyncio.run(run_call(task_runner, call))
        assert (state.type, state.message) == (StateType.CANCELLED, "not needed")

    def test_none_as_value_is_kept(self, task_runner: BaseTaskRunner) -> None:
        state = asyncio.run(run_call(task_runner, returning(None)))
        assert state.is_completed()
        assert state.result() is None

    def test_exception_as_value_is_kept(self, task_runner: BaseTaskRunner) -> None:
        state = asyncio.run(run_call(task_runner, returning(KeyError("kept"))))
        assert state.is_completed()
        assert isinstance(state.result(), KeyError)

    @pytest.mark.parametrize(
        ("exception", "message"),
        [
            (
                ValueError("text"),
                "Execution was interrupted by an unexpected exception: ValueError: text",
            ),
            (KeyboardInterrupt(), "Execution was aborted by an interrupt signal."),
            (SystemExit(3), "Execution was aborted by Python system exit call."),
            (
                asyncio.CancelledError(),
                "Execution was cancelled by the runtime environment.",
            ),
            (
                GeneratorExit("bye"),
                "Execution was interrupted by an unexpected exception: GeneratorExit: bye",
            ),
        ],
        ids=["exception", "interrupt", "exit", "cancellation", "generator exit"],
    )
    @interrupts_fail()
    def test_wait_never_raises(
        self, task_runner: BaseTaskRunner, exception: BaseException, message: str
    ) -> None:
        state = asyncio.run(run_call(task_runner, raising(exception)))
        assert state.type is StateType.CRASHED
        assert state.message == message

    def test_crashed_state_holds_the_exception(self, task_runner: BaseTaskRunner) -> None:
        state = asyncio.run(run_call(task_runner, raising(ValueError("lost"))))
        kept = state.result(raise_on_failure=False)
        assert isinstance(kept, ValueError)
        assert str(kept) == "lost"

    @interrupts_fail()
    def test_one_crash_leaves_the_others_alone(self, task_runner: BaseTaskRunner) -> None:
        async def main() -> list[State | None]:
            keys = [uuid4() for _ in range(3)]
            calls = [returning(1), raising(SystemExit(1)), returning(3)]
            async with task_runner.start():
                for key, call in zip(keys, calls, strict=True):
                    await task_runner.submit(key, call)
                return [await task_runner.wait(key) for key in keys]

        types = [state.type for state in asyncio.run(main()) if state is not None]
        assert types == [StateType.COMPLETED, StateType.CRASHED, StateType.COMPLETED]

    def test_each_key_has_its_own_state(self, task_runner: BaseTaskRunner) -> None:
        async def main() -> list[Any]:
            keys = [uuid4() for _ in range(50)]
            async with task_runner.start():
                for number, key in enumerate(keys):
                    await task_runner.submit(key, returning(number))
                states = await asyncio.gather(*(task_runner.wait(key) for key in reversed(keys)))
            return [state.result() for state in states if state is not None]

        assert asyncio.run(main()) == list(reversed(range(50)))

    def test_a_call_runs_once(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        async def call() -> State:
            ledger.add("called")
            return Completed()

        asyncio.run(run_call(task_runner, call))
        assert ledger.lines() == ["called"]

    def test_submit_does_not_wait_for_the_call(
        self, task_runner: BaseTaskRunner, deferred: bool, gate: Gate, ledger: Ledger
    ) -> None:
        async def main() -> State | None:
            loop, key = asyncio.get_running_loop(), uuid4()
            async with task_runner.start():
                opening = None if deferred else loop.call_later(0.02, gate.open)
                await task_runner.submit(key, waiting(gate, ledger))
                assert "ended" not in ledger.lines() or opening is not None
                gate.open()
                return await task_runner.wait(key)

        state = asyncio.run(main())
        assert state is not None
        assert state.result() == "waited"

    def test_runner_gives_none_when_time_is_up(
        self, task_runner: BaseTaskRunner, deferred: bool, gate: Gate, ledger: Ledger
    ) -> None:
        async def main() -> State | None:
            key = uuid4()
            async with task_runner.start():
                if not deferred:
                    gate.open()
                await task_runner.submit(key, waiting(gate, ledger))
                early = await task_runner.wait(key, timeout=0.03)
                assert (early is None) or not deferred
                gate.open()
                return await task_runner.wait(key, timeout=10)

        state = asyncio.run(main())
        assert state is not None
        assert state.result() == "waited"

    def test_wait_without_patience_does_not_stop_the_call(
        self, task_runner: BaseTaskRunner, deferred: bool, gate: Gate, ledger: Ledger
    ) -> None:
        async def main() -> None:
            key = uuid4()
            async with task_runner.start():
                if not deferred:
                    gate.open()
                await task_runner.submit(key, waiting(gate, ledger))
                for _ in range(3):
                    await task_runner.wait(key, timeout=0)
                gate.open()
                assert (await task_runner.wait(key)) is not None

        asyncio.run(main())
        assert ledger.lines() == ["started", "ended"]

    def test_two_calls_overlap_or_follow_each_other(
        self, task_runner: BaseTaskRunner, overlaps: bool, ledger: Ledger
    ) -> None:
        def meeting(name: str, other: str) -> Call:
            async def call() -> State:
                ledger.add(f"{name} started")
                await asyncio.sleep(0)
                if overlaps:
                    await wait_until_async(lambda: f"{other} started" in ledger.lines())
                ledger.add(f"{name} ended")
                return Completed()

            return call

        async def main() -> None:
            async with task_runner.start():
                await task_runner.submit(uuid4(), meeting("a", "b"))
                await task_runner.submit(uuid4(), meeting("b", "a"))

        asyncio.run(main())
        if overlaps:
            assert {line.split()[1] for line in ledger.lines()[:2]} == {"started"}
        else:
            assert ledger.lines() == ["a started", "a ended", "b started", "b ended"]

    def test_leaving_start_waits_for_what_was_submitted(
        self, task_runner: BaseTaskRunner, gate: Gate, ledger: Ledger
    ) -> None:
        async def main() -> None:
            asyncio.get_running_loop().call_later(0.05, gate.open)
            async with task_runner.start():
                await task_runner.submit(uuid4(), waiting(gate, ledger))
            assert ledger.lines() == ["started", "ended"]

        asyncio.run(main())

    def test_leaving_start_with_an_error_waits_too(
        self, task_runner: BaseTaskRunner, gate: Gate, ledger: Ledger
    ) -> None:
        async def main() -> None:
            asyncio.get_running_loop().call_later(0.05, gate.open)
            with pytest.raises(ZeroDivisionError):
                async with task_runner.start():
                    await task_runner.submit(uuid4(), waiting(gate, ledger))
                    raise ZeroDivisionError
            assert ledger.lines() == ["started", "ended"]

        asyncio.run(main())

    def test_leaving_start_survives_a_crash(self, task_runner: BaseTaskRunner) -> None:
        async def main() -> str:
            async with task_runner.start():
                await task_runner.submit(uuid4(), raising(ValueError("unheard")))
            return "left"

        assert asyncio.run(main()) == "left"

    def test_a_failed_start_releases_what_was_opened(
        self, task_runner: BaseTaskRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released: list[str] = []
        prepare = task_runner._start

        async def break_half_way(exit_stack: contextlib.AsyncExitStack) -> None:
            await prepare(exit_stack)
            exit_stack.callback(released.append, "released")
            raise OSError("no room")

        async def main() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(task_runner, "_start", break_half_way)
                with pytest.raises(OSError, match="^no room$"):
                    async with task_runner.start():
                        pass
            assert released == ["released"]
            with pytest.raises(RuntimeError, match="must be started"):
                await task_runner.submit(uuid4(), returning(1))

        asyncio.run(main())

    def test_duplicate_is_another_object_of_the_same_kind(
        self, task_runner: BaseTaskRunner
    ) -> None:
        copy = task_runner.duplicate()
        assert copy is not task_runner
        assert type(copy) is type(task_runner)

    def test_duplicate_has_the_same_settings(self, task_runner: BaseTaskRunner) -> None:
        assert task_runner.duplicate() == task_runner

    def test_duplicate_runs_calls(self, task_runner: BaseTaskRunner) -> None:
        assert asyncio.run(run_call(task_runner.duplicate(), returning(2))).result() == 2

    def test_duplicate_of_a_started_runner_runs_nothing(self, task_runner: BaseTaskRunner) -> None:
        async def main() -> None:
            async with task_runner.start():
                await task_runner.submit(uuid4(), returning(1))
                copy = task_runner.duplicate()
                assert copy == task_runner
                with pytest.raises(RuntimeError, match="must be started"):
                    await copy.submit(uuid4(), returning(1))

        asyncio.run(main())

    def test_runner_and_duplicate_live_side_by_side(self, task_runner: BaseTaskRunner) -> None:
        async def main() -> list[Any]:
            first, second = uuid4(), uuid4()
            copy = task_runner.duplicate()
            async with task_runner.start():
                async with copy.start():
                    await copy.submit(second, returning("copy"))
                    inner = await copy.wait(second)
                await task_runner.submit(first, returning("original"))
                outer = await task_runner.wait(first)
            assert inner is not None
            assert outer is not None
            return [inner.result(), outer.result()]

        assert asyncio.run(main()) == ["copy", "original"]

    def test_runners_of_other_kinds_are_unequal(self, task_runner: BaseTaskRunner) -> None:
        assert task_runner != UnlikeAnyOther()
        assert UnlikeAnyOther() != task_runner

    def test_runner_is_unequal_to_what_is_no_runner(self, task_runner: BaseTaskRunner) -> None:
        for other in (None, 1, "runner", type(task_runner)):
            assert task_runner != other

    def test_runner_survives_serialisation(self, task_runner: BaseTaskRunner) -> None:
        cloudpickle = pytest.importorskip("cloudpickle")
        copy = cloudpickle.loads(cloudpickle.dumps(task_runner))
        assert copy == task_runner
        assert asyncio.run(run_call(copy.duplicate(), returning(4))).result() == 4

    def test_started_runner_survives_serialisation(self, task_runner: BaseTaskRunner) -> None:
        cloudpickle = pytest.importorskip("cloudpickle")

        async def main() -> bytes:
            async with task_runner.start():
                await task_runner.submit(key := uuid4(), returning(1))
                data: bytes = cloudpickle.dumps(task_runner)
                assert await task_runner.wait(key) is not None
            return data

        copy = cloudpickle.loads(asyncio.run(main()))
        assert copy == task_runner
        assert str(copy) == str(task_runner)
