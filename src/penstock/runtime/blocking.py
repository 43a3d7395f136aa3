"""Block on a queue in slices, so that whoever waits can be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")
# A thread other than the main one can only be interrupted between two waits; and a signal that
# reaches the main thread just before it blocks is only noticed after that.
_SLICE_SECONDS = 0.25


class ServiceThread(threading.Thread):
    """A thread that task runs depend on: it must never wait for one itself."""


def is_service_thread() -> bool:
    """Tell whether the calling thread must not wait for task runs, nor execute any."""
    return isinstance(threading.current_thread(), ServiceThread)


class _Local(threading.local):
    block: Callable[[SimpleQueue[Any], float], Any] | None = None


_local = _Local()


def block_by(function: Callable[[SimpleQueue[Any], float], Any] | None) -> None:
    """Have the calling thread block by a function from now on; None: as usual.

    For engines that have to know when a thread of theirs blocks.

    Args:
        function: takes something out of a queue, waiting for it for some seconds; raises
            `queue.Empty` when they have passed.
    """
    _local.block = function


def take(queue: SimpleQueue[T], timeout: float | None = None) -> T | None:
    """Take something out of a queue, waiting for it; None when the timeout passed first.

    Args:
        timeout: seconds; None waits as long as it takes.
    """
    deadline = None if timeout is None else monotonic() + timeout
    while True:
        left = _SLICE_SECONDS if deadline is None else deadline - monotonic()
        seconds, block = max(0.0, min(left, _SLICE_SECONDS)), _local.block
        try:
            return queue.get(timeout=seconds) if block is None else block(queue, seconds)
        except Empty:
            if deadline is not None and monotonic() >= deadline:
                return None
