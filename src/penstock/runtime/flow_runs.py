"""Run flows: bind, record, execute, wait for everything, decide the final state, commit.

call_flow ──► FlowExecution ──► drive(run_life) ──► attempt: body ─► leave ─► final state
                                                      sync: this thread   async: this loop
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic, sleep, time_ns
from typing import Any

from penstock.annotations import Dependency
from penstock.clock import clock
from penstock.core.inputs import find
from penstock.core.lifecycle import ATTEMPT, Command, Retry
from penstock.core.outcomes import (
    FlowFacts,
    flow_state,
    raised,
    settled_value,
    timed_out,
    timeout_message,
)
from penstock.core.parameters import coerce
from penstock.core.previews import preview_parameters
from penstock.errors import RunTimedOut, TerminationSignal
from penstock.history.recorder import CHANGED, ENDED
from penstock.ids import new_flow_run_key
from penstock.results.small import encode_small
from penstock.runs import FlowRun, TaskRun
from penstock.runtime.attempts import collected
from penstock.runtime.context import current_run, current_tags
from penstock.runtime.direct import run_blocking, told
from penstock.runtime.drivers import adrive, drive
from penstock.runtime.errors import describe
from penstock.runtime.hooks import run_hooks
from penstock.runtime.interrupts import Interrupted, Interruption
from penstock.runtime.live import LiveFlowRun
from penstock.runtime.logs import install_log_handler
from penstock.runtime.names import random_name
from penstock.runtime.prints import record_prints
from penstock.runtime.recording import recorder_for
from penstock.runtime.signals import caught_signals, caught_signals_async
from penstock.runtime.task_runs import (
    await_retry,
    begin_attempt,
    make_task_run,
    named,
    new_life,
    settle,
)
from penstock.runtime.upstreams import keys_of, merged, refusal, run_of, state_of, value_of
from penstock.runtime.waiting import await_run, await_signal, wait_for_run
from penstock.settings import load_settings
from penstock.states import State, StateType
from penstock.task_runners.slots import slot_left, slot_left_async

FLOW_RUN = "Flow run"
_PATIENCE_SECONDS = {KeyboardInterrupt: 10.0, TerminationSignal: 5.0}
_TIMEOUT_PATIENCE_SECONDS = 2.0
logger = logging.getLogger("penstock.flow_runs")


def call_flow(
    flow: Any,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    return_state: bool,
    wait_for: Any,
) -> Any:
    """Run a flow; give its result or state, or a coroutine for an async flow."""
    if not flow.is_async:
        return told(FlowExecution(flow, args, kwargs, wait_for).execute(), return_state)
    parent = current_run.get()
    awaited = partial(_acall, flow, args, kwargs, return_state, wait_for)
    if parent is None or parent.is_async:
        return awaited()
    with slot_left():
        return run_blocking(parent.live, awaited)


async def _acall(
    flow: Any,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    return_state: bool,
    wait_for: Any,
) -> Any:
    return told(await FlowExecution(flow, args, kwargs, wait_for).aexecute(), return_state)


def as_task(flow: Any) -> Callable[..., Any]:
    """Make the function of the task that a flow is when it is submitted or mapped.

    The task run stands for the flow run, and ends in the same state.
    """

    def run_as_task(*args: Any, **kwargs: Any) -> State:
        return FlowExecution(flow, args, kwargs, None, stand_in=_stand_in()).execute()

    async def arun_as_task(*args: Any, **kwargs: Any) -> State:
        return await FlowExecution(flow, args, kwargs, None, stand_in=_stand_in()).aexecute()

    return arun_as_task if flow.is_async else run_as_task


def _stand_in() -> TaskRun:
    run = current_run.get()
    assert isinstance(run, TaskRun)
    return run


class FlowExecution:
    """One run of a flow, from its arguments to its final state.

    Args:
        stand_in: the task run that stands for it in the parent, when there is one already.
    """

    def __init__(
        self,
        flow: Any,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        wait_for: Any,
        stand_in: TaskRun | None = None,
    ) -> None:
        self.flow = flow
        self.values = flow.signature.values(args, kwargs)
        self.parent = current_run.get()
        self.found = find(self.values)
        self.awaited = None if wait_for is None else find((wait_for,))
        if self.parent is None:
            settings = load_settings()
            install_log_handler(settings)
            self.recorder = recorder_for(settings)
            self._log_prints = settings.log_prints
        else:
            self.recorder = self.parent.recorder
            self._log_prints = self.parent.log_prints
        self.recorder.make_room()
        self.owns_stand_in = stand_in is None
        self.stand_in = stand_in if stand_in is not None else self._make_stand_in()
        self.flow_run = self._make_flow_run()
        self.live: LiveFlowRun = self.flow_run.live
        self.problem: BaseException | None = None

    def _make_stand_in(self) -> TaskRun | None:
        """Make the task run that stands for a subflow in the flow run that calls it."""
        if self.parent is None or self.parent.live is None:
            return None
        run = make_task_run(self.flow, self.values, self.found, self.parent.live)
        if self.awaited is not None:
            run.upstream += keys_of(self.awaited)
        return run

    def _make_flow_run(self) -> FlowRun:
        flow = self.flow
        template = flow.flow_run_name
        names = flow.parameter_names
        name = random_name() if template is None else named(template, names, self.values)
        run = FlowRun(flow, new_flow_run_key(), time_ns(), name)
        run.preview = preview_parameters(names, self.values)
        run.runner = str(flow.task_runner)
        run.version = flow.version
        run.tags = current_tags.get() | (
            self.parent.tags if self.parent is not None else frozenset()
        )
        run.recorder = self.recorder
        run.log_prints = self._log_prints if flow.log_prints is None else flow.log_prints
        if run.log_prints:
            record_prints()
        run.parent = self.stand_in
        is_kept = self._is_kept()
        if self.stand_in is not None and not is_kept:
            self.stand_in.subflow_key = run.key
        loop = None
        if flow.is_async:
            loop = sys.modules["asyncio"].get_running_loop()
        run.live = LiveFlowRun(flow, run, self.recorder, flow.task_runner.duplicate(), loop)
        if not is_kept:
            self.recorder.record(CHANGED, run)
        return run

    # The whole run.

    def execute(self) -> State:
        """Run in this thread."""
        if self._is_kept():
            return self._kept_state()
        try:
            self._begin_stand_in()
            for run in self._unsettled():
                wait_for_run(run, None)
            with caught_signals(self.parent is None):
                state = self._refused() or drive(new_life(self.flow), self._perform)
        except BaseException as exc:
            state = raised(exc, FLOW_RUN, time_ns(), self.flow_run.key)
        return self._end(state, self._closed(state))

    async def aexecute(self) -> State:
        """Run on the running loop."""
        if self._is_kept():
            return self._kept_state()
        try:
            self._begin_stand_in()
            for run in self._unsettled():
                await await_run(run)
            with caught_signals_async(self.parent is None, self._take_signal):
                state = self._refused() or await self._adrive()
        except BaseException as exc:
            state = raised(exc, FLOW_RUN, time_ns(), self.flow_run.key)
        return self._end(state, self._closed(state))

    async def _adrive(self) -> State:
        await self.live.runners.astart_main()
        try:
            return await adrive(new_life(self.flow), self._aperform)
        finally:
            await self.live.runners.astop_main()

    def _is_kept(self) -> bool:
        return self.owns_stand_in and self.stand_in is not None and self.stand_in.is_over

    def _kept_state(self) -> State:
        self.live.close()
        assert self.stand_in is not None
        assert self.stand_in.outcome is not None
        return self.stand_in.outcome

    def _begin_stand_in(self) -> None:
        if self.owns_stand_in and self.stand_in is not None:
            begin_attempt(self.stand_in, self.recorder)

    def _unsettled(self) -> list[TaskRun]:
        runs = map(run_of, merged(self.found, self.awaited))
        return [run for run in runs if run is not None and run.outcome is None]

    def _refused(self) -> State | None:
        """Put the values of upstreams in their place; a state is given when one has none."""
        if self.found is None and self.awaited is None:
            return None
        refused = refusal(merged(self.found, self.awaited), self.flow_run.key)
        if refused is None and self.found is not None:
            self.values = self.found.replace(self.values, value_of)
        return refused

    def _closed(self, state: State) -> State:
        """Release the runners; a failure of that crashes a run that was fine."""
        try:
            self.live.close()
        except Exception as exc:
            logger.exception(
                "The task runner of flow run %r could not be stopped.", self.flow_run.name
            )
            if state.type is StateType.COMPLETED:
                return State(
                    StateType.CRASHED,
                    None,
                    f"The task runner could not be stopped: {exc}",
                    data=exc,
                )
        return state

    def _end(self, state: State, closed: State) -> State:
        run = self.flow_run
        state = closed
        state.run_key = run.key
        run.close(state)
        if state.type is StateType.COMPLETED:
            run.kept, run.kept_codec = encode_small(state.data)
        elif isinstance(problem := _problem_in(state), BaseException):
            run.error = describe(problem)
        self.recorder.record(ENDED, run)
        run_hooks(self.flow.flow_hooks, self.flow, run, state)
        run.outcome = state
        self._end_stand_in(state)
        if self.parent is None:
            self.recorder.flush()
        return state

    def _end_stand_in(self, state: State) -> None:
        run = self.stand_in
        if run is None or not self.owns_stand_in:
            return
        mirrored = State(state.type, state.name, state.message, state.at, state.data, run.key)
        # The caller gets to see how the subflow ended, one way or the other.
        run.looked_at = True
        settle(run, mirrored, self.recorder)
        run.live.note_end(run, mirrored)
        run.outcome = mirrored

    # Commands of the life.

    def _perform(self, command: Command) -> Any:
        if command is ATTEMPT:
            return self._attempt()
        assert isinstance(command, Retry)
        await_retry(self.flow_run, command, self.recorder)
        with slot_left():
            sleep(command.seconds)
        return None

    async def _aperform(self, command: Command) -> Any:
        if command is ATTEMPT:
            return await self._aattempt()
        assert isinstance(command, Retry)
        await_retry(self.flow_run, command, self.recorder)
        async with slot_left_async():
            await sys.modules["asyncio"].sleep(command.seconds)
        return None

    def _attempt(self) -> State:
        token = self._begin()
        interruption = Interruption()
        timer = None
        if self.flow.timeout_seconds is not None:
            timer = clock.call_later(self.flow.timeout_seconds, interruption.fire)
        try:
            body = self._body if timer is None else partial(interruption.call, self._body, (), {})
            return self._conclude(body())
        except BaseException as exc:
            return self._broken_off(exc, interruption.fired)
        finally:
            if timer is not None:
                timer.cancel()
            current_run.reset(token)

    def _body(self) -> Any:
        args, kwargs = self._arguments()
        value = settled_value(self.flow.fn(*args, **kwargs))
        self._leave()
        return value

    async def _aattempt(self) -> State:
        token = self._begin()
        asyncio = sys.modules["asyncio"]
        limit = asyncio.timeout(self.flow.timeout_seconds)
        try:
            async with limit:
                args, kwargs = self._arguments()
                value = await collected(self.flow.fn(*args, **kwargs))
                await self._aleave()
            return self._conclude(settled_value(value))
        except BaseException as exc:
            return await self._abroken_off(exc, limit.expired() and isinstance(exc, TimeoutError))
        finally:
            current_run.reset(token)

    def _begin(self) -> Any:
        run = self.flow_run
        if run.attempt:
            self.live.begin_again()
        begin_attempt(run, self.recorder)
        token = current_run.set(run)
        if run.attempt == 1:
            run_hooks(self.flow.flow_hooks, self.flow, run, run.state)
        return token

    def _arguments(self) -> tuple[tuple[object, ...], dict[str, object]]:
        signature = self.flow.signature
        parameters = dict(zip(signature.parameters, self.values, strict=True))
        if self.flow.validate_parameters:
            parameters = coerce(signature, parameters, name=self.flow.name)
        self.flow_run.parameters = parameters
        arguments: tuple[tuple[object, ...], dict[str, object]] = signature.arguments(parameters)
        return arguments

    # Leaving, and what the run comes to.

    def _leave(self) -> None:
        """Wait for everything that was submitted."""
        bell: SimpleQueue[None] = SimpleQueue()
        self.live.when_idle(lambda: bell.put(None))
        with slot_left():
            while True:
                try:
                    # In slices: only the main thread can be interrupted inside one.
                    return bell.get(timeout=0.5)
                except Empty:
                    continue

    async def _aleave(self) -> None:
        signal = await_signal()
        self.live.when_idle(signal.ring)
        await signal.wait([], None)

    def _conclude(self, value: Any) -> State:
        unseen = self.live.unseen()
        facts = FlowFacts(self._settled_state, unseen, self.live.total)
        state = flow_state(value, facts, time_ns(), self.flow_run.key)
        if unseen and value is not None and state.type is StateType.COMPLETED:
            names = self.live.unseen_names()
            shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            logger.warning(
                "Flow run %r completed, but %d of its task runs failed and nobody looked: %s",
                self.flow_run.name,
                len(names),
                shown,
                extra={"penstock_run": self.flow_run},
            )
        return state

    def _settled_state(self, dependency: Dependency) -> State:
        run = run_of(dependency)
        if run is not None:
            if run.outcome is None:
                wait_for_run(run, None)
            run.look_at()
        return state_of(dependency)

    def _broken_off(self, exc: BaseException, is_out_of_time: bool) -> State:
        state = self._state_of_end(exc, is_out_of_time)
        patience = self._stop_tasks(state, exc)
        deadline = monotonic() + patience
        bell: SimpleQueue[None] = SimpleQueue()
        self.live.when_idle(lambda: bell.put(None))
        try:
            with slot_left():
                while monotonic() < deadline:
                    try:
                        bell.get(timeout=min(1.0, max(0.0, deadline - monotonic())))
                        return state
                    except Empty:
                        self._say_what_is_waited_for()
        except KeyboardInterrupt:
            pass
        self.live.give_up()
        return state

    async def _abroken_off(self, exc: BaseException, is_out_of_time: bool) -> State:
        if self.problem is not None:
            exc = self.problem
        state = self._state_of_end(exc, is_out_of_time)
        patience = self._stop_tasks(state, exc)
        signal = await_signal()
        self.live.when_idle(signal.ring)
        timeout = None if patience == float("inf") else patience
        try:
            if not await signal.wait([], timeout):
                self.live.give_up()
        except BaseException:
            self.live.give_up()
        return state

    def _state_of_end(self, exc: BaseException, is_out_of_time: bool) -> State:
        now, key = time_ns(), self.flow_run.key
        if is_out_of_time and isinstance(exc, (Interrupted, TimeoutError)):
            seconds = self.flow.timeout_seconds
            problem = RunTimedOut(timeout_message(FLOW_RUN, seconds))
            return timed_out(problem, FLOW_RUN, seconds, now, key)
        return raised(exc, FLOW_RUN, now, key)

    def _stop_tasks(self, state: State, exc: BaseException) -> float:
        """Cancel what must not go on, and give how long to wait for the rest, in seconds."""
        if state.type is StateType.FAILED and not isinstance(state.data, RunTimedOut):
            self.live.cancel_unstarted()
            return float("inf")
        self.live.stop_all()
        if isinstance(state.data, RunTimedOut):
            return _TIMEOUT_PATIENCE_SECONDS
        return _PATIENCE_SECONDS.get(type(exc), 10.0)

    def _say_what_is_waited_for(self) -> None:
        names = self.live.open_names()
        if names:
            shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            logger.warning("Waiting for %d task runs to stop: %s", len(names), shown)

    def _take_signal(self, problem: BaseException) -> None:
        self.problem = problem


def _problem_in(state: State) -> BaseException | None:
    if isinstance(state.data, BaseException):
        return state.data
    if state.type in (StateType.FAILED, StateType.CRASHED) and state.data is not None:
        try:
            state.result()
        except BaseException as exc:
            return exc
    return None
