"""TaskCall: a submitted task run on its way through a task runner."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from penstock.clock import Timer, clock
from penstock.core.dependencies import Readiness
from penstock.core.inputs import Found
from penstock.core.outcomes import raised
from penstock.runs import TaskRun
from penstock.runtime.attempts import (
    TASK_RUN,
    aattempt,
    attempt,
    cancelled_state,
    is_interruption,
    timed_out_state,
)
from penstock.runtime.consulting import consultation
from penstock.runtime.interrupts import Interruption, was_sent
from penstock.runtime.keeping import akept, keeps, kept
from penstock.runtime.settling import out_of_turn
from penstock.runtime.task_runs import begin_attempt, new_life
from penstock.runtime.upstreams import Upstreams, bring, value_of
from penstock.states import State
from penstock.task_runners.base import NO_TICKET, BaseTaskRunner, Loop
from penstock.task_runners.slots import Slot, current_slot

if TYPE_CHECKING:
    from penstock.runtime.live import LiveFlowRun


_NO_KWARGS: dict[str, object] = {}


class TaskCall:
    """A task run between its submission and its end; executes one attempt after another.

    Implements the `Call` protocol of task runners.
    """

    __slots__ = (
        "_args",
        "_asyncio_task",
        "_interruption",
        "_key",
        "_kwargs",
        "_token",
        "_values",
        "cargo",
        "context",
        "found",
        "is_async",
        "is_cancelled",
        "life",
        "live",
        "loop",
        "memo",
        "number",
        "priority",
        "readiness",
        "runner",
        "slot",
        "task",
        "task_run",
        "ticket",
        "timer",
        "upstreams",
    )

    def __init__(
        self,
        live: LiveFlowRun,
        task: Any,
        task_run: TaskRun,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        found: Found | None,
        runner: BaseTaskRunner,
        loop: Loop,
    ) -> None:
        self.live = live
        self.task = task
        self.task_run = task_run
        self._args = args
        self._kwargs = kwargs or _NO_KWARGS
        self._values = task_run.values
        self.found = found
        self.runner = runner
        self.loop = loop
        self.is_async: bool = task.is_async
        self.priority: int = task.priority
        self.context: Context = copy_context()
        self.life = new_life(task)
        self.number = 0
        self.ticket = NO_TICKET
        self.slot: Slot | None = None
        self.timer: Timer | None = None
        self.readiness: Readiness | None = None
        self.upstreams: Upstreams = {}
        self.is_cancelled = False
        # What its runner keeps with it, and what calls of one `map` share there.
        self.cargo: Any = None
        self.memo: dict[int, Any] | None = None
        self._interruption: Interruption | None = None
        self._asyncio_task: Any = None
        self._token = NO_TICKET
        self._key: UUID | None = None

    @property
    def key(self) -> UUID:
        """The id of this attempt: of the task run at first, a new one for each retry."""
        if self._key is None:
            self._key = self.task_run.id if self.task_run.attempt == 0 else uuid4()
        return self._key

    @property
    def resources(self) -> Mapping[str, float]:
        """What a run of the task takes, by name."""
        resources: Mapping[str, float] = self.task.resources
        return resources

    @property
    def values(self) -> tuple[object, ...]:
        """The values of the parameters, futures among them."""
        return self._values or ()

    def __call__(self) -> Awaitable[State]:
        """Execute one attempt anywhere; awaiting gives its State."""
        return self._execute_anywhere()

    def run(self) -> None:
        """Execute one attempt of a synchronous task here and report its end."""
        token = self._token
        if self.runner.runs_in_caller:
            self._run_in_caller(token)
        else:
            self._report(token, self.context.run(self._execute, token))

    def _run_in_caller(self, token: list[None]) -> None:
        with out_of_turn():
            state = self.context.run(self._execute, token)
        self._report(token, state)
        if was_sent(state.data):
            # A signal meant the whole flow run; the task run only happened to be there.
            raise state.data

    async def arun(self) -> None:
        """Execute one attempt on the running loop, in the current context, and report its end."""
        token = self._token
        self._report(token, await self._aexecute())

    def finished(self, state: State) -> None:
        """Report how the attempt ended. Thread-safe; only the first report of an attempt counts."""
        self._report(self._token, state)

    def arrive(self, upstream: TaskRun) -> None:
        """Note that an upstream has settled."""
        assert self.readiness is not None
        if self.readiness.arrive():
            self.live.upstreams_settled(self)

    def get_ready(self) -> None:
        """Get ready for the next attempt, before it is placed."""
        if self._token or self.task_run.attempt:
            # The thread of an attempt that was given up may still be inside the old context.
            self.context = self.context.copy()
        self._token = [None]
        self._interruption = None
        self._key = None

    def stop(self) -> None:
        """Stop the attempt that runs, as far as that is possible, and end it CANCELLED."""
        self.is_cancelled = True
        asyncio_task = self._asyncio_task
        if asyncio_task is None:
            self._end_early(self._token, cancelled_state(self.task_run))
            self.runner.interrupt(self)
            return
        # A loop that is closed has ended its tasks.
        with suppress(RuntimeError):
            asyncio_task.get_loop().call_soon_threadsafe(asyncio_task.cancel)

    def let_go(self) -> None:
        """Drop the arguments: the run has ended."""
        self._args, self._kwargs, self._values, self.found = (), {}, None, None

    def _report(self, token: list[None], state: State) -> None:
        try:
            token.pop()
        except IndexError:
            return
        self.live.advance(self, state)

    def _start(self, token: list[None]) -> State | None:
        """Enter RUNNING; a state is given when the attempt is over before it began.

        The token is held meanwhile, so that nobody ends the run while it is being started.
        Whoever would have cancelled it has left word in `is_cancelled`.
        """
        try:
            token.pop()
        except IndexError:
            return cancelled_state(self.task_run)
        try:
            if not self.is_cancelled:
                self._prepare()
        except Exception as exc:
            return raised(exc, TASK_RUN, self.live.now(), self.task_run.key)
        finally:
            token.append(None)
        return cancelled_state(self.task_run) if self.is_cancelled else None

    def _prepare(self) -> None:
        """Enter RUNNING with the arguments resolved; that happens once, before any attempt."""
        begin_attempt(self.task_run, self.live.recorder)
        if self.found is not None:
            self._resolve(self.found)

    def _resolve(self, found: Found) -> None:
        assert self._values is not None
        self._values = self.task_run.values = found.replace(self._values, value_of)
        self._args, self._kwargs = self.task.signature.call_arguments(self._values)
        self.found = None

    def _may_be_cached(self) -> bool:
        """Tell whether to ask the cache: of the first attempt, with its arguments resolved."""
        if self.task_run.cache is not None or self.is_cancelled:
            return False
        if self.found is not None:
            try:
                self._resolve(self.found)
            except Exception:
                return False  # it is raised again when the attempt begins
        return True

    def _is_ended(self, token: list[None]) -> bool:
        return not token or self.is_cancelled

    def _execute(self, token: list[None]) -> State:
        run = self.task_run
        current_slot.set(self.slot)
        interruption = self._interruption = Interruption()
        ended = None
        if self.task.cache_key_fn is not None and self._may_be_cached():
            ended = consultation(run, self.task, partial(self._is_ended, token)).consult()
        ended = ended or self._start(token)
        if ended is not None:
            return ended
        seconds = self.task.timeout_seconds
        timer = None
        if seconds is not None:
            timer = clock.call_later(seconds, partial(self._time_over, interruption, token))
        state = attempt(run, self.task.fn, self._args, self._kwargs, interruption)
        if timer is not None:
            timer.cancel()
        if interruption.fired and is_interruption(state):
            return cancelled_state(run) if self.is_cancelled else timed_out_state(run, seconds)
        policy = self.live.flow_run.results
        return kept(run, state, policy) if keeps(self.task, policy) else state

    async def _aexecute(self) -> State:
        run = self.task_run
        current_slot.set(self.slot)
        self._asyncio_task = self.loop.current_task()
        try:
            if self.found is not None:
                await bring(self.found.dependencies)
            ended = None
            if self.task.cache_key_fn is not None and self._may_be_cached():
                is_ended = partial(self._is_ended, self._token)
                ended = await consultation(run, self.task, is_ended).aconsult()
            ended = ended or self._start(self._token)
            if ended is not None:
                return ended
            state = await aattempt(
                run, self.task.fn, self._args, self._kwargs, self.task.timeout_seconds
            )
            policy = self.live.flow_run.results
            return await akept(run, state, policy) if keeps(self.task, policy) else state
        finally:
            self._asyncio_task = None

    async def _execute_anywhere(self) -> State:
        import asyncio

        if self.is_async:
            return await asyncio.create_task(self._aexecute(), context=self.context)
        if not self.loop.runs_here():
            return self.context.run(self._execute, self._token)
        # On the flow's own loop a synchronous task would hold up everything else.
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def execute() -> None:
            state = self.context.run(self._execute, self._token)
            # The loop is gone when the run ended early, by its time limit, and the flow with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, ended, state)

        threading.Thread(target=execute, name="penstock-call", daemon=True).start()
        state: State = await ended
        return state

    def _time_over(self, interruption: Interruption, token: list[None]) -> None:
        if not token:
            return
        interruption.fire()
        if not interruption.is_main:
            # A thread may not notice for long: the run is final now.
            self._give_up(token)
        elif (patience := getattr(self.slot, "gives_up_after", None)) is not None:
            # Code that goes on regardless is ended from outside, once its run is final.
            clock.call_later(patience, partial(self._give_up, token))

    def _give_up(self, token: list[None]) -> None:
        """End an attempt whose time is over, if it has not ended."""
        if not token:
            return
        # Not on the clock's thread, where hooks of the user's would hold up every other delay.
        state = timed_out_state(self.task_run, self.task.timeout_seconds)
        threading.Thread(
            target=self._end_early, args=(token, state), name="penstock-timeout", daemon=True
        ).start()

    def _end_early(self, token: list[None], state: State) -> None:
        """End an attempt whose code may go on for a while."""
        interruption, slot = self._interruption, self.slot
        if interruption is not None:
            interruption.fire()
        try:
            token.pop()
        except IndexError:
            return
        if slot is not None:
            slot.abandon()
        self.live.advance(self, state)


def _resolve(future: Any, state: State) -> None:
    if not future.done():
        future.set_result(state)
