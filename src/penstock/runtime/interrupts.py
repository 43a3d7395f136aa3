"""Interrupt code that runs: by a signal in the main thread, else at the thread's next bytecode.

clock or another thread ──► Interruption.fire() ──► main thread: a signal, also out of sleeps
                                               └──► other:  PyThreadState_SetAsyncExc

Interruptions are for the user's code. One that meets our own bookkeeping half-way (a task run
being submitted, a slot being left) waits until that is done, for half a second at most.
"""

from __future__ import annotations

import _thread
import _weakrefset
import ctypes
import logging
import os
import signal
import sys
import threading
import weakref
from _signal import getsignal  # type: ignore[import-not-found]
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from time import sleep
from types import FrameType
from typing import Any

from penstock.clock import clock

_lock = threading.Lock()
_MAIN_THREAD_ID = threading.main_thread().ident
# A signal that hardly anybody else uses, so that SIGALRM stays the user's.
_SIGNAL = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else signal.SIGALRM
_PAUSE_SECONDS = 0.002
_MOST_PAUSES = 250
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Logging may have taken the lock of a handler and not yet guarded it; what is raised in the
# callback of a weak reference, or in `__del__`, is swallowed.
_UNSUITABLE = frozenset({logging.__file__, weakref.__file__, _weakrefset.__file__})
# Tasks live here as in any other package.
_WITH_TASKS = (_PACKAGE + "testing" + os.sep, _PACKAGE + "cli" + os.sep)
# Functions of ours that call the user's code, and those that only wait. `Interruption.call` does
# not count as waiting: what is on its way there may be the end of a call inside, and an exception
# that arrived in it would be taken for that call's own.
_CALLERS = frozenset({"Interruption.call", "attempt", "settled_value", "FlowExecution._body"})
_WAITS = frozenset(
    {
        "DirectCall._perform",
        "FlowExecution._leave",
        "FlowExecution._perform",
        "FlowExecution._broken_off",
        "FlowLoop._run",
        "LiveFlowRun._retry_here",
        "RunningRunner.start",
        "take",
    }
)


class Interrupted(BaseException):
    """Raised inside code whose time is over. Not an Exception, so that few catch it."""

    def __str__(self) -> str:
        return "A run around this one reached its time limit or was cancelled."


# The innermost interruptible call in each thread.
_innermost: dict[int, Interruption] = {}


class Interruption:
    """The possibility to interrupt one call of a function.

    Attributes:
        fired: whether the interruption was asked for.
        is_main: whether the call runs in the main thread.
        is_shielded: whether somebody else's call runs in its thread at the moment.
        is_wanted: whether a signal for it is on its way.
    """

    __slots__ = ("_outer", "_thread_id", "fired", "is_main", "is_shielded", "is_wanted")

    def __init__(self) -> None:
        self.fired = False
        self.is_main = False
        self.is_shielded = False
        self.is_wanted = False
        self._thread_id: int | None = None
        self._outer: Interruption | None = None

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function in such a way that `fire` can interrupt it.

        Raises:
            Interrupted: `fire` came before the end, whatever the function made of it; or, with
                `fired` unset, a call around this one was interrupted.
        """
        thread_id = get_ident()
        if thread_id == _MAIN_THREAD_ID:
            self.is_main = True
            _install()
        outer = self._outer = _innermost.get(thread_id)
        _innermost[thread_id] = self
        self._thread_id = thread_id
        ending: BaseException | None = None
        try:
            if self.fired:
                raise Interrupted
            return function(*args, **kwargs)
        except BaseException as exc:
            ending = exc
            raise
        finally:
            self._thread_id = None
            if outer is None:
                del _innermost[thread_id]
            else:
                _innermost[thread_id] = outer
            if self.fired or outer is not None:
                self._conclude(outer, ending)

    def fire(self) -> None:
        """Interrupt the call if it is running, or as soon as it begins. Thread-safe.

        Only the first time counts: what the code does to clean up is not interrupted again.
        """
        with _lock:
            if self.fired:
                return
            self.fired = True
        self.deliver()

    def deliver(self, pauses: int = 0) -> None:
        """Raise in the thread of the call, now or as soon as its code may be interrupted."""
        with _lock:
            thread_id = self._thread_id
            if thread_id is None or self.is_shielded:
                return
            frame = None if self.is_main else sys._current_frames().get(thread_id)
            if pauses == _MOST_PAUSES or not is_bookkeeping(frame):
                self._raise_there(thread_id)
                return
        clock.call_later(_PAUSE_SECONDS, lambda: self.deliver(pauses + 1))

    @property
    def is_running(self) -> bool:
        """Whether the call goes on."""
        return self._thread_id is not None

    @property
    def outer(self) -> Interruption | None:
        """The interruptible call around this one in the same thread."""
        return self._outer

    def _raise_there(self, thread_id: int) -> None:
        if self.is_main:
            self.is_wanted = True
            signal.pthread_kill(thread_id, _SIGNAL)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread_id), ctypes.py_object(Interrupted)
            )

    def _conclude(self, outer: Interruption | None, ending: BaseException | None) -> None:
        """End the call as interrupted if it was, and let the calls around it have their turn."""
        if self.fired:
            self._absorb()
        if outer is not None and outer.fired and (self.fired or ending is None):
            # One exception was raised for two, or the code swallowed that of the outer call.
            clock.call_later(_PAUSE_SECONDS, outer.deliver)
        if self.fired and (ending is None or isinstance(ending, Exception)):
            raise Interrupted from ending

    def _absorb(self) -> None:
        """Let an interruption that is still on its way arrive here, where it does no harm."""
        try:
            with _lock:
                self.is_wanted = False
            for _ in range(100):
                pass
        except Interrupted:
            pass


@contextmanager
def shielded() -> Iterator[None]:
    """Keep interruptions of the calls in this thread from a call that has nothing to do with them.

    They arrive when the block is left.
    """
    held = []
    call = _innermost.get(get_ident())
    while call is not None and not call.is_shielded:
        call.is_shielded = True
        held.append(call)
        call = call.outer
    try:
        yield
    finally:
        for call in held:
            with _lock:
                call.is_shielded = False
            if call.fired:
                clock.call_later(_PAUSE_SECONDS, call.deliver)


def is_bookkeeping(frame: FrameType | None) -> bool:
    """Tell whether a stack should not be interrupted now.

    Our own bookkeeping is on its way in it, or what would be raised there could get lost.
    """
    innermost = frame
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if file in _UNSUITABLE or code.co_name == "__del__":
            return True
        if file.startswith(_PACKAGE) and not file.startswith(_WITH_TASKS):
            may_be_interrupted = _WAITS if frame is innermost else _CALLERS
            return code.co_qualname not in may_be_interrupted
        frame = frame.f_back
    return False


def sent(problem: BaseException) -> BaseException:
    """Mark an exception as raised on account of a signal to the process."""
    problem.__penstock_sent__ = True  # type: ignore[attr-defined]
    return problem


def was_sent(problem: object) -> bool:
    """Tell whether something is an exception that a signal to the process has raised."""
    return getattr(problem, "__penstock_sent__", False) is True


def send_again(number: int, seconds: float = _PAUSE_SECONDS) -> None:
    """Send a signal to the main thread again in a moment. May be called in a signal handler."""

    def send() -> None:
        sleep(seconds)
        signal.pthread_kill(_MAIN_THREAD_ID or 0, number)

    # Neither the clock nor `threading` may be used: the handler may have interrupted them.
    _thread.start_new_thread(send, ())


def _install() -> None:
    """Handle our signal; it stays so, since nothing else of the process wants it."""
    # By the C function: the public one makes an enum of what it finds, which costs microseconds.
    if getsignal(_SIGNAL) is not _on_signal:
        signal.signal(_SIGNAL, _on_signal)


_pauses = 0


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _pauses
    calls = []
    call = _innermost.get(_MAIN_THREAD_ID or 0)
    while call is not None:
        if call.is_wanted and call.is_running:
            calls.append(call)
        call = call.outer
    if calls and _pauses < _MOST_PAUSES and is_bookkeeping(frame):
        _pauses += 1
        send_again(number)
        return
    _pauses = 0
    for call in calls:
        call.is_wanted = False
    if calls:
        raise Interrupted


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
