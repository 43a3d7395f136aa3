"""Run flows: record, execute, wait for everything, decide the final state, commit.

FlowExecution ──► drive(run_life) ──► attempt: body ─► leave ─► final state
                                      sync: this thread   async: this loop
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from time import monotonic, sleep, time_ns
from typing import Any

from penstock.annotations import Dependency
from penstock.clock import clock
from penstock.core.inputs import find
from penstock.core.lifecycle import ATTEMPT, Command, Retry
from penstock.core.outcomes import (
    FlowFacts,
    crashed_by,
    flow_state,
    problem_in,
    raised,
    settled_value,
    timed_out,
    timeout_message,
)
from penstock.core.parameters import coerce
from penstock.errors import LeaseLost, RunTimedOut, TerminationSignal
from penstock.history.recorder import CHANGED, ENDED
from penstock.runs import FlowRun, TaskRun
from penstock.runtime.attempts import collected
from penstock.runtime.blocking import take
from penstock.runtime.context import current_run
from penstock.runtime.drivers import adrive, drive
from penstock.runtime.errors import describe
from penstock.runtime.hooks import run_hooks
from penstock.runtime.interrupts import Interrupted, Interruption
from penstock.runtime.keeping import akept_flow_state, held_of, kept_flow_state, policy_in
from penstock.runtime.live import LiveFlowRun
from penstock.runtime.logs import install_log_handler
from penstock.runtime.making import flow_run_name, make_flow_run, make_ledger
from penstock.runtime.prints import record_prints
from penstock.runtime.recording import recorder_for
from penstock.runtime.resumption import Resumption
from penstock.runtime.signals import caught_signals, caught_signals_async
from penstock.runtime.task_runs import (
    await_retry,
    begin_attempt,
    make_task_run,
    new_life,
    settle,
)
from penstock.runtime.upstreams import (
    awaited_in,
    keys_of,
    merged,
    refusal,
    run_of,
    state_of,
    value_of,
)
from penstock.runtime.waiting import await_elsewhere, await_run, await_signal, wait_for_run
from penstock.settings import load_settings
from penstock.states import KeptState, State, StateType, exception_to_crashed_state
from penstock.task_runners.slots import slot_left, slot_left_async

FLOW_RUN = "Flow run"
# Releasing what blocks may take two seconds more: ten in all.
_PATIENCE_SECONDS = {KeyboardInterrupt: 8.0, TerminationSignal: 4.0}
_TIMEOUT_PATIENCE_SECONDS = 2.0
_LONGEST_SILENCE_SECONDS = 60.0
logger = logging.getLogger("penstock.flow_runs")


class FlowExecution:
    """One run of a flow, from its arguments to its final state.

    Args:
        values: the values of its parameters.
        stand_in: the task run that stands for it in the parent, when there is one already. Its
            upstreams have settled and their values are in place.
        resumption: what it has already, when it is an outermost one that is continued.
    """

    flow_run: FlowRun
    live: LiveFlowRun

    def __init__(
        self,
        flow: Any,
        values: tuple[object, ...],
        wait_for: Any,
        stand_in: TaskRun | None = None,
        resumption: Resumption | None = None,
    ) -> None:
        self.flow = flow
        self.values = values
        self.parent = current_run.get()
        self.is_outermost = self.parent is None or self.parent.live is None
        self.found = find(values) if stand_in is None else None
        self.awaited = awaited_in(wait_for)
        self.problem: BaseException | None = None
        self._break_off: Callable[[], object] | None = None
        if self.parent is None:
            settings = load_settings()
            install_log_handler(settings)
            self.recorder = recorder_for(settings)
            self._log_prints = settings.log_prints
        else:
            self.recorder = self.parent.recorder
            self._log_prints = self.parent.log_prints
        self.recorder.make_room()
        # What may fail comes before anything is recorded.
        self._results = policy_in(self.parent).under(flow.results)
        name = "" if resumption is not None else flow_run_name(flow, self._parameters)
        runner, loop = flow.task_runner.duplicate(), self._running_loop()
        self.owns_stand_in = stand_in is None
        self.stand_in = stand_in if stand_in is not None else self._make_stand_in()
        if self._kept_state() is None:
            self._make_live(name, runner, loop, resumption)

    def _running_loop(self) -> Any:
        return sys.modules["asyncio"].get_running_loop() if self.flow.is_async else None

    def _make_stand_in(self) -> TaskRun | None:
        """Make the task run that stands for a subflow in the flow run that calls it."""
        if self.parent is None or self.parent.live is None:
            return None
        run = make_task_run(self.flow, self.values, self.found, self.parent.live)
        if self.awaited is not None:
            run.upstream += keys_of(self.awaited)
        return run

    def _make_live(self, name: str, runner: Any, loop: Any, resumption: Resumption | None) -> None:
        flow, parent, recorder = self.flow, self.parent, self.recorder
        if resumption is None and self.stand_in is not None:
            # What an earlier driver's run of this very subflow has already.
            live = self.stand_in.live
            resumption = None if live is None else live.below(self.stand_in)
        run = make_flow_run(flow, self.values, name, parent, self.stand_in, resumption)
        run.recorder = recorder
        run.results = self._results
        run.log_prints = self._log_prints if flow.log_prints is None else flow.log_prints
        if run.log_prints:
            record_prints()
        ledger = make_ledger(run, parent, recorder, resumption)
        self.flow_run = run
        self.live = run.live = LiveFlowRun(flow, run, recorder, runner, loop, ledger, resumption)
        if ledger.lease is not None and self.is_outermost:
            ledger.lease.when_lost = self._lose
        recorder.record(CHANGED, run)

    # The whole run.

    def execute(self) -> State:
        """Run in this thread."""
        kept = self._kept_state()
        if kept is not None:
            return kept
        with caught_signals(self.parent is None) as signals:
            try:
                self._begin_stand_in()
                for run in self._unsettled():
                    wait_for_run(run, None)
                state = self._refused() or drive(new_life(self.flow), self._perform)
            except BaseException as exc:
                state = raised(exc, FLOW_RUN, time_ns(), self.flow_run.key)
            # What comes from here on must not keep the run from being recorded.
            signals.is_ending = True
            return self._end(state, self._closed(state))

    async def aexecute(self) -> State:
        """Run on the running loop."""
        kept = self._kept_state()
        if kept is not None:
            return kept
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

    def _kept_state(self) -> State | None:
        """Give the state of a subflow run that completed before, and need not run again."""
        return self.stand_in.outcome if self.owns_stand_in and self.stand_in is not None else None

    def _begin_stand_in(self) -> None:
        if self.owns_stand_in and self.stand_in is not None:
            begin_attempt(self.stand_in, self.recorder)

    def _unsettled(self) -> list[TaskRun]:
        runs = map(run_of, merged(self.found, self.awaited))
        return [run for run in runs if run is not None and run.outcome is None]

    def _refused(self) -> State | None:
        """Put the values of upstreams in their place; a state is given when one has none.

        Raises:
            ParameterTypeError: the parameters do not fit the annotations.
        """
        if self.found is not None or self.awaited is not None:
            refused = refusal(merged(self.found, self.awaited), self.flow_run.key)
            if refused is not None:
                return refused
        if self.found is not None:
            self.values = self.found.replace(self.values, value_of)
        # Checked before any attempt: another one could not mend them.
        self.flow_run.parameters = self._parameters()
        return None

    def _parameters(self) -> dict[str, object]:
        """Give the parameters by name, converted by annotation where that is asked for."""
        signature = self.flow.signature
        parameters = dict(zip(signature.parameters, self.values, strict=True))
        if not self.flow.validate_parameters:
            return parameters
        return coerce(signature, parameters, name=self.flow.name)

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
            run.kept, run.kept_codec = held_of(state)
        elif isinstance(problem := problem_in(state), BaseException):
            run.error = describe(problem)
        if self.live.resumption is not None and self.is_outermost:
            self.live.resumption.tell(run)
        self.recorder.record(ENDED, run)
        try:
            if not isinstance(self.live.fatal, LeaseLost):
                run_hooks(self.flow.flow_hooks, self.flow, run, state)
        finally:
            run.outcome = state
            self._end_stand_in(state)
            if self.parent is None:
                self.recorder.flush()
            self._let_go()
        lost = self.live.fatal
        return exception_to_crashed_state(lost) if isinstance(lost, LeaseLost) else state

    def _let_go(self) -> None:
        """Let go of the claim on the flow run, and of what was read of it."""
        if self.is_outermost:
            if self.live.ledger.lease is not None:
                self.recorder.let_go(self.live.ledger.lease)
            if self.live.resumption is not None:
                self.live.resumption.close()

    def _lose(self) -> None:
        """Stop: another process drives the flow run now, and nothing more is recorded of it."""
        problem = LeaseLost(
            f"Flow run {self.flow_run.name!r} is driven by another process now. This one can "
            "record no more of it, and stops."
        )
        logger.error("%s", problem)
        self.live.fatal = self.problem = problem
        self.live.lose()
        if self._break_off is not None:
            self._break_off()

    def _end_stand_in(self, state: State) -> None:
        run = self.stand_in
        if run is None or not self.owns_stand_in:
            return
        mirrored = State(state.type, state.name, state.message, state.at, state.data, run.key)
        if isinstance(state, KeptState):
            mirrored = KeptState.of(mirrored, *state.small(), state.at)
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
        self._break_off = interruption.fire
        try:
            if timer is not None or self.is_outermost:
                value = interruption.call(self._body, (), {})
            else:
                value = self._body()
            return kept_flow_state(self.flow_run, self._conclude(value))
        except BaseException as exc:
            return self._broken_off(self.problem or exc, interruption.fired)
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
        loop, asyncio_task = asyncio.get_running_loop(), asyncio.current_task()
        self._break_off = partial(loop.call_soon_threadsafe, asyncio_task.cancel)
        try:
            async with limit:
                args, kwargs = self._arguments()
                value = settled_value(await collected(self.flow.fn(*args, **kwargs)))
                await self._aleave()
                await await_elsewhere(value)
            if limit.expired():
                # The flow's code has swallowed the cancellation.
                raise TimeoutError
            return await akept_flow_state(self.flow_run, self._conclude(value))
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
        arguments: tuple[tuple[object, ...], dict[str, object]] = self.flow.signature.arguments(
            self.flow_run.parameters
        )
        return arguments

    # Leaving, and what the run comes to.

    def _leave(self) -> None:
        """Wait for everything that was submitted."""
        bell: SimpleQueue[None] = SimpleQueue()
        self.live.when_idle(lambda: bell.put(None))
        with slot_left():
            take(bell)

    async def _aleave(self) -> None:
        signal = await_signal()
        self.live.when_idle(signal.ring)
        await signal.wait([], None)

    def _conclude(self, value: Any) -> State:
        facts = FlowFacts(self._settled_state, self.live.unseen(), self.live.total)
        state = crashed_by(self.live.fatal, flow_state(value, facts, time_ns(), self.flow_run.key))
        # Asked for afterwards: deciding on the state looks at what the value holds.
        names = self.live.unseen_names() if value is not None else []
        if names and state.type is StateType.COMPLETED:
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
        deadline, pause = monotonic() + self._stop_tasks(state, exc), 1.0
        bell: SimpleQueue[bool] = SimpleQueue()
        self.live.when_idle(lambda: bell.put(True))
        try:
            with slot_left():
                while monotonic() < deadline:
                    if take(bell, min(pause, max(0.0, deadline - monotonic()))):
                        return state
                    self._say_what_is_waited_for()
                    pause = min(2 * pause, _LONGEST_SILENCE_SECONDS)
        except (KeyboardInterrupt, TerminationSignal) as interrupt:
            if state.type is not StateType.CRASHED:
                # The first one: it ends a flow run that was only being left.
                return self._broken_off(interrupt, False)
        self.live.give_up()
        return state

    async def _abroken_off(self, exc: BaseException, is_out_of_time: bool) -> State:
        if self.problem is not None:
            exc = self.problem
        state = self._state_of_end(exc, is_out_of_time)
        deadline, pause = monotonic() + self._stop_tasks(state, exc), 1.0
        signal = await_signal()
        self.live.when_idle(signal.ring)
        try:
            while monotonic() < deadline:
                if await signal.wait([], min(pause, max(0.0, deadline - monotonic()))):
                    return state
                self._say_what_is_waited_for()
                pause = min(2 * pause, _LONGEST_SILENCE_SECONDS)
        except BaseException as interrupt:
            if state.type is not StateType.CRASHED:
                # The first one: it ends a flow run that was only being left.
                return await self._abroken_off(interrupt, False)
        self.live.give_up()
        return state

    def _state_of_end(self, exc: BaseException, is_out_of_time: bool) -> State:
        now, key = time_ns(), self.flow_run.key
        if is_out_of_time and isinstance(exc, (Interrupted, TimeoutError)):
            seconds = self.flow.timeout_seconds
            problem = RunTimedOut(timeout_message(FLOW_RUN, seconds))
            return timed_out(problem, FLOW_RUN, seconds, now, key)
        return crashed_by(self.live.fatal, raised(exc, FLOW_RUN, now, key))

    def _stop_tasks(self, state: State, exc: BaseException) -> float:
        """Cancel what must not go on, and give how long to wait for the rest, in seconds."""
        if state.type is StateType.FAILED and not isinstance(state.data, RunTimedOut):
            self.live.cancel_unstarted()
            return float("inf")
        self._say_what_is_waited_for()
        self.live.stop_all()
        if isinstance(state.data, RunTimedOut):
            return _TIMEOUT_PATIENCE_SECONDS
        return _PATIENCE_SECONDS.get(type(exc), 10.0)

    def _say_what_is_waited_for(self) -> None:
        names = self.live.open_names()
        if names:
            shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            noun = "task run" if len(names) == 1 else "task runs"
            logger.warning("Waiting for %d %s to stop: %s", len(names), noun, shown)

    def _take_signal(self, problem: BaseException) -> None:
        self.problem = problem
