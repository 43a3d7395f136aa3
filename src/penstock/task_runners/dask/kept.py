"""What the cluster keeps for a driver: values of task runs, and large arguments."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, Future

from penstock.errors import CrashedRun
from penstock.remote.values import Fetch, not_rebuilt

if TYPE_CHECKING:
    from penstock.task_runners.dask.engine import DaskEngine

_GONE = frozenset({"cancelled", "lost"})


def is_gone(native: Future[Any] | None) -> bool:
    """Tell whether the scheduler has said that it has a key no more."""
    return native is None or native.status in _GONE


class Shared:
    """A large buffer on the cluster; released there when nobody holds this any more.

    Args:
        native: what Dask has of it; the bytes themselves where no worker is there to keep them.
    """

    def __init__(self, native: Future[Any] | bytes) -> None:
        self.native = native

    @property
    def is_lost(self) -> bool:
        """Whether the workers that had it have died."""
        return not isinstance(self.native, bytes) and is_gone(self.native)


class DaskFetch(Fetch):
    """A value that a worker keeps as a Dask key; released there when this is dropped."""

    def __init__(self, engine: DaskEngine, native: Future[Any] | None, worker: str) -> None:
        self.native = native
        self.worker = worker
        self.engine = engine

    @property
    def name(self) -> str:
        return str(self.native.key)

    @property
    def is_lost(self) -> bool:
        return is_gone(self.native)

    def fetch(self) -> Any:
        while True:
            if self.engine.is_closed:
                raise CrashedRun(
                    "The value stayed on the Dask cluster, which the flow run has left: ask for "
                    "it while the flow runs."
                )
            if not self.is_lost:
                try:
                    whole = self.engine.gather(self.native)
                except (CancelledError, asyncio.CancelledError):
                    pass
                else:
                    return _value_of(whole)
            self.engine.recover(self)

    def hold(self) -> None:
        self.engine.held.append(self)


def _value_of(whole: Any) -> Any:
    try:
        return whole.value
    except Exception as exc:
        raise not_rebuilt(exc) from exc
