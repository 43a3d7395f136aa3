"""Ctrl-C, SIGTERM and SIGHUP while `penstock run` runs a flow, also one that will not end.

first   is raised in the flow; one that has not ended after its time is left behind
second  gives up the task runs that do not stop; two seconds later the flow is left behind
third   ends the process here and now

Left behind means: recorded as crashed, as far as two seconds allow, and the process ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Any

from penstock.errors import TerminationSignal

# Above the 10 and 5 seconds that a flow run itself waits for its task runs.
_FIRST_SECONDS: dict[int, float] = {signal.SIGINT: 12.0, signal.SIGTERM: 7.0, signal.SIGHUP: 7.0}
_SECOND_SECONDS = 2.0
_FLUSH_SECONDS = 2.0
_PUT_OFF_SECONDS = 0.2
_AGAIN_SECONDS = 0.01

_MAIN_THREAD = threading.main_thread().ident or 0
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PYTHON = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_NOTED, _ENDED = 254, 255


class Stopping:
    """Counts the signals that are to end a run.

    Args:
        say: tells people something, from another thread.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._count = 0
        self._put_off_until: float | None = None
        self._last = 0
        self._taken: dict[int, Any] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Handle the signals that nobody else handles while the body runs."""
        self._taken = {
            number: signal.getsignal(number) for number in _FIRST_SECONDS if _free(number)
        }
        if not self._taken:
            yield
            return
        # A handler may have stopped the main thread anywhere, so it takes no lock and starts no
        # thread: it writes a byte, and a thread that is there already does the rest.
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        watch = threading.Thread(target=self._watch, name="penstock-stopping", daemon=True)
        watch.start()
        wakeup = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        for number in self._taken:
            signal.signal(number, self.arrive)
        try:
            yield
        finally:
            self._restore()
            signal.set_wakeup_fd(wakeup)
            self._tell(_ENDED)
            watch.join()
            self._ear.close()
            self._mouth.close()

    def _restore(self) -> None:
        for number, handler in self._taken.items():
            signal.signal(number, handler)

    def arrive(self, number: int, frame: FrameType | None = None) -> None:
        """Handle one signal."""
        if self._count == 0 and self._is_put_off(frame):
            self._tell(number)
            return
        self.note(number)
        if self._count == 1:
            raise KeyboardInterrupt if number == signal.SIGINT else TerminationSignal(number)

    def _is_put_off(self, frame: FrameType | None) -> bool:
        """Tell whether to wait for the main thread to get out of Penstock's own code.

        There an exception could leave a task run half submitted, or a thread half started. Who
        is in there for longer only waits, and can be interrupted.
        """
        now = monotonic()
        if self._put_off_until is None:
            self._put_off_until = now + _PUT_OFF_SECONDS
        return now < self._put_off_until and _is_ours(frame)

    def note(self, number: int) -> None:
        """Count one signal that somebody else handles."""
        self._count += 1
        if self._count >= 3:
            os._exit(128 + number)
        self._last = number
        self._tell(_NOTED)

    def _tell(self, byte: int) -> None:
        with suppress(BlockingIOError):
            self._mouth.send(bytes([byte]))

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
            loop.remove_signal_handler = remove_and_count  # type: ignore[method-assign,assignment]
            loop.add_signal_handler = add_counted  # type: ignore[method-assign,assignment]
        return loop

    def _watch(self) -> None:
        leave_at = again_at = float("inf")
        noted = arrived = 0
        while True:
            byte = self._heard(min(leave_at, again_at) - monotonic())
            if byte == _ENDED:
                return None
            if byte == _NOTED:
                noted, again_at = noted + 1, float("inf")
                seconds = _FIRST_SECONDS[self._last] if noted == 1 else _SECOND_SECONDS
                leave_at = monotonic() + seconds
                if noted > 1:
                    _give_up()
            elif byte in _FIRST_SECONDS:
                # It was put off. Or it came just before the main thread began to wait for
                # something, which Python then does not interrupt.
                arrived, again_at = byte, monotonic() + _AGAIN_SECONDS
            elif monotonic() >= leave_at:
                return self._leave_behind(self._last)
            elif monotonic() >= again_at:
                again_at = float("inf")
                signal.pthread_kill(_MAIN_THREAD, arrived)

    def _heard(self, seconds: float) -> int | None:
        """Give the next byte; None when there is none in time."""
        limit = None if seconds == float("inf") else max(0.0, seconds)
        if not select.select([self._ear], [], [], limit)[0]:
            return None
        return self._ear.recv(1)[0]

    def _leave_behind(self, number: int) -> None:
        """End the process, with what runs recorded as crashed."""
        recording = threading.Thread(target=_record_crash, args=(number,), daemon=True)
        recording.start()
        recording.join(_FLUSH_SECONDS)
        self._say("The flow did not stop and was left behind. See: penstock show")
        os._exit(128 + number)


def _is_ours(frame: FrameType | None) -> bool:
    """Tell whether a frame is in Penstock's code, or in what that has called of Python's own."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            return True
        if not file.startswith((_PYTHON, "<")) or "-packages" in file:
            return False
        frame = frame.f_back
    return False


def _free(number: int) -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def _running() -> list[Any]:
    """Give the flow runs of this process, the innermost first."""
    running = getattr(sys.modules.get("penstock.runtime.live"), "live_flow_runs", None)
    return running()[::-1] if running is not None else []


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
