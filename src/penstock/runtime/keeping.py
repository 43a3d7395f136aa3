"""Keep the results of attempts and flow runs, before anybody is told that they completed.

A result that cannot be kept, where that is asked for, is a failed attempt: retries apply to it.
Small results of runs that ask for nothing are kept when the run's end is recorded
(`runtime/task_runs.py`); this is about the others.
"""

from __future__ import annotations

import logging
import sys
from time import time_ns
from typing import Any

from penstock.core.outcomes import raised
from penstock.errors import InvalidOptionError
from penstock.results.policy import ResultOptions, ResultPolicy, Subject, keep, policy_of
from penstock.results.small import encode_small
from penstock.runs import FlowRun, Run, TaskRun
from penstock.settings import load_settings
from penstock.states import KeptState, State, StateType, describe_exception

logger = logging.getLogger("penstock.caching")
COMPLETED = StateType.COMPLETED
_TASK_RUN = "Task run"


def policy_in(run: Run | None) -> ResultPolicy:
    """Give what holds for what a run calls; None: outside any run."""
    live = None if run is None else run.live
    policy: ResultPolicy | None = None if live is None else live.flow_run.results
    return policy_of(load_settings()) if policy is None else policy


def keeps(task: Any, policy: ResultPolicy) -> bool:
    """Tell whether results of a task may have to be persisted."""
    return policy.persist or task.results is not None or task.cache_key_fn is not None


def kept(run: TaskRun, state: State, policy: ResultPolicy) -> State:
    """Persist the result of an attempt, if that is asked for; FAILED where it cannot be."""
    if state.type is not COMPLETED or isinstance(state, KeptState):
        return state
    options = run.definition.results  # type: ignore[attr-defined]
    policy = policy.under(options)
    is_for_cache = not policy.persist and _is_to_be_cached(run, options)
    if is_for_cache:
        policy = policy._replace(persist=policy.records)
    if not policy.persist:
        return state
    flow_run = None if run.live is None else run.live.flow_run.key
    try:
        key = None if options is None or options.key is None else _filled_in(options.key, run)
        held, codec = keep(state.data, policy, Subject(flow_run, run.key, run.attempt, key))
    except BaseException as exc:
        # Interrupts too: like those that meet the function itself, they end the attempt.
        if is_for_cache and isinstance(exc, Exception):
            # Nobody has asked to persist it: the run has done its work.
            logger.warning("The value of task run %r is not cached: %s", run.name, exc)
            return state
        return raised(exc, _TASK_RUN, time_ns(), run.key)
    return KeptState.of(state, held, codec, time_ns())


def _is_to_be_cached(run: TaskRun, options: ResultOptions | None) -> bool:
    """Tell whether a value is to be kept because of its cache key, unless the task objects."""
    if run.cache is None or run.cache.key is None:
        return False
    return options is None or options.persist is None


async def akept(run: TaskRun, state: State, policy: ResultPolicy) -> State:
    """Persist the result of an attempt without holding up the running loop."""
    if state.type is not COMPLETED or isinstance(state, KeptState):
        return state
    to_thread = sys.modules["asyncio"].to_thread
    try:
        given: State = await to_thread(kept, run, state, policy)
    except BaseException as exc:
        return raised(exc, _TASK_RUN, time_ns(), run.key)
    return given


def kept_flow_state(run: FlowRun, state: State) -> State:
    """Persist the result of a flow run, if that is asked for.

    Raises:
        ResultStorageError, SerializationError: it cannot be.
    """
    policy: ResultPolicy = run.results
    if state.type is not COMPLETED or not policy.persist or isinstance(state, KeptState):
        return state
    held, codec = keep(state.data, policy, Subject(run.key, None, run.attempt))
    return KeptState.of(state, held, codec, time_ns())


async def akept_flow_state(run: FlowRun, state: State) -> State:
    """Persist the result of a flow run without holding up the running loop."""
    if state.type is not COMPLETED or not run.results.persist:
        return state
    given: State = await sys.modules["asyncio"].to_thread(kept_flow_state, run, state)
    return given


def held_of(state: State) -> tuple[bytes | None, str | None]:
    """Give what the history keeps of a COMPLETED state, and its codec."""
    if state.__class__ is State:
        return encode_small(state.data)
    # It arrived encoded, or has been kept already.
    held: tuple[bytes | None, str | None] = state.small()  # type: ignore[attr-defined]
    return held


def _filled_in(template: str, run: TaskRun) -> str:
    try:
        return template.format(**run.parameters)
    except Exception as exc:
        raise InvalidOptionError(
            f"result_storage_key is {template!r}, which cannot be filled in: "
            f"{describe_exception(exc)}"
        ) from exc
