"""Heavy arguments: what a process hands to workers is warned of, and refused where it must be.

Contents that many task runs share travel once, and are no reason to complain.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from penstock.errors import SerializationError
from penstock.remote.parcels import Large, layout_of

HEAVY_BYTES = 10 * 2**20
"""Arguments of one task run above which its task is warned of, once."""
MOST_BYTES = 512 * 2**20
"""The most that the arguments of one task run may take in a message."""
logger = logging.getLogger("penstock.remote")
_NONE: frozenset[str] = frozenset()


class Payloads:
    """Warns once for each task of heavy arguments that are not shared. Thread-safe."""

    def __init__(self) -> None:
        # The large contents of the first heavy call of a task; None once it was warned of.
        self._first: dict[tuple[str, str], frozenset[str] | None] = {}

    def note(self, task: Any, data: bytes, large: Sequence[Large], *, is_one_of_many: bool) -> None:
        """Take note of packed arguments.

        Args:
            is_one_of_many: others of the same `map` may use the same contents: the first of them
                is no reason to warn, one with contents of its own is.
        """
        if _size(data, large) <= HEAVY_BYTES:
            return
        name = (task.key, task.name)
        if is_one_of_many and name not in self._first:
            self._first[name] = frozenset(part.digest for part in large)
            return
        known = self._first.get(name, _NONE)
        if known is None:
            return
        own = [part for part in large if part.digest not in known]
        if _size(data, own) <= HEAVY_BYTES:
            return
        self._first[name] = None
        argument, size = _heaviest(task, data, large)
        logger.warning(
            "Argument %r of task %r takes %s, and travels from this process to a worker. Where "
            "many task runs use the same content, give it to one `map` as `unmapped(…)`: then it "
            "travels once. Otherwise make or load it in a task, and pass that task's future on: "
            "then it moves from worker to worker.",
            argument,
            task.name,
            _said(size),
        )

    def refuse(self, task: Any, data: bytes, large: Sequence[Large]) -> None:
        """Refuse arguments that are too heavy to travel in a message.

        Raises:
            SerializationError: they are.
        """
        size = _size(data, large)
        if size > MOST_BYTES:
            argument, its_size = _heaviest(task, data, large)
            raise SerializationError(
                f"The arguments of task {task.name!r} take {_said(size)}, of which "
                f"argument {argument!r} {_said(its_size)}; what is submitted inside a "
                f"task may take {_said(MOST_BYTES)}. Make or load it in a task of its "
                "own, and pass that task's future on: then it moves from worker to worker."
            )


def _size(data: bytes, large: Sequence[Large]) -> int:
    return len(data) + sum(memoryview(part.buffer).nbytes for part in large)


def _said(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _heaviest(task: Any, data: bytes, large: Sequence[Large]) -> tuple[str, int]:
    """Give the name of the largest argument, and its size in bytes."""
    sizes = {part.digest: memoryview(part.buffer).nbytes for part in large}
    weights = [
        (sum(map(sizes.__getitem__, digests)), places[0])
        for places, _, _, digests in layout_of(data)[1]
    ]
    size, place = max(weights)
    return task.parameter_names[place], size
