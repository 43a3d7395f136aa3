"""Start a DaskTaskRunner as a flow run does, and use the client that it opens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from multiprocessing import resource_tracker
from typing import Any

from distributed.utils import offload

from penstock.task_runners import DaskTaskRunner

THREADS = {"processes": False, "n_workers": 1, "threads_per_worker": 2}


def start_what_lasts() -> None:
    """Start what is kept for the life of the process: Dask's thread, Python's tracker."""

    async def start() -> None:
        await offload(int)

    asyncio.run(start())
    resource_tracker.ensure_running()


def in_thread(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function on a loop of a new thread, as a flow run does."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(asyncio.run(function()))
        except Exception as exc:
            found.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def started(runner: DaskTaskRunner, use: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Start a runner in a thread, use its client and give what that gave."""

    async def main() -> Any:
        async with runner.start():
            # The client lives on a loop of the runner's own.
            client = runner._client
            there = asyncio.run_coroutine_threadsafe(use(client), client.loop.asyncio_loop)
            return await asyncio.wrap_future(there)

    return in_thread(main)


async def add(client: Any) -> Any:
    return await client.submit(sum, [1, 2])
