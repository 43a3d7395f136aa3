"""Watch over a cluster: is its scheduler there, has it any workers?"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from dask.utils import format_bytes
from distributed import Client

from penstock.errors import EngineLost

if TYPE_CHECKING:
    from penstock.remote.dispatch import Dispatcher

logger = logging.getLogger("penstock.task_runner.dask")
LOST_SECONDS = 15.0
"""How long a lost connection to the scheduler may take to come back."""
NO_WORKERS_SECONDS = 30.0
"""How long work may find no workers before that is said."""
CHECK_SECONDS = 0.5
_MOST_DEATHS = 1000


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    problem = record.exc_info[1] if record.exc_info else None
    return not isinstance(problem, asyncio.CancelledError)


class Watch:
    """Looks after one client, on its loop.

    Attributes:
        threads: how many threads all workers have.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._connected = asyncio.Event()
        self._is_over = False
        # Workers that were killed for their memory: how much they had.
        self._too_large: OrderedDict[str, int] = OrderedDict()
        self.threads = 0

    async def run(self, dispatcher: Dispatcher, hello: Callable[[], Awaitable[None]]) -> None:
        """Look every now and then, until the scheduler is gone for good.

        Args:
            hello: called when the connection has come back.
        """
        try:
            await self._look(dispatcher, hello)
        finally:
            self._is_over = True
            self._connected.set()

    async def _look(self, dispatcher: Dispatcher, hello: Callable[[], Awaitable[None]]) -> None:
        lost_for = workless_for = 0.0
        while self._client.status != "closed" and lost_for < LOST_SECONDS:
            await asyncio.sleep(CHECK_SECONDS)
            if self._client.status != "running":
                self._connected.clear()
                lost_for += CHECK_SECONDS
                continue
            if lost_for:
                logger.warning("The connection to the Dask scheduler was lost, and is back.")
                with suppress(OSError):
                    await hello()
            lost_for = 0.0
            self._connected.set()
            workless_for = self._workless(workless_for, dispatcher)
        # Its attempts to connect end with the client: that is no news.
        logging.getLogger("distributed.client").addFilter(_is_no_cancellation)
        dispatcher.fail(
            EngineLost(
                "The connection to the Dask scheduler was lost and did not come back within "
                f"{LOST_SECONDS:g} s, so the flow run cannot go on. See that a scheduler runs, "
                "and run the flow again."
            )
        )

    def _workless(self, before: float, dispatcher: Dispatcher) -> float:
        """Give for how long work has found no workers; say it once when that is long."""
        if self.threads or not dispatcher.in_flight:
            return 0.0
        now = before + CHECK_SECONDS
        if before < NO_WORKERS_SECONDS <= now:
            logger.warning(
                "The Dask cluster has had no workers for %g s, and %d task runs wait for some. "
                "The flow run goes on when workers join the scheduler at %s.",
                NO_WORKERS_SECONDS,
                len(dispatcher.open),
                self._client.scheduler.address,  # type: ignore[union-attr]
            )
        return now

    async def was_cut(self) -> bool:
        """Tell whether the connection is cut; returns when it is back, or given up."""
        if self._client.status == "running":
            return False
        if not self._is_over:
            self._connected.clear()
            await self._connected.wait()
        return True

    def note_too_large(self, worker: str, rss: int) -> None:
        """Note that a worker was killed because of the memory that it took."""
        self._too_large[worker] = rss
        while len(self._too_large) > _MOST_DEATHS:
            self._too_large.popitem(last=False)

    def death_of(self, worker: str, memory_limit: int) -> str:
        """Say in words that a worker has died, and of what as far as is known."""
        text = f"The worker {worker} died while it had the task run"
        rss = self._too_large.get(worker)
        if rss is None:
            return f"{text}."
        return (
            f"{text}: it took {format_bytes(rss)} of memory and was killed near its limit of "
            f"{format_bytes(memory_limit)} (oom_suspected). Give workers more memory, or let "
            "fewer task runs run at once."
        )
