"""What lies in the arena for a driver: values of task runs, and large arguments."""

from __future__ import annotations

import mmap
from typing import Any

from penstock.remote.values import Fetch
from penstock.task_runners.processes.arena import OwnArena


class KeptValue(Fetch):
    """A value in the arena; removed there when this is dropped.

    It survives the worker that made it, and the pool.
    """

    def __init__(self, engine: Any, arena: OwnArena, name: str, worker: str) -> None:
        self.engine = engine
        self.worker = worker
        self.native = name
        self._arena = arena
        arena.hold(self, name)

    @property
    def name(self) -> str:
        return str(self.native)

    def fetch(self) -> Any:
        # The user may change what is given: nobody else sees that.
        return self._arena.read_value(self.name, mmap.ACCESS_COPY)


class SharedBuffer:
    """A large buffer in the arena; removed there when nobody holds this any more."""

    is_lost = False

    def __init__(self, arena: OwnArena, digest: str, buffer: Any) -> None:
        self.native = digest
        arena.write_buffer(digest, buffer)
        arena.hold(self, digest)
