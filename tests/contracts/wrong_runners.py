"""Runners that each break one rule, under the contract.

Not collected by itself: `test_contract_rejects.py` runs it and expects the failures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self
from uuid import UUID

import pytest

from penstock import State
from penstock.states import Completed, Failed, exception_to_crashed_state
from penstock.task_runners import BaseTaskRunner, TaskConcurrencyType
from penstock.testing import TaskRunnerContract, ledger

Call = Callable[[], Awaitable[State]]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less long for what a wrong runner never does; only here, not where it is imported."""
    monkeypatch.setattr(ledger, "PATIENCE", 5.0)


class HandMadeRunner(BaseTaskRunner):
    """Keep every rule, without any help of the base: what the wrong ones are made from."""

    concurrency_type = TaskConcurrencyType.CONCURRENT

    def __init__(self) -> None:
        self._tasks: dict[UUID, asyncio.Future[State]] = {}
        self._open = False

    @contextlib.asynccontextmanager
    async def start(self) -> AsyncIterator[Self]:
        if self._open:
            raise RuntimeError("The task runner is already started!")
        self._open = True
        try:
            async with contextlib.AsyncExitStack() as exit_stack:
                await self._start(exit_stack)
                yield self
                await self.drain()
        finally:
            await self.drain()
            self._open = False

    async def drain(self) -> None:
        """Wait for what was submitted."""
        await asyncio.gather(*self._tasks.values())

    async def submit(self, key: UUID, call: Call) -> None:
        if not self._open:
            raise RuntimeError("The task runner must be started before submitting work.")
        self._tasks[key] = asyncio.ensure_future(self.guard(call))

    async def guard(self, call: Call) -> State:
        """Run a call and turn whatever it raises into a state."""
        try:
            return await call()
        except BaseException as error:
            return exception_to_crashed_state(error)

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        done, _ = await asyncio.wait([self._tasks[key]], timeout=timeout)
        return self._tasks[key].result() if done else None

    def duplicate(self) -> Self:
        return type(self)()


class RaisingRunner(HandMadeRunner):
    """Let `wait` raise what the call raised."""

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        state = await super().wait(key, timeout)
        if state is not None and state.is_crashed():
            raise state.result(raise_on_failure=False)
        return state


class DroppingRunner(HandMadeRunner):
    """Lose the value."""

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        state = await super().wait(key, timeout)
        return Completed() if state is not None and state.is_completed() else state


class RepeatingRunner(HandMadeRunner):
    """Run every call twice."""

    async def guard(self, call: Call) -> State:
        await super().guard(call)
        return await super().guard(call)


class PatientRunner(HandMadeRunner):
    """Ignore the timeout of `wait`."""

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        return await super().wait(key)


class HastyRunner(HandMadeRunner):
    """Leave `start` without waiting for anything."""

    async def drain(self) -> None:
        return None


class CarelessRunner(HandMadeRunner):
    """Wait for what was submitted, unless an error leaves `start`."""

    @contextlib.asynccontextmanager
    async def start(self) -> AsyncIterator[Self]:
        self._open = True
        yield self
        await self.drain()
        self._open = False


class SharingRunner(HandMadeRunner):
    """Let a duplicate share what is running."""

    def duplicate(self) -> Self:
        copy = type(self)()
        copy.__dict__ = self.__dict__
        return copy


class SelfishRunner(HandMadeRunner):
    """Give itself as its duplicate."""

    def duplicate(self) -> Self:
        return self


class SwallowingRunner(HandMadeRunner):
    """Call a crash a success."""

    async def guard(self, call: Call) -> State:
        state = await super().guard(call)
        return Completed() if state.is_crashed() else state


class BlamingRunner(HandMadeRunner):
    """Call a crash a failure."""

    async def guard(self, call: Call) -> State:
        state = await super().guard(call)
        return Failed(message=state.message, data=state.data) if state.is_crashed() else state


class AgreeableRunner(HandMadeRunner):
    """Equal everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class LonelyRunner(HandMadeRunner):
    """Equal nothing but itself."""

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]


class EagerRunner(HandMadeRunner):
    """Take work before it is started."""

    async def submit(self, key: UUID, call: Call) -> None:
        self._open = True
        await super().submit(key, call)


class ReopeningRunner(HandMadeRunner):
    """Start twice."""

    @contextlib.asynccontextmanager
    async def start(self) -> AsyncIterator[Self]:
        self._open = False
        async with super().start():
            yield self


class StuckRunner(HandMadeRunner):
    """Believe to be started after a start that failed."""

    @contextlib.asynccontextmanager
    async def start(self) -> AsyncIterator[Self]:
        self._open = True
        async with contextlib.AsyncExitStack() as exit_stack:
            await self._start(exit_stack)
            yield self
            await self.drain()
        self._open = False


class BoastfulRunner(HandMadeRunner):
    """Claim to be concurrent, and run each call inside `submit`."""

    async def submit(self, key: UUID, call: Call) -> None:
        await super().submit(key, call)
        await super().wait(key)


class UnrulyRunner(HandMadeRunner):
    """Claim to be sequential, and run calls side by side."""

    concurrency_type = TaskConcurrencyType.SEQUENTIAL


class ConfusedRunner(HandMadeRunner):
    """Give every key the state of the call that was submitted last."""

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        return await super().wait(list(self._tasks)[-1], timeout)


class ParaphrasingRunner(HandMadeRunner):
    """Replace every exception by another one with the same text."""

    async def guard(self, call: Call) -> State:
        state = await super().guard(call)
        if not state.is_failed():
            return state
        return Failed(message=state.message, data=RuntimeError(str(state.data)))


class TooMuchLuggageRunner(HandMadeRunner):
    """Be unable to travel."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a runner")


RIGHT: list[type[BaseTaskRunner]] = [HandMadeRunner]
WRONG: dict[type[BaseTaskRunner], str] = {
    RaisingRunner: "test_wait_never_raises",
    DroppingRunner: "test_wait_gives_the_final_state",
    RepeatingRunner: "test_a_call_runs_once",
    PatientRunner: "test_runner_gives_none_when_time_is_up",
    HastyRunner: "test_leaving_start_waits_for_what_was_submitted",
    CarelessRunner: "test_leaving_start_with_an_error_waits_too",
    SharingRunner: "test_duplicate_of_a_started_runner_runs_nothing",
    SelfishRunner: "test_duplicate_is_another_object_of_the_same_kind",
    SwallowingRunner: "test_wait_never_raises",
    BlamingRunner: "test_wait_never_raises",
    AgreeableRunner: "test_runners_of_other_kinds_are_unequal",
    LonelyRunner: "test_duplicate_has_the_same_settings",
    EagerRunner: "test_submit_before_start_is_refused",
    ReopeningRunner: "test_start_twice_is_refused",
    StuckRunner: "test_a_failed_start_releases_what_was_opened",
    BoastfulRunner: "test_submit_does_not_wait_for_the_call",
    UnrulyRunner: "test_two_calls_overlap_or_follow_each_other",
    ConfusedRunner: "test_each_key_has_its_own_state",
    ParaphrasingRunner: "test_failed_state_passes_unchanged",
    TooMuchLuggageRunner: "test_runner_survives_serialisation",
}


class Contract(TaskRunnerContract):
    """The contract for whatever runner class a subclass names."""

    runner_class: type[BaseTaskRunner]

    @pytest.fixture
    def task_runner(self) -> BaseTaskRunner:
        return self.runner_class()


for runner_class in [*RIGHT, *WRONG]:
    name = f"Test{runner_class.__name__}"
    globals()[name] = type(name, (Contract,), {"runner_class": runner_class})
