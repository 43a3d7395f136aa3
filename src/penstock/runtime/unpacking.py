"""Refuse flows that start while what a worker was sent is being unpacked.

Unpacking imports the module of a task. A module that starts a flow when it is imported would start
it once more in every worker, and where that flow has workers of its own, in theirs as well.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.errors import StartedByImportError


class _Thread(threading.local):
    depth = 0


_thread = _Thread()


@contextmanager
def unpacking() -> Iterator[None]:
    """Let no flow start in this thread inside the block."""
    _thread.depth += 1
    try:
        yield
    finally:
        _thread.depth -= 1


def refuse_while_unpacking(flow_name: str) -> None:
    """Refuse to start a flow while this thread unpacks something.

    Raises:
        StartedByImportError: it does.
    """
    if _thread.depth:
        raise StartedByImportError(
            f"Flow {flow_name!r} is started by the import of its module, here in a worker process "
            "that needs a task of that module, and so in each of them. Put what starts the flow "
            "under: if __name__ == '__main__':"
        )
