"""A queue of calls: larger priority first, then first come first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from penstock.task_runners.base import Call


class CallQueue:
    """Calls that wait for a slot.

    A call is in the queue as long as its `ticket` holds something. Whoever takes the ticket has
    the call: a worker, or somebody who takes the call back. Taking a ticket is one atomic step, so
    workers can take calls without a lock, which threads that compete for the interpreter would
    queue up for.

    Args:
        numbers: numbers from 1 on, which queues that share their slots share as well.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        # Largest priority first. Never changed but replaced, since others may be reading it.
        self._lanes: dict[int, deque[Call]] = {0: deque()}
        self._lock = threading.Lock()
        self._numbers = numbers

    def __len__(self) -> int:
        """Give the number of calls; some of them may have been taken back."""
        return sum(map(len, self._lanes.values()))

    def __bool__(self) -> bool:
        return any(self._lanes.values())

    def push(self, call: Call) -> None:
        """Add a call behind those of the same priority."""
        lane = self._lanes.get(call.priority)
        if lane is None:
            lane = self._open_lane(call.priority)
        call.number = next(self._numbers)
        call.ticket = [None]
        lane.append(call)

    def _open_lane(self, priority: int) -> deque[Call]:
        with self._lock:
            if priority not in self._lanes:
                lanes = {**self._lanes, priority: deque[Call]()}
                self._lanes = {key: lanes[key] for key in sorted(lanes, reverse=True)}
            return self._lanes[priority]

    def pop(self) -> Call | None:
        """Take the next call, None when there is none. Thread-safe."""
        for lane in self._lanes.values():
            while lane:
                try:
                    call = lane.popleft()
                    call.ticket.pop()
                except IndexError:
                    # Another thread took the last one, or the call was taken back.
                    continue
                return call
        return None

    def head(self) -> tuple[int, int] | None:
        """Give what the next call is ordered by, None when there is none."""
        for priority, lane in self._lanes.items():
            while lane:
                try:
                    call = lane[0]
                    if call.ticket:
                        return (-priority, call.number)
                    lane.popleft()
                except IndexError:
                    break
        return None


def take_back(call: Call) -> bool:
    """Take a call out of its queue wherever it stands; tell whether it was in one. Thread-safe."""
    try:
        call.ticket.pop()
    except IndexError:
        return False
    return True
