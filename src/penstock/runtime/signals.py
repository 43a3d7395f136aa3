"""Ctrl-C, SIGTERM and SIGHUP end an outermost flow run cleanly.

Only where nobody else handles them: a handler of the user's stays in force.

    first signal   raised in the flow's code: cancel, record, release; a moment later when it
                   meets our own bookkeeping half-way
    while ending   noted, and raised once the flow run is recorded
    next signal    at once
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from penstock.errors import TerminationSignal
from penstock.runtime.interrupts import is_bookkeeping, send_again, sent

_TERMINATIONS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_MOST_PAUSES = 250


class Signals:
    """What the handler of an outermost flow run does with a signal.

    Attributes:
        is_ending: the flow's code is over; what is left is to record it and to clean up.
    """

    def __init__(self) -> None:
        self.is_ending = False
        self._noted: int | None = None
        self._pauses = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise in the main thread, now or later."""
        if self.is_ending and self._noted is None:
            self._noted = number
        elif not self.is_ending and self._pauses < _MOST_PAUSES and is_bookkeeping(frame):
            self._pauses += 1
            send_again(number)
        else:
            self._pauses = 0
            if number != signal.SIGINT:
                # A second signal of the kind kills at once.
                signal.signal(number, signal.SIG_DFL)
            raise _problem_of(number)

    def raise_noted(self) -> None:
        """Raise what came while the flow run was ending."""
        if self._noted is not None:
            raise _problem_of(self._noted)


@contextmanager
def caught_signals(is_outermost: bool) -> Iterator[Signals]:
    """Turn signals that would end the process into exceptions in the main thread."""
    signals = Signals()
    previous = [(number, signal.getsignal(number)) for number in _unhandled(is_outermost)]
    if _may_catch(is_outermost) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        previous.append((signal.SIGINT, signal.default_int_handler))
    for number, _ in previous:
        signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
    signals.raise_noted()


def _problem_of(number: int) -> BaseException:
    return sent(KeyboardInterrupt() if number == signal.SIGINT else TerminationSignal(number))


def _may_catch(is_outermost: bool) -> bool:
    return is_outermost and threading.current_thread() is threading.main_thread()


def _unhandled(is_outermost: bool) -> list[signal.Signals]:
    if not _may_catch(is_outermost):
        return []
    return [number for number in _TERMINATIONS if signal.getsignal(number) is signal.SIG_DFL]


@contextmanager
def caught_signals_async(
    is_outermost: bool, take: Callable[[BaseException], None]
) -> Iterator[None]:
    """Turn signals into a cancellation of the current asyncio task, after telling `take` why."""
    caught = _unhandled(is_outermost)
    asyncio = sys.modules["asyncio"]
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    interrupts = _interrupts_of_asyncio_run(is_outermost)
    previous = [(number, signal.getsignal(number)) for number in (*caught, *interrupts)]

    def arrive(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        take(_problem_of(number))
        task.cancel()

    for number in (*caught, *interrupts):
        loop.add_signal_handler(number, arrive, number)
    try:
        yield
    finally:
        for number, handler in previous:
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _interrupts_of_asyncio_run(is_outermost: bool) -> list[Any]:
    """Give SIGINT where `asyncio.run` handles it: it would cancel without saying why."""
    if not _may_catch(is_outermost):
        return []
    handler = signal.getsignal(signal.SIGINT)
    is_runner = "Runner._on_sigint" in repr(getattr(handler, "func", None))
    return [signal.SIGINT] if is_runner else []
