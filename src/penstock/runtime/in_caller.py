"""Runners that run calls in the caller: on which loop, and how the caller waits for the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from penstock.errors import DeadlockError
from penstock.runtime.blocking import is_service_thread
from penstock.runtime.context import current_run
from penstock.runtime.loops import FlowLoop, PassingLoop, is_loop_thread
from penstock.runtime.waiting import said_to_wait, wait_for_run
from penstock.states import exception_to_crashed_state


def loop_in_caller(loop: FlowLoop, side_loop: FlowLoop) -> FlowLoop:
    """Give the loop for an async task that is to be run in the caller.

    Synchronous code that runs on the flow's loop holds it up: what it submits cannot wait
    for that loop.
    """
    submitter = current_run.get()
    if loop.runs_here() and (submitter is None or submitter.is_async):
        return loop
    return PassingLoop() if is_loop_thread() else side_loop


def end_in_caller(call: Any) -> None:
    """On a runner that runs calls in the caller, wait right here until the run is over."""
    if call.runner.runs_in_caller and not is_service_thread() and not call.loop.runs_here():
        wait_for_run(call.task_run, None)


def off_service_threads(place: Callable[[Sequence[Any]], None], calls: Sequence[Any]) -> None:
    """Place calls; those that would run right here, not in a thread that has to serve others."""
    if not calls[0].runner.runs_in_caller:
        place(calls)
    elif is_service_thread():
        name = "penstock-call"
        threading.Thread(target=place, args=(calls,), name=name, daemon=True).start()
    elif calls[0].resources and not calls[0].loop.runs_here():
        for call in calls:
            _place_knowingly(place, call)
    else:
        place(calls)


def _place_knowingly(place: Callable[[Sequence[Any]], None], call: Any) -> None:
    """Place a call that may have to wait here for resources, unless it would wait for ever."""
    try:
        with said_to_wait([call.task_run]):
            place((call,))
    except DeadlockError as exc:
        call.finished(exception_to_crashed_state(exc))
