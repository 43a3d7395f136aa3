"""LiveFlowRun: a flow run while it runs. Places task runs when they are ready, settles them,
and knows which are still open and which failures nobody has looked at.

    submit ──► wait for upstreams ──► advance(life) ──► runner.place ──► call runs
                     │ not completed        ▲                               │
                     ▼                      └── Retry ◄── report ◄──────────┘
                 NotReady                                   │ final
                                                            ▼
                                     finish: record, hooks, tell waiters, release dependents
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from time import sleep, time_ns
from typing import Any

from penstock.clock import clock
from penstock.core.dependencies import Readiness
from penstock.core.inputs import Found, find
from penstock.core.lifecycle import ATTEMPT, Retry, is_loss
from penstock.errors import LeaseLost
from penstock.history.ledgers import Ledger
from penstock.history.recorder import CHANGED, Recorder
from penstock.runs import FlowRun, TaskRun
from penstock.runtime.attempts import cancelled_state
from penstock.runtime.calls import TaskCall
from penstock.runtime.cancellation import (
    cancel,
    cancel_unstarted,
    give_up,
    is_stopped,
    stop_all,
)
from penstock.runtime.enrolment import Enrolment
from penstock.runtime.in_caller import end_in_caller, loop_in_caller, off_service_threads
from penstock.runtime.loops import FlowLoop
from penstock.runtime.resumption import Resumption
from penstock.runtime.runners import Runners
from penstock.runtime.settling import call_back, call_when_over, take_turn
from penstock.runtime.task_runs import (
    ask_retry,
    await_retry,
    make_task_run,
    new_life,
    settle,
)
from penstock.runtime.unseen import Failures
from penstock.runtime.upstreams import Upstreams, awaited_in, keys_of, merged, refusal, run_of
from penstock.runtime.visible import VisibleFlowRun
from penstock.states import State, StateType, exception_to_crashed_state
from penstock.task_runners.base import BaseTaskRunner

COMPLETED, CANCELLED = StateType.COMPLETED, StateType.CANCELLED
logger = logging.getLogger("penstock.flow_runs")
_registry: dict[bytes, LiveFlowRun] = {}
_PLACED_TOGETHER = 64


def live_flow_runs() -> list[LiveFlowRun]:
    """Give the flow runs that run in this process now, outermost first."""
    return list(_registry.values())


class LiveFlowRun(VisibleFlowRun):
    """The running side of one flow run. Thread-safe.

    Attributes:
        flow_run, flow: what runs.
        recorder: where everything is recorded.
        ledger: what the recorder knows of this flow run.
        task_runner: its main task runner, started on first use.
        loop: the loop for asynchronous tasks: the caller's in an async flow.
        side_loop: a loop that is never the caller's, for blocking calls of async code.
        resumption: what it has already, when it is continued.
        has_kept: there may be task runs that need not run again.
    """

    task_run_class = TaskRun

    def __init__(
        self,
        flow: Any,
        flow_run: FlowRun,
        recorder: Recorder,
        runner: BaseTaskRunner,
        loop: Any,
        ledger: Ledger,
        resumption: Resumption | None,
    ) -> None:
        self.flow = flow
        self.flow_run = flow_run
        self.recorder = recorder
        self.ledger = ledger
        self.resumption = resumption
        self.has_kept = resumption is not None
        self.task_runner = runner
        self.loop = FlowLoop(loop)
        self.side_loop = self.loop if loop is None else FlowLoop()
        self.lock = threading.Lock()
        self._enrolment = Enrolment(flow_run.key, recorder, resumption)
        self._numbers = self._enrolment.entries
        self._task_names = self._enrolment.names
        self.total = 0
        self.kept: dict[bytes, TaskRun] = {}
        self.exported: dict[bytes, TaskRun] = {}
        self.fatal: BaseException | None = None
        self._open: dict[TaskRun, TaskCall] = {}
        self._ending: dict[object, None] = {}
        self._failures = Failures()
        self.runners = Runners(runner, self.loop)
        self._idle_rings: list[Callable[[], object]] = []
        self.is_ending = False
        self.started_at = time_ns()
        _registry[flow_run.key] = self

    # Task runs come in.

    def identify(self, digest: bytes, parent: Any) -> bytes | None:
        """Give the identity of a task run from its input digest and the run it is made in."""
        return self._enrolment.identify(digest, parent)

    def kept_run(self, run: TaskRun) -> TaskRun | None:
        """Give the task run that a new one need not be run for; None where it has to run."""
        kept = None if run.identity is None else self.kept.get(run.identity)
        if kept is None and self.resumption is not None and self.resumption.revive(run):
            run.live, run.recorder = self, self.recorder
            kept = run
        if kept is not None:
            self.total += 1
        return kept

    def below(self, stand_in: TaskRun) -> Resumption | None:
        """Give what a subflow run has already that was begun before and did not complete."""
        return None if self.resumption is None else self.resumption.below(stand_in)

    def enrol(self, run: TaskRun) -> None:
        """Number a new task run of this flow run.

        Raises:
            LeaseLost: another process drives the flow run now.
        """
        if self.fatal is not None and isinstance(self.fatal, LeaseLost):
            # Code that has swallowed the interruption is not to go on for ever.
            raise self.fatal
        task = run.definition
        entry = self._numbers.get((task.key, task.name)) or self._enrolment.add(task)
        run.live = self
        run.recorder = self.recorder
        run.task_number = entry[0]
        run.number = next(entry[1])
        self.total += 1

    def submit(
        self, task: Any, args: tuple[object, ...], kwargs: dict[str, object], wait_for: Any = None
    ) -> TaskRun:
        """Submit one task run: it is placed once its upstreams have settled."""
        return self.submit_after(task, args, kwargs, awaited_in(wait_for))

    def submit_after(
        self,
        task: Any,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        awaited: Found | None,
        key: bytes | None = None,
        memo: dict[int, Any] | None = None,
    ) -> TaskRun:
        """Submit one task run that waits for what was found in `wait_for`, too.

        Args:
            key, memo: the id that its run was given elsewhere, and what it shares with others.
        """
        run, call = self._take_in(task, args, kwargs, awaited, key)
        if call is not None:
            call.memo = memo
            self.advance(call, None)
            end_in_caller(call)
        return run

    def submit_all(
        self, task: Any, calls: Iterable[tuple[Any, Any]], wait_for: Any = None
    ) -> list[TaskRun]:
        """Submit many task runs of one task, placing those that are ready in groups."""
        runs: list[TaskRun] = []
        ready: list[TaskCall] = []
        memo: dict[int, Any] = {}
        awaited = awaited_in(wait_for)
        try:
            for args, kwargs in calls:
                run, call = self._take_in(task, args, kwargs, awaited)
                runs.append(run)
                if call is not None:
                    call.memo = memo
                    ready.append(call)
                    if len(ready) == _PLACED_TOGETHER:
                        self._begin(ready)
                        ready = []
        finally:
            # Also when the arguments of a later call are refused: these have been taken in.
            self._begin(ready)
        return runs

    def _take_in(
        self,
        task: Any,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        awaited: Found | None,
        key: bytes | None = None,
    ) -> tuple[TaskRun, TaskCall | None]:
        """Make a task run and its call; the call is given only when it is ready now."""
        values = task.signature.values(args, kwargs)
        found = find(values)
        running = self.runners.running(task.task_runner)
        if task.resources:
            running.runner.check_resources(task.name, task.resources)
        self.recorder.make_room()
        run = make_task_run(task, values, found, self, key)
        if run.outcome is not None:
            return run, None
        loop = running.loop
        if running.runner.runs_in_caller and task.is_async:
            loop = loop_in_caller(loop, self.side_loop)
        call = TaskCall(self, task, run, args, kwargs, found, running.runner, loop)
        self._open[run] = call
        self.recorder.record(CHANGED, run)
        if found is None and awaited is None:
            return run, call
        if awaited is not None:
            run.upstream += keys_of(awaited)
        return run, call if self._await_upstreams(call, merged(found, awaited)) else None

    def _await_upstreams(self, call: TaskCall, upstreams: Upstreams) -> bool:
        """Have the call go on once its upstreams have settled; tell whether that is now."""
        call.upstreams = upstreams
        call.readiness = Readiness(len(upstreams))
        arrive = call.arrive
        for dependency in upstreams:
            run = run_of(dependency)
            if run is None:
                call.readiness.arrive()
            else:
                run.live.when_over(run, arrive)
        if not call.readiness.arrive():
            if call.runner.foresees:
                call.runner.foresee(call)
            end_in_caller(call)
            return False
        return self._is_let_through(call)

    def upstreams_settled(self, call: TaskCall) -> None:
        """Go on with a call whose last upstream has settled."""
        if not call.task_run.is_over and self._is_let_through(call):
            self.advance(call, None)

    def _is_let_through(self, call: TaskCall) -> bool:
        """Tell whether all upstreams completed; otherwise the run ends NotReady."""
        refused = refusal(call.upstreams, call.task_run.key)
        if refused is None:
            call.upstreams = {}
            return True
        self.finish(call, refused)
        return False

    def _begin(self, calls: Sequence[TaskCall]) -> None:
        """Begin the lives of calls of one task and place them together."""
        placeable = []
        for call in calls:
            if not call.task_run.is_over:
                if call.life is not None:
                    # The first thing any life wants is an attempt.
                    call.life.send(None)
                call.get_ready()
                placeable.append(call)
        if placeable:
            self._place(placeable)

    def _place(self, calls: Sequence[TaskCall]) -> None:
        off_service_threads(self._place_here, calls)

    def _place_here(self, calls: Sequence[TaskCall]) -> None:
        try:
            calls[0].runner.place(calls)
        except Exception as exc:
            for call in calls:
                call.finished(exception_to_crashed_state(exc))
        for call in calls:
            if call.is_cancelled:
                self._end_cancelled(call)

    def _end_cancelled(self, call: TaskCall) -> None:
        """End a call that was cancelled before it was where it could be taken out of."""
        if call.is_cancelled and (is_stopped(call.timer) or call.runner.take_back(call)):
            self.finish(call, cancelled_state(call.task_run))

    # Task runs go on and end.

    def advance(self, call: TaskCall, answer: Any) -> None:
        """Send the life of a call an answer and perform what it wants done next."""
        life = call.life
        if life is None:
            if answer is not None:
                if is_loss(answer) and call.task.worker_loss_retries:
                    return self._outlive_loss(call, answer)
                return self.finish(call, answer)
            call.get_ready()
            return self._place((call,))
        try:
            command = life.send(answer)
            while True:
                if command is ATTEMPT:
                    call.get_ready()
                    return self._place((call,))
                if isinstance(command, Retry):
                    if not self._retry_here(call, command):
                        return None
                    command = life.send(None)
                    continue
                command = life.send(ask_retry(call.task, call.task_run, command))  # type: ignore[arg-type]
        except StopIteration as end:
            self.finish(call, end.value)

    def _outlive_loss(self, call: TaskCall, state: State) -> None:
        """Go on after the loss of a worker with a call that would have been tried once only."""
        call.life = new_life(call.task, may_be_lost=True)
        assert call.life is not None
        call.life.send(None)
        self.advance(call, state)

    def _retry_here(self, call: TaskCall, command: Retry) -> bool:
        """Arrange for a retry; tell whether it is to be made here and now."""
        await_retry(call.task_run, command, self.recorder)
        if call.is_cancelled or self.is_ending:
            self.finish(call, cancelled_state(call.task_run))
            return False
        if call.runner.runs_in_caller and not call.is_async:
            sleep(command.seconds)
            return True
        call.timer = clock.call_later(command.seconds, lambda: self._retry_now(call))
        self._end_cancelled(call)
        return False

    def _retry_now(self, call: TaskCall) -> None:
        call.timer = None
        if call.runner.runs_in_caller:
            call.loop.spawn(self._advance_on_loop, call)
        else:
            self.advance(call, None)

    async def _advance_on_loop(self, call: TaskCall) -> None:
        self.advance(call, None)

    def finish(self, call: TaskCall, state: State) -> None:
        """End a task run: record it, run its hooks, tell whoever waits for it."""
        take_turn(self._finish, call, state)

    def _finish(self, call: TaskCall, state: State) -> None:
        run = call.task_run
        mark = object()
        self._ending[mark] = None
        try:
            # Taking the run out of the open ones is one atomic step: only one thread ends it.
            if self._open.pop(run, None) is not None:
                if call.is_cancelled and state.type is not CANCELLED:
                    # Whoever cancelled it before this moment was told that it would be.
                    state = cancelled_state(run)
                self._settle(call, run, state)
        finally:
            del self._ending[mark]
        if self._idle_rings and self._is_idle():
            self._ring_idle()

    def _settle(self, call: TaskCall, run: TaskRun, state: State) -> None:
        try:
            settle(run, state, self.recorder)
        finally:
            # Whatever a hook does, those who wait are told.
            self.note_end(run, state)
            run.outcome = state
            if run.callbacks:
                call_back(run, run.callbacks)
            call.let_go()

    def note_end(self, run: TaskRun, state: State) -> None:
        """Keep what the flow run's own end will be decided on."""
        if state.type is COMPLETED:
            if self.flow.retry_policy.retries and run.identity is not None:
                self.kept[run.identity] = run
                self.has_kept = True
        else:
            self._failures.note(run, state)

    def looked_at(self, run: TaskRun) -> None:
        """Note that user code has received how a task run ended."""
        self._failures.look_at(run)

    def when_over(self, run: TaskRun, function: Callable[[TaskRun], object]) -> None:
        """Call a function once a task run is over; at once if it is."""
        call_when_over(run, function, self.lock)

    def export(self, run: TaskRun) -> None:
        """Keep a task run that other processes may ask for, as long as the flow run lasts."""
        self.exported[run.key] = run

    def call_of(self, run: TaskRun) -> TaskCall | None:
        """Give the call of a task run that is open, else None."""
        return self._open.get(run)

    def open_calls(self) -> list[tuple[TaskRun, TaskCall]]:
        """Give the task runs that are open, with their calls."""
        # Copied in one step: making tuples may let other threads change the dictionary.
        return list(self._open.copy().items())

    def now(self) -> int:
        """Give the time in nanoseconds since 1970."""
        return time_ns()

    # Cancelling and ending.

    def cancel(self, run: TaskRun) -> bool:
        """Cancel a task run; tell whether it is or will be cancelled."""
        return cancel(self, run)

    def cancel_unstarted(self) -> None:
        """Cancel what has not started; what runs goes on."""
        self.is_ending = True
        cancel_unstarted(self)

    def stop_all(self) -> None:
        """Cancel what has not started, and stop what runs."""
        self.is_ending = True
        stop_all(self)

    def lose(self) -> None:
        """Stop everything at once: another process drives the flow run now."""
        threading.Thread(target=self.stop_all, name="penstock-lost", daemon=True).start()

    def give_up(self) -> None:
        """End what is still open as CANCELLED, whether its code has stopped or not."""
        give_up(self)

    def when_idle(self, ring: Callable[[], object]) -> None:
        """Call a function once no task run is open; at once if none is."""
        with self.lock:
            self._idle_rings.append(ring)
        if self._is_idle():
            self._ring_idle()

    def _is_idle(self) -> bool:
        return not self._open and not self._ending

    def _ring_idle(self) -> None:
        with self.lock:
            rings, self._idle_rings = self._idle_rings, []
        for ring in rings:
            ring()

    def open_names(self) -> list[str]:
        """Give the names of the task runs that are still open."""
        return [run.name for run in self._open.copy()]

    def unseen(self) -> list[State]:
        """Give the failures nobody looked at, in the order in which they happened."""
        outcomes = [run.outcome for run in self._failures.unseen()]
        return [outcome for outcome in outcomes if outcome is not None]

    def unseen_names(self) -> list[str]:
        """Give the names of the task runs whose failures nobody looked at."""
        return [run.name for run in self._failures.unseen()]

    def begin_again(self) -> None:
        """Get ready for another attempt of the flow: failures of the last one are history."""
        self._enrolment.begin_again()
        self._failures.forget_unseen()
        self.total = 0
        self.is_ending = False

    def close(self) -> None:
        """Stop the runners and the loops."""
        try:
            self.runners.stop()
        finally:
            self.side_loop.close()
            _registry.pop(self.flow_run.key, None)
