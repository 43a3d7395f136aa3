"""Circles of waits: found when the last of them is about to begin.

A task run can only end once

    all its unfinished upstreams have ended                          it is not placed before that
    and the one run that it waits for has                            several may be given up halfway
    and enough of those that hold the resources it is in line for    any of them that suffice
"""

from __future__ import annotations

from penstock.errors import DeadlockError
from penstock.runs import TaskRun
from penstock.runtime.upstreams import run_of

_Needs = dict[TaskRun, TaskRun | None]


def refuse_circle(waiter: TaskRun, target: TaskRun) -> None:
    """Refuse a wait that, in the end, is one for the waiter itself.

    Raises:
        DeadlockError: the text names the task runs in the circle.
    """
    came_from: _Needs = {target: None}
    pending = [target]
    has_choice = False
    while pending:
        run = pending.pop()
        if run is waiter:
            if not has_choice:
                raise DeadlockError(_circle(waiter, came_from))
            continue
        holders = _holders(run)
        has_choice = has_choice or bool(holders)
        for follower in [*_needed(run), *holders]:
            if follower not in came_from:
                came_from[follower] = run
                pending.append(follower)
    if has_choice and waiter in came_from and not _can_end(target, waiter, came_from):
        raise DeadlockError(_circle(waiter, came_from))


def _can_end(target: TaskRun, waiter: TaskRun, runs: _Needs) -> bool:
    """Tell whether a run can end although the waiter does not."""
    open_runs = [run for run in runs if run is not waiter]
    ended: set[TaskRun] = set()
    while target not in ended:
        now = [run for run in open_runs if run not in ended and _is_free(run, ended)]
        if not now:
            return False
        ended.update(now)
    return True


def _is_free(run: TaskRun, ended: set[TaskRun]) -> bool:
    """Tell whether a run can end once others have."""
    if not all(needed in ended for needed in _needed(run)):
        return False
    call = None if run.live is None else run.live.call_of(run)
    if call is None or not call.resources:
        return True
    still_open = [holder for holder in _holders(run) if holder not in ended]
    keepers = [holder.live.call_of(holder) for holder in still_open]
    return bool(call.runner.fits_beside(call, [keeper for keeper in keepers if keeper is not None]))


def _needed(run: TaskRun) -> list[TaskRun]:
    """Give the runs that all have to end before this one can."""
    if run.outcome is not None:
        return []
    # Several waits at once (gather), or one for several runs, may be given up halfway.
    waits = run.waits
    blocked = list(waits[0]) if len(waits) == 1 and len(waits[0]) == 1 else []
    return unfinished_upstreams(run) + blocked


def _holders(run: TaskRun) -> list[TaskRun]:
    """Give the runs that hold something of the resources this one is in line for."""
    call = None if run.live is None else run.live.call_of(run)
    if call is None or not call.resources:
        return []
    return [holder.task_run for holder in call.runner.holders(call)]


def unfinished_upstreams(run: TaskRun) -> list[TaskRun]:
    """Give the upstreams that a task run still waits for."""
    call = None if run.live is None else run.live.call_of(run)
    if call is None:
        return []
    runs = [run_of(dependency) for dependency in list(call.upstreams)]
    return [run for run in runs if run is not None and run.outcome is None]


def _circle(waiter: TaskRun, came_from: _Needs) -> str:
    names = [waiter.name]
    before = came_from[waiter]
    while before is not None:
        names.append(before.name)
        before = came_from[before]
    chain = " -> ".join([waiter.name, *reversed(names)])
    return (
        f"Task runs wait for each other in a circle: {chain}. None of them can go on. "
        "Return the future instead of waiting for it inside the task."
    )
