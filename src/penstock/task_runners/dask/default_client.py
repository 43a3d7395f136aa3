"""Make a client the one that Dask collections use, in this context only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask.config
import distributed

_lock = threading.Lock()
_inside = 0
_setting: Any = None


@contextmanager
def as_default(client: distributed.Client) -> Iterator[None]:
    """Let Dask collections compute on a client inside the block. Thread-safe.

    `Client.as_current` also changes a setting of the whole process for its block. Blocks that
    overlap in several threads would leave it changed, so the first block here changes it and
    the last one changes it back.
    """
    _enter()
    try:
        with client.as_current():
            yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _setting
    with _lock:
        _inside += 1
        if _inside == 1:
            _setting = dask.config.set(scheduler="dask.distributed")


def _leave() -> None:
    global _inside, _setting
    with _lock:
        _inside -= 1
        if _inside == 0:
            _setting.__exit__(None, None, None)
            _setting = None
