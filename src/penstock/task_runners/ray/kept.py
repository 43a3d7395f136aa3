"""What Ray's object store keeps for a driver: values of task runs, and large arguments."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayTaskError

from penstock.errors import CrashedRun
from penstock.remote.values import Fetch

if TYPE_CHECKING:
    from penstock.task_runners.ray.engine import RayEngine

_SLICE_SECONDS = 1.0


class Raw:
    """Bytes in the object store; there they are not copied, and who gets them sees a view."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _raw, (pickle.PickleBuffer(self.buffer),)


def _raw(buffer: Any) -> Raw:
    return Raw(memoryview(buffer))


class Kept:
    """An object in Ray's store, released there when nobody holds this any more.

    Attributes:
        name: what workers ask for.
        ref: Ray's reference to it.
        is_lost: Ray has said that it has the object no more.
    """

    def __init__(self, name: str, ref: Any) -> None:
        self.name = name
        self.ref = ref
        self.is_lost = False


class Shared:
    """A large buffer in the object store; released there when nobody holds this any more."""

    def __init__(self, native: Kept) -> None:
        self.native = native

    @property
    def is_lost(self) -> bool:
        """Whether the node that had it has died."""
        return self.native.is_lost


class RayFetch(Fetch):
    """A value in the object store, which belongs to the worker that made it."""

    def __init__(self, engine: RayEngine, native: Kept | None, worker: str) -> None:
        self.native = native
        self.worker = worker
        self.engine = engine

    @property
    def name(self) -> str:
        return "" if self.native is None else self.native.name

    @property
    def is_lost(self) -> bool:
        return self.native is None or self.native.is_lost

    def fetch(self) -> Any:
        while True:
            if self.engine.is_closed:
                raise CrashedRun(
                    "The value stayed in Ray's object store, which the flow run has left: ask for "
                    "it while the flow runs."
                )
            kept: Kept | None = self.native
            if kept is not None and not kept.is_lost:
                try:
                    return ray.get(kept.ref, timeout=_SLICE_SECONDS)
                except GetTimeoutError:
                    continue
                except ObjectLostError:
                    kept.is_lost = True
            self.engine.recover(self)


def lost_object(problem: BaseException) -> str | None:
    """Give the id of the object whose loss kept a bundle from beginning; None: it was no loss."""
    cause = problem.cause if isinstance(problem, RayTaskError) else problem
    if isinstance(cause, ObjectLostError):
        return str(cause.object_ref_hex)
    return None
