"""Lazy `map`: read endless iterables, with a bounded number of task runs open at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from penstock.runtime.futures import TaskFuture
from penstock.runtime.upstreams import awaited_in
from penstock.runtime.waiting import wait_for_run


def map_lazily(
    live: Any, task: Any, calls: Iterator[tuple[Any, Any]], wait_for: Any, most: int
) -> Iterator[TaskFuture[Any]]:
    """Submit calls as their predecessors end; give the futures in order.

    Up to `most` runs are submitted ahead of the future that is asked for.
    """
    ahead: deque[TaskFuture[Any]] = deque()
    awaited = awaited_in(wait_for)
    for args, kwargs in calls:
        if len(ahead) == most:
            future = ahead.popleft()
            wait_for_run(future.task_run, None)
            yield future
        ahead.append(TaskFuture(live.submit_after(task, args, kwargs, awaited)))
    yield from ahead
