"""The recorder of this process: opened with the first run, closed at exit."""

from __future__ import annotations

import atexit
import os
import threading

from penstock.history.recorder import Recorder
from penstock.history.stores import open_store
from penstock.settings import Settings
from penstock.version import __version__

_recorders: dict[str | None, Recorder] = {}
_lock = threading.Lock()


def recorder_for(settings: Settings) -> Recorder:
    """Give the recorder for these settings, opening the history when it is first needed.

    Raises:
        HistoryError: the history cannot be opened; nothing has run yet.
    """
    url = settings.database_url if settings.record else None
    recorder = _recorders.get(url)
    if recorder is None:
        with _lock:
            recorder = _recorders.get(url)
            if recorder is None:
                store = None if url is None else open_store(url, settings.power_safe)
                recorder = _recorders[url] = Recorder(store, __version__)
    return recorder


def close() -> None:
    """Commit everything and close the history. The next run opens it again."""
    with _lock:
        recorders = list(_recorders.values())
        _recorders.clear()
    for recorder in recorders:
        recorder.close()


def _after_fork() -> None:
    # A forked child must never touch the parent's connection: it starts without any.
    global _lock
    _recorders.clear()
    _lock = threading.Lock()


atexit.register(close)
os.register_at_fork(after_in_child=_after_fork)
