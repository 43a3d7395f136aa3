"""How code waits for task runs: blocking or awaiting, without holding a slot, and never for ever.

Before it waits, a task run says what it waits for, so that a circle of waits is found at once.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from penstock.core.inputs import find
from penstock.errors import BlockingWaitError
from penstock.runs import FlowRun, TaskRun
from penstock.runtime.blocking import is_service_thread, take
from penstock.runtime.context import current_run
from penstock.runtime.deadlocks import refuse_circle, unfinished_upstreams
from penstock.runtime.interrupts import shielded
from penstock.runtime.loops import LoopAlarm, running_loop
from penstock.runtime.settling import catch_up
from penstock.runtime.upstreams import run_of
from penstock.task_runners.slots import current_slot, slot_left, slot_left_async

T = TypeVar("T")


def wait_for_run(run: TaskRun, timeout: float | None) -> bool:
    """Block until a task run is over; tell whether it is."""
    live = run.live
    catch_up()
    _refuse_to_block_the_loop(run)
    if current_slot.get() is not None and timeout is None:
        # A worker that would only wait can as well do the work itself.
        _run_inline(run)
    if run.outcome is not None:
        return True
    bell: SimpleQueue[TaskRun] = SimpleQueue()
    live.when_over(run, bell.put)
    return block_until(bell, [run], timeout) is not None


def block_until(bell: SimpleQueue[T], runs: Sequence[TaskRun], timeout: float | None) -> T | None:
    """Block until something arrives in a queue; None when the timeout passed first.

    Args:
        bell: what is waited for.
        runs: the task runs that are expected to ring.
        timeout: seconds; None waits as long as it takes.
    """
    catch_up()
    try:
        return bell.get_nowait()
    except Empty:
        for run in runs:
            _refuse_to_block_the_loop(run)
    # A wait that ends by itself makes no deadlock.
    with said_to_wait(runs if timeout is None else ()), slot_left():
        return take(bell, timeout)


def _run_inline(run: TaskRun) -> None:
    """Run a placed call that no worker has taken yet in this thread, if there is one."""
    call, slot = run.live.call_of(run), current_slot.get()
    if call is None or call.is_async or slot is None:
        return
    if call.resources or call.runner.runs_elsewhere:
        return
    lent = slot.lend()
    if lent is None:
        return
    try:
        if call.runner.take_back(call):
            call.slot = lent
            with shielded():
                call.run()
    finally:
        slot.take_home(lent)


class AwaitedSignal:
    """Something that any thread can ring and the running loop can wait for."""

    def __init__(self) -> None:
        import asyncio

        self._asyncio = asyncio
        self._alarm = LoopAlarm.of(asyncio.get_running_loop())
        self._waiter: Any = self._alarm.loop.create_future()

    def ring(self, *_: object) -> None:
        """Wake whoever waits. Thread-safe."""
        self._alarm.ring(self._waiter)

    async def wait(self, runs: Sequence[TaskRun], timeout: float | None) -> bool:
        """Wait until it rings, and get ready to ring again; False when the time was over."""
        with said_to_wait(runs if timeout is None else ()):
            async with slot_left_async():
                await self._asyncio.wait([self._waiter], timeout=timeout)
        if not self._waiter.done():
            return False
        self._waiter = self._alarm.loop.create_future()
        return True


def await_signal() -> AwaitedSignal:
    """Make a signal on the running loop."""
    return AwaitedSignal()


def steps_until(run: TaskRun) -> Generator[Any, None, None]:
    """Give the steps of awaiting the end of a task run on the running loop."""
    loop = run.live.loop
    alarm = loop.alarm if loop.runs_here() else LoopAlarm.of(running_loop())
    waiter = alarm.waiter_for(run)
    if current_slot.get() is None:
        yield from waiter
    else:
        yield from _wait_outside_slot(run, waiter).__await__()


async def _wait_outside_slot(run: TaskRun, waiter: Any) -> None:
    with said_to_wait([run]):
        async with slot_left_async():
            await waiter


class await_run:
    """Await the end of a task run on the running loop."""

    __slots__ = ("_run",)

    def __init__(self, run: TaskRun) -> None:
        self._run = run

    def __await__(self) -> Generator[Any, None, None]:
        return steps_until(self._run)


@contextmanager
def said_to_wait(runs: Sequence[TaskRun]) -> Iterator[None]:
    """Say that the current task run waits for others.

    Raises:
        DeadlockError: they wait, in the end, for the current one.
    """
    waiter = current_run.get()
    if isinstance(waiter, FlowRun):
        waiter = waiter.parent
    if not isinstance(waiter, TaskRun) or not runs:
        yield
        return
    waiter.waits = [*waiter.waits, runs]
    try:
        for run in runs if len(runs) == 1 else ():
            refuse_circle(waiter, run)
        yield
    finally:
        waiter.waits = [wait for wait in waiter.waits if wait is not runs]


def _refuse_to_block_the_loop(run: TaskRun) -> None:
    if is_service_thread() and run.outcome is None:
        raise BlockingWaitError(
            f"Waiting here for task run {run.name!r} would block the thread that has to take in "
            "its end. Do not wait for task runs in a done callback."
        )
    if "asyncio" not in sys.modules or run.live is None or run.outcome is not None:
        return
    if running_loop() is not None and _needs_this_loop(run):
        raise BlockingWaitError(
            f"Waiting here for task run {run.name!r} would block the event loop that has to "
            "run it. Use 'await future' instead of 'future.result()' or 'future.wait()'."
        )


def _needs_this_loop(run: TaskRun) -> bool:
    """Tell whether a task run can only end while the calling thread's loop goes on."""
    seen, pending = {run}, [run]
    while pending:
        one = pending.pop()
        call = one.live.call_of(one)
        if call is None:
            continue
        if (call.is_async or call.runner.suspends) and call.loop.runs_here():
            return True
        for upstream in unfinished_upstreams(one):
            if upstream not in seen:
                seen.add(upstream)
                pending.append(upstream)
    return False


async def await_elsewhere(value: Any) -> None:
    """Await the futures of other flow runs in a value: leaving only waits for one's own."""
    found = find((value,))
    for dependency in () if found is None else found.dependencies:
        run = run_of(dependency)
        if run is not None and run.outcome is None:
            await await_run(run)
