"""Refuse flows that start while what a worker was sent is being unpacked.

Unpacking imports the module of a task. A module that starts a flow when it is imported would start
it once more in every worker, and where that flow has workers of its own, in theirs as well.
"""

from __future__ import annotations

import threading

from penstock.errors import StartedByImportError


class _Here(threading.local):
    """What the calling thread does.

    Attributes:
        depth: how many things it is unpacking, one inside the other.
    """

    depth = 0


unpacking_here = _Here()


def refuse_while_unpacking(flow_name: str) -> None:
    """Refuse to start a flow while this thread unpacks something.

    Raises:
        StartedByImportError: it does.
    """
    if unpacking_here.depth:
        raise StartedByImportError(
            f"Flow {flow_name!r} is started by the import of its module, here in a worker process "
            "that needs a task of that module, and so in each of them. Put what starts the flow "
            "under: if __name__ == '__main__':"
        )
