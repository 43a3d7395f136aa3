"""Interrupt code that runs: by a signal in the main thread, else at the thread's next bytecode.

clock or another thread ──► Interruption.fire() ──► main thread: SIGALRM, also out of sleeps
                                               └──► other:  PyThreadState_SetAsyncExc
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import Any

_lock = threading.Lock()
_MAIN_THREAD_ID = threading.main_thread().ident


class Interrupted(BaseException):
    """Raised inside code whose time is over. Not an Exception, so that few catch it."""


class Interruption:
    """The possibility to interrupt one call of a function.

    Attributes:
        fired: whether the interruption was asked for.
        is_main: whether the call runs in the main thread.
    """

    __slots__ = ("_thread_id", "fired", "is_main")

    def __init__(self) -> None:
        self.fired = False
        self._thread_id: int | None = None
        self.is_main = False

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function in such a way that `fire` can interrupt it.

        Raises:
            Interrupted: it was interrupted; look at `fired` to know by whom.
        """
        thread_id = get_ident()
        if thread_id == _MAIN_THREAD_ID:
            self.is_main = True
            _watch(self)
        self._thread_id = thread_id
        try:
            if self.fired:
                raise Interrupted
            return function(*args, **kwargs)
        finally:
            self._thread_id = None
            if self.is_main:
                _unwatch(self)
            if self.fired:
                self._absorb()

    def fire(self) -> None:
        """Interrupt the call if it is running, or as soon as it begins. Thread-safe."""
        with _lock:
            self.fired = True
            thread_id = self._thread_id
            if thread_id is None:
                return
            if self.is_main:
                signal.pthread_kill(thread_id, signal.SIGALRM)
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread_id), ctypes.py_object(Interrupted)
                )

    def _absorb(self) -> None:
        """Let an interruption that is still on its way arrive here, where it does no harm."""
        try:
            with _lock:
                pass
            for _ in range(100):
                pass
        except Interrupted:
            pass


_watched: list[Interruption] = []
_previous_handler: Any = None


def _watch(interruption: Interruption) -> None:
    global _previous_handler
    if not _watched:
        _previous_handler = signal.signal(signal.SIGALRM, _on_alarm)
    _watched.append(interruption)


def _unwatch(interruption: Interruption) -> None:
    _watched.remove(interruption)
    if not _watched:
        signal.signal(signal.SIGALRM, _previous_handler)


def _on_alarm(number: int, frame: FrameType | None) -> None:
    if any(interruption.fired for interruption in _watched):
        raise Interrupted
    if callable(_previous_handler):
        _previous_handler(number, frame)
