"""Task runs: made, retried, settled. What every way of executing one has in common."""

from __future__ import annotations

from random import random
from time import time_ns
from typing import TYPE_CHECKING, Any

from penstock.annotations import Dependency
from penstock.core.identity import input_digest
from penstock.core.inputs import Found
from penstock.core.lifecycle import AskRetry, Life, Retry, one_attempt_is_all, run_life
from penstock.core.outcomes import FAILURES, raised
from penstock.core.previews import preview_parameters
from penstock.errors import InvalidNameError, TerminationSignal
from penstock.failpoints import FAILPOINTS, hit
from penstock.history.recorder import CHANGED, ENDED, Recorder
from penstock.history.text import LONGEST_NAME, MOST_TAGS, clean_text
from penstock.ids import new_task_run_key
from penstock.runs import FlowRun, TaskRun
from penstock.runtime.context import current_run, current_tags
from penstock.runtime.errors import describe
from penstock.runtime.hooks import run_hooks
from penstock.runtime.keeping import held_of
from penstock.runtime.prints import record_prints
from penstock.runtime.upstreams import keys_of, run_of
from penstock.states import AWAITING_RETRY, RETRYING, State, StateType, describe_exception

if TYPE_CHECKING:
    from penstock.runtime.live import LiveFlowRun

COMPLETED, RUNNING = StateType.COMPLETED, StateType.RUNNING


def make_task_run(
    task: Any,
    values: tuple[object, ...],
    found: Found | None,
    live: LiveFlowRun | None,
    key: bytes | None = None,
) -> TaskRun:
    """Make a task run of a task in a flow run, or of a task called on its own.

    When the flow is tried again or resumed and an equal task run has completed before and is
    kept, that one is given.

    Args:
        key: its id, where somebody has chosen it already.
    """
    now = time_ns()
    make = TaskRun if live is None else live.task_run_class
    run = make(task, key or new_task_run_key(now), now)
    if task.task_run_name is not None:
        # What may fail comes before anything is counted.
        run.custom_name = named(task.task_run_name, task.parameter_names, values)
    if live is not None:
        run.identity = _identity(task, values, found, live)
        if live.has_kept:
            kept = live.kept_run(run)
            if kept is not None:
                return kept
        live.enrol(run)
        if found is not None and found.dependencies:
            run.upstream = keys_of(found)
    if values:
        run.values = values
        run.preview = preview_parameters(task.parameter_names, values)
    tags = current_tags.get()
    if tags or task.tags:
        run.tags = frozenset(sorted(tags | task.tags)[:MOST_TAGS])
    parent = current_run.get()
    if parent is not None:
        above = parent if isinstance(parent, TaskRun) else parent.parent
        if parent.is_task_run:
            run.parent_key = parent.key
        if above is not None and above.inside:
            run.inside = above.inside
        if parent.log_prints and task.log_prints is None:
            run.log_prints = True
    if task.log_prints:
        run.log_prints = True
        record_prints()
    return run


def named(template: Any, names: tuple[str, ...], values: tuple[object, ...]) -> str:
    """Make the name of a run from its template: a format string, or a callable.

    Raises:
        InvalidNameError: the template cannot be filled in, the callable raised or gave no text.
    """
    try:
        if callable(template):
            name = template()
        else:
            name = template.format(**dict(zip(names, values, strict=True)))
    except Exception as exc:
        raise InvalidNameError(
            f"The run name template {template!r} failed: {describe_exception(exc)}"
        ) from exc
    if not isinstance(name, str):
        raise InvalidNameError(f"The run name template {template!r} gave {name!r}, not a text.")
    return clean_text(name, LONGEST_NAME)


def _identity(
    task: Any, values: tuple[object, ...], found: Found | None, live: LiveFlowRun
) -> bytes | None:
    if task.held:
        values = (*task.held, *values)
    digest = input_digest(task.key, values, identity_of, found) if values else task.digest
    return None if digest is None else live.identify(digest, current_run.get())


def identity_of(dependency: Dependency) -> bytes | None:
    """Give the identity of the run behind a future; a state alone has none."""
    run = run_of(dependency)
    return None if run is None else run.identity


def new_life(task: Any, may_be_lost: bool = False) -> Life | None:
    """Give the life of a run of a task or flow, not yet begun; None for a single attempt.

    Args:
        may_be_lost: its worker was lost, so that another attempt may follow in any case.
    """
    if one_attempt_is_all(task.retry_policy) and not may_be_lost:
        return None
    losses = getattr(task, "worker_loss_retries", 0)
    return run_life(task.retry_policy, task.retry_condition_fn is not None, random, losses)


def begin_attempt(run: TaskRun | FlowRun, recorder: Recorder) -> None:
    """Enter RUNNING: the next thing to happen is a call of the function."""
    if run.is_over:
        return  # cancelled while a worker was taking it
    now = time_ns()
    run.attempt += 1
    if run.started_at is None:
        run.started_at = now
        if run.transitions is None:
            run.type = RUNNING
        else:
            run.enter(RUNNING, now)  # a flow run that is continued has had states before
    else:
        run.enter(RUNNING, now, RETRYING)
    recorder.record(CHANGED, run)


def await_retry(run: TaskRun | FlowRun, command: Retry, recorder: Recorder) -> None:
    """Enter AwaitingRetry, remembering why the attempt failed."""
    run.enter(StateType.SCHEDULED, time_ns(), AWAITING_RETRY, command.state.message)
    recorder.record(CHANGED, run)


def ask_retry(task: Any, run: TaskRun, command: AskRetry) -> State | None:
    """Ask the user's condition whether to retry; a condition that raises ends the run."""
    try:
        if task.retry_condition_fn(task, run, command.state):
            return None
    except (Exception, SystemExit) as exc:
        if isinstance(exc, TerminationSignal):
            raise
        exc.__context__ = command.state.data
        return raised(exc, "Retry condition", time_ns(), run.key)
    return command.state


def settle(run: TaskRun, state: State, recorder: Recorder) -> None:
    """Write down how a task run ended and run its hooks; telling others comes next."""
    state.run_key = run.key
    run.close(state)
    if state.type is COMPLETED:
        run.kept, run.kept_codec = held_of(state)
    elif state.type in FAILURES and isinstance(state.data, BaseException):
        run.error = describe(state.data)
    run.values = None
    told = None if run.cached_by is None else run.cached_by.end(run)
    recorder.record(ENDED, run)
    if FAILPOINTS:
        hit("event.completed_buffered")
    if told is not None:
        told()
    hooks = run.definition.hooks
    if hooks:
        run_hooks(hooks, run.definition, run, state)
