"""Ctrl-C, SIGTERM and SIGHUP while `penstock run` runs a flow, also one that will not end.

first   is raised in the flow; one that has not ended after its time is left behind
second  gives up the task runs that do not stop; two seconds later the flow is left behind
third   ends the process here and now

Left behind means: recorded as crashed, as far as two seconds allow, and the process ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from time import monotonic
from types import FrameType
from typing import Any

from penstock.errors import TerminationSignal

# Above the 10 and 5 seconds that a flow run itself waits for its task runs.
_FIRST_SECONDS: dict[int, float] = {signal.SIGINT: 12.0, signal.SIGTERM: 7.0, signal.SIGHUP: 7.0}
_SECOND_SECONDS = 2.0
_FLUSH_SECONDS = 2.0


class Stopping:
    """Counts the signals that are to end a run.

    Args:
        say: tells people something, from another thread.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._count = 0
        self._taken: dict[int, Any] = {}
        # A handler may have stopped the main thread anywhere, so it takes no lock and starts no
        # thread: it rings, and a thread that is there already does the rest.
        self._arrivals: SimpleQueue[int | None] = SimpleQueue()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Handle the signals that nobody else handles while the body runs."""
        self._taken = {
            number: signal.getsignal(number) for number in _FIRST_SECONDS if _free(number)
        }
        watch = threading.Thread(target=self._watch, name="penstock-stopping", daemon=True)
        watch.start()
        for number in self._taken:
            signal.signal(number, self.arrive)
        try:
            yield
        finally:
            self._restore()
            self._arrivals.put(None)
            watch.join()

    def _restore(self) -> None:
        for number, handler in self._taken.items():
            signal.signal(number, handler)

    def arrive(self, number: int, frame: FrameType | None = None) -> None:
        """Handle one signal."""
        self.note(number)
        if self._count == 1:
            raise KeyboardInterrupt if number == signal.SIGINT else TerminationSignal(number)

    def note(self, number: int) -> None:
        """Count one signal that somebody else handles."""
        self._count += 1
        if self._count >= 3:
            os._exit(128 + number)
        self._arrivals.put(number)

    def loop(self) -> Any:
        """Make an event loop for a flow that handles signals on it; they are counted here."""
        import asyncio  # slow to load, and most flows need none

        # Asyncio and the flow only handle what is as Python left it.
        self._restore()
        loop = asyncio.new_event_loop()
        add, remove = loop.add_signal_handler, loop.remove_signal_handler

        def add_counted(number: int, callback: Callable[..., object], *args: Any) -> None:
            def counted() -> None:
                self.note(number)
                callback(*args)

            add(number, counted)

        def remove_and_count(number: int) -> bool:
            removed = remove(number)
            if number in self._taken:
                signal.signal(number, self.arrive)
            return removed

        # A loop that is not written in Python keeps the handlers that it has.
        with suppress(AttributeError):
            loop.remove_signal_handler = remove_and_count  # type: ignore[method-assign]
            loop.add_signal_handler = add_counted  # type: ignore[method-assign,assignment]
        return loop

    def _watch(self) -> None:
        deadline, last = float("inf"), 0
        for count in range(3):
            try:
                left = None if not count else max(0.0, deadline - monotonic())
                number = self._arrivals.get(timeout=left)
            except Empty:
                break
            if number is None:
                return
            last = number
            deadline = monotonic() + (_SECOND_SECONDS if count else _FIRST_SECONDS[number])
            if count:
                _give_up()
        self._leave_behind(last)

    def _leave_behind(self, number: int) -> None:
        """End the process, with what runs recorded as crashed."""
        recording = threading.Thread(target=_record_crash, args=(number,), daemon=True)
        recording.start()
        recording.join(_FLUSH_SECONDS)
        self._say("The flow did not stop; it was left behind.")
        os._exit(128 + number)


def _free(number: int) -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def _running() -> list[Any]:
    """Give the flow runs of this process, the innermost first."""
    live = sys.modules.get("penstock.runtime.live")
    return live.live_flow_runs()[::-1] if live is not None else []


def _give_up() -> None:
    for run in _running():
        run.give_up()


def _record_crash(number: int) -> None:
    from penstock.history.recorder import ENDED
    from penstock.states import exception_to_crashed_state

    problem = KeyboardInterrupt() if number == signal.SIGINT else TerminationSignal(number)
    recorder = None
    for run in _running():
        run.give_up()
        recorder, flow_run = run.recorder, run.flow_run
        if not flow_run.is_over:
            state = exception_to_crashed_state(problem)
            state.run_key = flow_run.key
            flow_run.close(state)
            recorder.record(ENDED, flow_run)
    if recorder is not None:
        recorder.flush()
