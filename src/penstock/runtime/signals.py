"""SIGTERM and SIGHUP (and Ctrl-C in async flows) end an outermost flow run cleanly.

Only where nobody else handles them: a handler of the user's stays in force.
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

_TERMINATIONS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def caught_signals(is_outermost: bool) -> Iterator[None]:
    """Turn signals that would kill the process into `TerminationSignal` in the main thread."""
    caught = _unhandled(is_outermost)
    for number in caught:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _unhandled(is_outermost: bool) -> list[signal.Signals]:
    if not is_outermost or threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in _TERMINATIONS if signal.getsignal(number) is signal.SIG_DFL]


def _raise(number: int, frame: FrameType | None) -> None:
    # A second signal of the kind kills at once.
    signal.signal(number, signal.SIG_DFL)
    raise TerminationSignal(number)


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
        take(KeyboardInterrupt() if number in interrupts else TerminationSignal(number))
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
    if not is_outermost or threading.current_thread() is not threading.main_thread():
        return []
    handler = signal.getsignal(signal.SIGINT)
    is_runner = "Runner._on_sigint" in repr(getattr(handler, "func", None))
    return [signal.SIGINT] if is_runner else []
