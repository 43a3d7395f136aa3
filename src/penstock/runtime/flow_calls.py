"""The ways into a flow run: called, or as the function of a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from penstock.runs import TaskRun
from penstock.runtime.context import current_run
from penstock.runtime.direct import run_blocking, told
from penstock.runtime.flow_runs import FlowExecution
from penstock.runtime.unpacking import refuse_while_unpacking
from penstock.states import State
from penstock.task_runners.slots import slot_left


def call_flow(
    flow: Any,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    return_state: bool,
    wait_for: Any,
) -> Any:
    """Run a flow; give its result or state, or a coroutine for an async flow."""
    refuse_while_unpacking(flow.name)
    # Arguments that do not fit are refused by the call, also where that gives a coroutine.
    values = flow.signature.values(args, kwargs)
    if not flow.is_async:
        return told(FlowExecution(flow, values, wait_for).execute(), return_state)
    parent = current_run.get()
    awaited = partial(_acall, flow, values, return_state, wait_for)
    if parent is None or parent.is_async:
        return awaited()
    with slot_left():
        return run_blocking(parent.live, awaited)


async def _acall(flow: Any, values: tuple[object, ...], return_state: bool, wait_for: Any) -> Any:
    return told(await FlowExecution(flow, values, wait_for).aexecute(), return_state)


def as_task(flow: Any) -> Callable[..., Any]:
    """Make the function of the task that a flow is when it is submitted or mapped.

    The task run stands for the flow run, and ends in the same state.
    """

    def run_as_task(*args: Any, **kwargs: Any) -> State:
        values = flow.signature.values(args, kwargs)
        return FlowExecution(flow, values, None, stand_in=_stand_in()).execute()

    async def arun_as_task(*args: Any, **kwargs: Any) -> State:
        values = flow.signature.values(args, kwargs)
        return await FlowExecution(flow, values, None, stand_in=_stand_in()).aexecute()

    return arun_as_task if flow.is_async else run_as_task


def _stand_in() -> TaskRun:
    run = current_run.get()
    assert isinstance(run, TaskRun)
    return run
