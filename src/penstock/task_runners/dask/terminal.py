"""Keep the terminal's signals from the worker processes of a cluster that we start.

Ctrl-C reaches every process of the terminal's foreground group. The driver decides what it
means; a worker process that died of it on its own would print a traceback and be replaced.

    thread that starts workers    both signals blocked; a new process inherits the mask
        └─ worker process         blocked from its first instruction, while Python starts
             └─ this module       loaded as a Dask preload: a handler that does nothing, then
                                  unblocked, so that what a task starts gets the default again
"""

from __future__ import annotations

import signal
import threading
from multiprocessing import resource_tracker
from typing import Any

SIGNALS = frozenset({signal.SIGINT, signal.SIGHUP})


def block_in_this_thread() -> None:
    """Block the terminal's signals in the calling thread and in all that it starts from now on.

    The main thread is left alone: it is the one that must hear Ctrl-C.
    """
    if threading.current_thread() is threading.main_thread():
        return
    # The tracker's start unblocks SIGINT in its thread, so it must be over before.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def dask_setup(worker: Any) -> None:
    """Make a worker process deaf to the terminal; Dask calls it on the worker's start."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _ignore(number: int, frame: object) -> None:
    """Do nothing. Unlike SIG_IGN, a function is not inherited by what a task starts."""
