"""Attempts: call the function once, contain whatever it does, and say how that ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import time_ns
from types import CoroutineType
from typing import Any

from penstock.annotations import Dependency
from penstock.core.inputs import SCALARS
from penstock.core.outcomes import raised, returned, settled_value, timed_out, timeout_message
from penstock.errors import CancelledRun, RunTimedOut
from penstock.runs import TaskRun
from penstock.runtime.context import current_run
from penstock.runtime.interrupts import Interrupted, Interruption
from penstock.states import State, StateType

TASK_RUN = "Task run"


def attempt(
    run: TaskRun,
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
    interruption: Interruption | None = None,
) -> State:
    """Call a synchronous function once, in this thread.

    Args:
        interruption: makes the call interruptible by a time limit or a cancellation.
    """
    token = current_run.set(run)
    try:
        if interruption is None:
            value = function(*args, **kwargs)
        else:
            value = interruption.call(function, args, kwargs)
        if type(value) not in SCALARS:
            value = _resolved(settled_value(value))
    except BaseException as exc:
        return raised(exc, TASK_RUN, time_ns(), run.key)
    finally:
        current_run.reset(token)
    return returned(value, time_ns(), run.key)


async def aattempt(
    run: TaskRun, function: Callable[..., Any], args: Any, kwargs: Any, seconds: float | None
) -> State:
    """Call a function once on the running loop, for at most some seconds.

    What cancels the surrounding asyncio task is contained as well; the caller decides on it.
    """
    token = current_run.set(run)
    try:
        result = function(*args, **kwargs)
        if seconds is None and type(result) is CoroutineType:
            value = await result
        else:
            value = await _awaited(result, seconds)
        if type(value) not in SCALARS:
            value = settled_value(value)
            if isinstance(value, Dependency) and not isinstance(value, State):
                value = await value  # type: ignore[misc]
    except _OutOfTime:
        return timed_out_state(run, seconds or 0.0)
    except BaseException as exc:
        return raised(exc, TASK_RUN, time_ns(), run.key)
    finally:
        current_run.reset(token)
    return returned(value, time_ns(), run.key)


class _OutOfTime(Exception):
    """Our own time limit was reached: not a TimeoutError of the user's."""


async def _awaited(result: Any, seconds: float | None) -> Any:
    if seconds is None:
        return await collected(result)
    asyncio = sys.modules["asyncio"]
    try:
        async with asyncio.timeout(seconds) as limit:
            value = await collected(result)
    except TimeoutError:
        if limit.expired():
            raise _OutOfTime from None
        raise
    if limit.expired():
        # The function swallowed its cancellation and went on.
        raise _OutOfTime
    return value


async def collected(result: Any) -> Any:
    """Await what an async function gave: an async generator becomes a list."""
    if hasattr(result, "__aiter__"):
        return [value async for value in result]
    return await result if hasattr(result, "__await__") else result


def _resolved(value: Any) -> Any:
    """Give the value of a future that a task returned, waiting for it outside the slot."""
    if isinstance(value, Dependency) and not isinstance(value, State):
        return value.result()  # type: ignore[attr-defined]
    return value


def timed_out_state(run: TaskRun, seconds: float) -> State:
    """Give the state of a task run that exceeded its time limit."""
    problem = RunTimedOut(timeout_message(TASK_RUN, seconds))
    return timed_out(problem, TASK_RUN, seconds, time_ns(), run.key)


def cancelled_state(run: TaskRun, message: str = "The task run was cancelled.") -> State:
    """Give the state of a task run that was cancelled."""
    return State(StateType.CANCELLED, None, message, time_ns(), CancelledRun(message), run.key)


def is_interruption(state: State) -> bool:
    """Tell whether an attempt ended because it was interrupted from outside."""
    return isinstance(state.data, Interrupted)
