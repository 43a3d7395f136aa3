"""Arrivals: reports of workers in the order in which they were sent, whichever way they came.

what a bundle gives back ─┐
                          ├─► by worker, by number ─► dispatcher
what the relay passes on ─┘
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class _Worker:
    def __init__(self) -> None:
        self.next = 0
        self.early: dict[int, bytes] = {}
        self.waiting: list[tuple[int, Callable[[], None]]] = []
        self.is_over = False


class Arrivals:
    """Puts reports in order. Thread-safe.

    Args:
        hear: takes the reports, one after the other; must return quickly.
    """

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear
        self._workers: dict[str, _Worker] = {}
        self._lock = threading.Lock()

    def take(self, worker: str, number: int, report: bytes) -> None:
        """Take the report of this number; it is heard once those before it have been."""
        with self._lock:
            its = self._workers.setdefault(worker, _Worker())
            if its.is_over:
                self._hear(report)
                return
            its.early[number] = report
            while (following := its.early.pop(its.next, None)) is not None:
                its.next += 1
                self._hear(following)
            self._call_those_waiting(its)

    def when_heard(self, worker: str, number: int, function: Callable[[], None]) -> None:
        """Call a function once every report below this number has been heard."""
        with self._lock:
            its = self._workers.setdefault(worker, _Worker())
            its.waiting.append((number, function))
            self._call_those_waiting(its)

    def _call_those_waiting(self, its: _Worker) -> None:
        if its.waiting:
            ready = [each for number, each in its.waiting if its.is_over or number <= its.next]
            its.waiting = [
                (number, each)
                for number, each in its.waiting
                if not its.is_over and number > its.next
            ]
            for function in ready:
                function()

    def end(self, worker: str) -> None:
        """Hear what is there of a worker that has died: what is missing will never come."""
        with self._lock:
            its = self._workers.setdefault(worker, _Worker())
            its.is_over = True
            for number in sorted(its.early):
                self._hear(its.early.pop(number))
            self._call_those_waiting(its)
