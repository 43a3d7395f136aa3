"""Runners that run calls in the caller: on which loop, and how the caller waits for the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from penstock.runtime.blocking import is_service_thread
from penstock.runtime.context import current_run
from penstock.runtime.loops import FlowLoop, PassingLoop, is_loop_thread
from penstock.runtime.waiting import wait_for_run


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
    if is_service_thread():
        return
    if call.runner.runs_in_caller and not call.loop.runs_here():
        wait_for_run(call.task_run, None)


def off_service_threads(place: Callable[[Sequence[Any]], None], calls: Sequence[Any]) -> None:
    """Place calls; those that would run right here, not in a thread that has to serve others."""
    if calls[0].runner.runs_in_caller and is_service_thread():
        name = "penstock-call"
        threading.Thread(target=place, args=(calls,), name=name, daemon=True).start()
    else:
        place(calls)
