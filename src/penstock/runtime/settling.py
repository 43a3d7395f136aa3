"""Ends of task runs, taken in turn.

Telling the end of one run may end further ones (a chain of runs that are not ready). They are
taken one after another rather than inside each other, so that no chain is too long.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from penstock.runs import TaskRun
from penstock.runtime.interrupts import was_sent

logger = logging.getLogger("penstock.flow_runs")
_End = Callable[[Any, Any], None]
_thread = threading.local()


def take_turn(end: _End, call: Any, state: Any) -> None:
    """Call `end(call, state)`: now, or after the end that this thread is occupied with."""
    queue = getattr(_thread, "queue", None)
    if queue is not None:
        queue.append((end, call, state))
        return
    queue = _thread.queue = deque()
    try:
        end(call, state)
        if queue:
            catch_up()
    finally:
        _thread.queue = None
        while queue:
            take_turn(*queue.popleft())


def catch_up() -> None:
    """Do what waits for its turn in this thread; needed before the thread waits for anything."""
    queue = getattr(_thread, "queue", None)
    while queue:
        end, call, state = queue.popleft()
        end(call, state)


@contextmanager
def out_of_turn() -> Iterator[None]:
    """Run user code in the midst of an end; what ends in it does so at once."""
    queue = getattr(_thread, "queue", None)
    _thread.queue = None
    try:
        yield
    finally:
        _thread.queue = queue


def call_when_over(
    run: TaskRun, function: Callable[[TaskRun], object], lock: threading.Lock
) -> None:
    """Call a function once a task run is over; at once if it is.

    No lock is needed but for the first function: the end sets the outcome before it takes the
    functions out, and here the outcome is looked at after the function was put in.
    """
    callbacks = run.callbacks
    if callbacks is None:
        with lock:
            callbacks = run.callbacks
            if callbacks is None:
                callbacks = run.callbacks = []
    callbacks.append(function)
    if run.outcome is None:
        return
    # It ended meanwhile. Whoever gets the function out of the list calls it.
    try:
        callbacks.remove(function)
    except ValueError:
        return
    contained(function, run)


def call_back(run: TaskRun, callbacks: list[Callable[[TaskRun], object]]) -> None:
    """Call the functions that wait for the end of a run, first come first served."""
    # Taken from the end, which costs the same however many there are.
    callbacks.reverse()
    while callbacks:
        try:
            callback = callbacks.pop()
        except IndexError:
            break
        contained(callback, run)


def contained(function: Callable[[TaskRun], object], run: TaskRun) -> None:
    """Call a function with a run that has ended; what it raises is logged."""
    try:
        function(run)
    except BaseException as exc:
        if was_sent(exc):
            raise
        # Also a SystemExit: it would end a thread of ours, and tell nobody.
        logger.exception("A callback of task run %r failed.", run.name)
