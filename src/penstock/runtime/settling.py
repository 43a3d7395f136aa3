"""Ends of task runs, taken in turn.

Telling the end of one run may end further ones (a chain of runs that are not ready). They are
taken one after another rather than inside each other, so that no chain is too long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_End = Callable[[Any, Any], None]
_thread = threading.local()


def take_turn(end: _End, call: Any, state: Any) -> None:
    """Call `end(call, state)`: now, or after the end that this thread is occupied with."""
    queue = getattr(_thread, "queue", None)
    if queue is not None:
        queue.append((end, call, state))
        return
    queue = _thread.queue = deque([(end, call, state)])
    try:
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
