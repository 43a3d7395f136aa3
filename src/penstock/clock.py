"""Call functions later: one thread for every delay and time limit of the process.

    call_later(seconds, fn) ──► heap of (when, fn) ──► thread "penstock-clock" ──► fn()

The thread starts with the first delay and ends by itself when it had nothing to do for a
moment. Functions must be quick: they hand work over, they do not do it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable
from time import monotonic

_LINGER_SECONDS = 0.5
logger = logging.getLogger("penstock.clock")


class Timer:
    """A call that is still to come.

    Attributes:
        function: what will be called; None once it was called or cancelled.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Callable[[], None] | None = function

    def cancel(self) -> None:
        """Forget the call. Does nothing when it was made already. Thread-safe."""
        self.function = None


class Clock:
    """A heap of timers and the thread that serves it. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._closing = False

    def call_later(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call a function on the clock's thread after a delay.

        Args:
            seconds: the delay, measured on the monotonic clock.
            function: quick, and taking no arguments; what it raises is logged.
        """
        timer = Timer(function)
        with self._changed:
            heapq.heappush(self._heap, (monotonic() + seconds, next(self._order), timer))
            if self._thread is None:
                self._start()
            elif self._heap[0][2] is timer:
                self._changed.notify()
        return timer

    def close(self) -> None:
        """Drop what is still to come and end the thread. It starts anew when needed."""
        with self._changed:
            thread = self._thread
            self._heap.clear()
            self._closing = True
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="penstock-clock", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (timer := self._next()) is not None:
            function, timer.function = timer.function, None
            if function is not None:
                _call(function)

    def _next(self) -> Timer | None:
        """Wait for the next timer that is due; None ends the thread."""
        with self._changed:
            while True:
                if self._heap and self._heap[0][0] <= monotonic():
                    return heapq.heappop(self._heap)[2]
                self._drop_cancelled()
                pause = self._heap[0][0] - monotonic() if self._heap else _LINGER_SECONDS
                if pause > 0 and not self._closing:
                    self._changed.wait(min(pause, threading.TIMEOUT_MAX))
                    pause = self._heap[0][0] - monotonic() if self._heap else 0.0
                if self._closing or not self._heap:
                    self._thread = None
                    return None

    def _drop_cancelled(self) -> None:
        # A cancelled timer stays in the heap until it comes to the top.
        while self._heap and self._heap[0][2].function is None:
            heapq.heappop(self._heap)


def _call(function: Callable[[], None]) -> None:
    try:
        function()
    except Exception:
        logger.exception("A delayed call failed.")


clock = Clock()


def _after_fork() -> None:
    global clock
    clock.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_after_fork)
