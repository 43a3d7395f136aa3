"""Refuse flows that start while code is only being loaded.

Unpacking what a worker was sent imports the module of a task. A module that starts a flow when it
is imported would start it once more in every worker, and where that flow has workers of its own,
in theirs as well. And a script that is loaded to continue a run of its flow may call that flow at
its end: it is loaded up to there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.errors import StartedByImportError


class FlowReached(BaseException):
    """Code that is only being loaded has come to the call of a flow. Not an Exception, so that
    few catch it."""


class _Here(threading.local):
    """What the calling thread does.

    Attributes:
        depth: how many things it is unpacking, one inside the other.
        loads: it loads code up to the call of a flow.
    """

    depth = 0
    loads = False


unpacking_here = _Here()


@contextmanager
def loaded_up_to_flow_calls() -> Iterator[None]:
    """Load code inside, which ends where it calls a flow."""
    unpacking_here.loads = True
    try:
        yield
    except FlowReached:
        pass
    finally:
        unpacking_here.loads = False


def refuse_while_unpacking(flow_name: str) -> None:
    """Refuse to start a flow while this thread only loads code.

    Raises:
        StartedByImportError: it unpacks something.
        FlowReached: it loads code up to here.
    """
    if unpacking_here.loads:
        raise FlowReached
    if unpacking_here.depth:
        raise StartedByImportError(
            f"Flow {flow_name!r} is started by the import of its module, here in a worker process "
            "that needs a task of that module, and so in each of them. Put what starts the flow "
            "under: if __name__ == '__main__':"
        )
