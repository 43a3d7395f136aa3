"""A queue of calls: larger priority first, then first come first served."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from penstock.task_runners.base import Call


class CallQueue:
    """Calls that wait for a slot. Not thread-safe: its owner holds a lock.

    Args:
        numbers: numbers from 1 on, which queues that share their slots share as well.

    A call is in the queue while its `queued` number is not 0. Taking one out of the middle
    only sets that to 0; the place it leaves behind is passed over later.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self._lanes: dict[int, deque[Call]] = {0: deque()}
        self._order: list[int] = [0]
        self._size = 0
        self._numbers = numbers

    def __bool__(self) -> bool:
        return self._size > 0

    def __len__(self) -> int:
        return self._size

    def push(self, call: Call) -> None:
        """Add a call behind those of the same priority."""
        lane = self._lanes.get(call.priority)
        if lane is None:
            lane = self._add_lane(call.priority)
        call.queued = next(self._numbers)
        lane.append(call)
        self._size += 1

    def pop(self) -> Call | None:
        """Remove and give the next call, None when there is none."""
        if not self._size:
            return None
        for priority in self._order:
            lane = self._lanes[priority]
            while lane:
                call = lane.popleft()
                if call.queued:
                    call.queued = 0
                    self._size -= 1
                    return call
        return None

    def head(self) -> tuple[int, int]:
        """Give what the next call is ordered by; the queue must not be empty."""
        for priority in self._order:
            lane = self._lanes[priority]
            while lane and not lane[0].queued:
                lane.popleft()
            if lane:
                return (-priority, lane[0].queued)
        raise IndexError("the queue is empty")

    def take(self, call: Call) -> bool:
        """Remove a call wherever it stands; tell whether it was here."""
        if not call.queued:
            return False
        call.queued = 0
        self._size -= 1
        return True

    def _add_lane(self, priority: int) -> deque[Call]:
        lane: deque[Call] = deque()
        self._lanes[priority] = lane
        self._order = sorted(self._lanes, reverse=True)
        return lane
