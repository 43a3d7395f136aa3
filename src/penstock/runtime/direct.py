"""Direct calls of tasks: executed now, in the caller, whatever runner the flow has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from functools import partial
from time import sleep, time_ns
from typing import Any

from penstock.clock import clock
from penstock.core.inputs import find
from penstock.core.lifecycle import ATTEMPT, AskRetry, Command, Retry
from penstock.core.outcomes import raised
from penstock.history.base import OUTSIDE_FLOWS, number_outside_flows
from penstock.history.recorder import TASK, Recorder
from penstock.history.text import LONGEST_NAME, clean_text
from penstock.runs import TaskRun
from penstock.runtime.attempts import (
    TASK_RUN,
    aattempt,
    attempt,
    is_interruption,
    timed_out_state,
)
from penstock.runtime.consulting import consultation
from penstock.runtime.context import current_run
from penstock.runtime.drivers import adrive, drive
from penstock.runtime.interrupts import Interruption
from penstock.runtime.keeping import akept, keeps, kept, policy_in
from penstock.runtime.logs import install_log_handler
from penstock.runtime.loops import FlowLoop
from penstock.runtime.recording import recorder_for
from penstock.runtime.task_runs import (
    ask_retry,
    await_retry,
    begin_attempt,
    make_task_run,
    new_life,
    settle,
)
from penstock.runtime.upstreams import awaited_in, bring, keys_of, merged, refusal, run_of, value_of
from penstock.runtime.waiting import await_run, wait_for_run
from penstock.settings import load_settings
from penstock.states import State, StateType, is_interrupt
from penstock.task_runners.slots import slot_left, slot_left_async

COMPLETED = StateType.COMPLETED


class DirectCall:
    """One direct call of a task, from its arguments to its final state."""

    __slots__ = (
        "args",
        "awaited",
        "found",
        "kwargs",
        "live",
        "policy",
        "recorder",
        "run",
        "task",
    )

    def __init__(
        self,
        task: Any,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        values: tuple[object, ...],
        wait_for: Any,
    ) -> None:
        parent = current_run.get()
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.live = None if parent is None else parent.live
        self.found = find(values)
        self.awaited = awaited_in(wait_for)
        self.recorder: Recorder = _lone_recorder() if parent is None else parent.recorder
        self.recorder.make_room()
        self.policy = policy_in(parent)
        self.run = make_task_run(task, values, self.found, self.live)
        if self.live is None:
            self._enrol_alone()
        if self.awaited is not None:
            self.run.upstream += keys_of(self.awaited)

    def _enrol_alone(self) -> None:
        """Number a task run that belongs to no flow run."""
        run, task = self.run, self.task
        run.recorder = self.recorder
        run.task_number = number_outside_flows(f"{task.key}\0{task.name}")
        if run.task_number not in self.recorder.lone_tasks:
            self.recorder.lone_tasks.add(run.task_number)
            name = clean_text(task.name, LONGEST_NAME)
            row = OUTSIDE_FLOWS, run.task_number, task.key, name, task
            self.recorder.record(TASK, row)

    def execute(self) -> State:
        """Execute in this thread, waiting for upstreams first."""
        if self.run.outcome is not None:
            return self.run.outcome
        state = None
        if self.found is not None or self.awaited is not None:
            for run in self._unsettled():
                wait_for_run(run, None)
            state = self._prepare()
        if self.task.cache_key_fn is not None and state is None:
            state = consultation(self.run, self.task, parent=current_run.get()).consult()
        return self._end(state or drive(new_life(self.task), self._perform))

    async def aexecute(self) -> State:
        """Execute on the running loop, waiting for upstreams first."""
        if self.run.outcome is not None:
            return self.run.outcome
        state = None
        if self.found is not None or self.awaited is not None:
            for run in self._unsettled():
                await await_run(run)
            if self.found is not None:
                await bring(self.found.dependencies)
            state = self._prepare()
        if self.task.cache_key_fn is not None and state is None:
            state = await consultation(self.run, self.task, parent=current_run.get()).aconsult()
        return self._end(state or await adrive(new_life(self.task), self._aperform))

    def _unsettled(self) -> list[TaskRun]:
        runs = map(run_of, merged(self.found, self.awaited))
        return [run for run in runs if run is not None and run.outcome is None]

    def _prepare(self) -> State | None:
        """Put the values of upstreams in their place; a state is given when that fails."""
        run = self.run
        refused = refusal(merged(self.found, self.awaited), run.key)
        if refused is None and self.found is not None:
            try:
                run.values = self.found.replace(run.values or (), value_of)
            except Exception as exc:
                return raised(exc, TASK_RUN, time_ns(), run.key)
            self.args, self.kwargs = self.task.signature.call_arguments(run.values)
        return refused

    def _perform(self, command: Command) -> Any:
        if command is ATTEMPT:
            begin_attempt(self.run, self.recorder)
            if self.task.timeout_seconds is None:
                state = attempt(self.run, self.task.fn, self.args, self.kwargs)
            else:
                state = self._attempt_in_time(self.task.timeout_seconds)
            return kept(self.run, state, self.policy) if keeps(self.task, self.policy) else state
        if isinstance(command, AskRetry):
            return ask_retry(self.task, self.run, command)
        assert isinstance(command, Retry)
        await_retry(self.run, command, self.recorder)
        with slot_left():
            sleep(command.seconds)
        return None

    async def _aperform(self, command: Command) -> Any:
        if command is ATTEMPT:
            begin_attempt(self.run, self.recorder)
            task = self.task
            seconds = task.timeout_seconds
            state = await aattempt(self.run, task.fn, self.args, self.kwargs, seconds)
            return await akept(self.run, state, self.policy) if keeps(task, self.policy) else state
        if isinstance(command, AskRetry):
            return ask_retry(self.task, self.run, command)
        assert isinstance(command, Retry)
        await_retry(self.run, command, self.recorder)
        async with slot_left_async():
            await sys.modules["asyncio"].sleep(command.seconds)
        return None

    def _attempt_in_time(self, seconds: float) -> State:
        interruption = Interruption()
        timer = clock.call_later(seconds, interruption.fire)
        state = attempt(self.run, self.task.fn, self.args, self.kwargs, interruption)
        timer.cancel()
        if interruption.fired and is_interruption(state):
            return timed_out_state(self.run, seconds)
        return state

    def _end(self, state: State) -> State:
        run = self.run
        # Whatever the state is, the caller gets to see it: as a value, an exception or a state.
        run.looked_at = True
        settle(run, state, self.recorder)
        if self.live is not None:
            self.live.note_end(run, state)
        run.outcome = state
        return state


def call_directly(
    task: Any,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    return_state: bool,
    wait_for: Any,
) -> Any:
    """Call a task now, in the caller: give its value or state, or a coroutine in async code."""
    # Arguments that do not fit are refused by the call, also where that gives a coroutine.
    values = task.signature.values(args, kwargs)
    if not task.is_async:
        return told(DirectCall(task, args, kwargs, values, wait_for).execute(), return_state)
    parent = current_run.get()
    awaited = partial(_acall, task, args, kwargs, values, return_state, wait_for)
    if parent is None or parent.is_async:
        return awaited()
    with slot_left():
        return run_blocking(parent.live, awaited)


async def _acall(
    task: Any,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    values: tuple[object, ...],
    return_state: bool,
    wait_for: Any,
) -> Any:
    return told(await DirectCall(task, args, kwargs, values, wait_for).aexecute(), return_state)


def run_blocking(live: Any, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function to its end from synchronous code, which may run inside a loop."""
    if live is not None:
        return live.side_loop.run(function)
    loop = FlowLoop()
    try:
        return loop.run(function)
    finally:
        loop.close()


def told(state: State, return_state: bool) -> Any:
    """Give the caller the value or the state, or raise what the run failed with."""
    if state.type is COMPLETED:
        return state if return_state else state.data
    problem = state.data
    is_special = isinstance(problem, BaseException) and not isinstance(problem, Exception)
    if is_special and (not return_state or is_interrupt(problem)):
        # In the caller's own thread an interrupt goes on to where it was aimed at.
        raise problem
    return state if return_state else state.result()


def _lone_recorder() -> Recorder:
    settings = load_settings()
    install_log_handler(settings)
    return recorder_for(settings)
