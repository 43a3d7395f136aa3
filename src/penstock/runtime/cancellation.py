"""Cancel task runs: in whatever phase they are, at once where that is possible.

    waiting for upstreams ─┐
    queued at the runner   ├──► ended CANCELLED, never started
    waiting for a retry    ┘
    running ──► async: cancelled at its await;  sync: final now, its thread interrupted

A cancellation first leaves word in `call.is_cancelled`. Whoever moves the run from one phase to
the next looks there after the move, so that one of the two always sees the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.clock import Timer
from penstock.failpoints import FAILPOINTS, hit
from penstock.runs import TaskRun
from penstock.runtime.attempts import cancelled_state
from penstock.runtime.calls import TaskCall

if TYPE_CHECKING:
    from penstock.runtime.live import LiveFlowRun


def cancel(live: LiveFlowRun, run: TaskRun) -> bool:
    """Cancel a task run; tell whether it is or will be cancelled."""
    if FAILPOINTS:
        hit("cancel.requested")
    call = live.call_of(run)
    if call is None:
        return False
    call.is_cancelled = True
    if live.call_of(run) is None:
        # It ended before it could be told.
        return False
    if not _ended_unstarted(live, run, call):
        call.stop()
    return True


def _ended_unstarted(live: LiveFlowRun, run: TaskRun, call: TaskCall) -> bool:
    """End a run of which nothing runs now; tell whether it was one."""
    timer = call.timer
    if call.runner.is_away(call):
        return False
    if call.upstreams or call.runner.take_back(call) or is_stopped(timer):
        live.finish(call, cancelled_state(run))
        return True
    return False


def cancel_unstarted(live: LiveFlowRun) -> None:
    """Cancel what has not started; what runs goes on."""
    for run, call in live.open_calls():
        is_unstarted = run.started_at is None or call.timer is not None
        if is_unstarted and not _ended_unstarted(live, run, call):
            call.runner.recall(call)


def stop_all(live: LiveFlowRun) -> None:
    """Cancel what has not started, and stop what runs."""
    cancel_unstarted(live)
    for run, _ in live.open_calls():
        cancel(live, run)


def give_up(live: LiveFlowRun) -> None:
    """End what is still open as CANCELLED, whether its code has stopped or not."""
    message = "The flow run ended before the task run could be stopped."
    for run, call in live.open_calls():
        call.is_cancelled = True
        live.finish(call, cancelled_state(run, message))


def is_stopped(timer: Timer | None) -> bool:
    """Stop a timer; tell whether its call was still to come."""
    if timer is None or timer.function is None:
        return False
    timer.cancel()
    return True
