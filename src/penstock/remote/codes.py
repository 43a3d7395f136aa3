"""The code of tasks, packed once per flow run and sent to each worker once."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

from penstock.remote.parcels import pack_code


class Code(NamedTuple):
    """A task's code on its way: its digest, and its bytes."""

    digest: str
    data: bytes


class Codes:
    """The packed code of tasks. A task, with what it closes over, is packed when it is first sent.

    Used by one thread.
    """

    def __init__(self) -> None:
        # The task is kept, so that its id stays its own.
        self._codes: dict[int, tuple[Any, Code]] = {}
        self._holders: dict[str, set[str]] = {}
        self._shared: dict[str, Any] = {}

    def of(self, task: Any) -> Code:
        """Give the code of a task.

        Raises:
            SerializationError: something that the task's function refers to cannot be pickled.
        """
        entry = self._codes.get(id(task))
        if entry is None:
            data = pack_code(task)
            code = Code(blake2b(data, digest_size=16).hexdigest(), data)
            entry = self._codes[id(task)] = (task, code)
        return entry[1]

    def to_send(self, code: Code, workers: frozenset[str]) -> bytes | None:
        """Give the bytes that have to travel: None once every worker has them."""
        holders = self._holders.get(code.digest)
        return None if holders and workers and workers <= holders else code.data

    def shared(self, code: Code, share: Callable[[str, Any], Any]) -> Any:
        """Give large code as it lies on the engine, where it stays as long as this does."""
        # Asked for each time: what its workers have lost is put there again.
        shared = self._shared[code.digest] = share(code.digest, code.data)
        return shared

    def note_holder(self, digest: str, worker: str) -> None:
        """Note that a worker has the code."""
        self._holders.setdefault(digest, set()).add(worker)

    def note_lack(self, digest: str, worker: str) -> None:
        """Note that a worker does not have the code, whatever was thought."""
        self._holders.get(digest, set()).discard(worker)
