"""The recorder of this process: opened with the first run, closed at exit."""

from __future__ import annotations

import atexit
import os
import threading

from penstock.history.recorder import Recorder
from penstock.history.stores import open_store
from penstock.settings import Settings
from penstock.version import __version__

Place = tuple[str, bool] | None
_recorders: dict[Place, Recorder] = {}
_lock = threading.Lock()


def recorder_for(settings: Settings) -> Recorder:
    """Give the recorder for these settings, opening the history when it is first needed.

    Raises:
        HistoryError: the history cannot be opened; nothing has run yet.
    """
    place = (settings.database_url, settings.power_safe) if settings.record else None
    recorder = _recorders.get(place)
    if recorder is None or not recorder.is_usable:
        with _lock:
            recorder = _recorders.get(place)
            if recorder is None or not recorder.is_usable:
                recorder = _replace(recorder, place)
    return recorder


def _replace(broken: Recorder | None, place: Place) -> Recorder:
    """Open the history; one that gave up is tried again with the next run."""
    if broken is not None:
        _close(broken)
    store = None if place is None else open_store(*place)
    _recorders[place] = Recorder(store, __version__)
    return _recorders[place]


def close() -> None:
    """Commit everything and close the history. The next run opens it again."""
    with _lock:
        recorders = list(_recorders.values())
        _recorders.clear()
    for recorder in recorders:
        _close(recorder)


def _close(recorder: Recorder) -> None:
    if recorder.desk is not None:
        recorder.desk.close()
    recorder.close()


def _after_fork() -> None:
    # A forked child must never touch the parent's connection: it starts without any. Runs that
    # it was forked in the middle of are the parent's to record.
    global _lock
    for recorder in _recorders.values():
        recorder.disown()
    _recorders.clear()
    _lock = threading.Lock()


atexit.register(close)
os.register_at_fork(after_in_child=_after_fork)
