"""Start the task runners of a flow run, each once, on first use; and stop them at its end.

suspends = False   start and stop are driven by hand, in the thread of the flow
suspends = True    a task on an event loop holds `async with runner.start()` open
"""

from __future__ import annotations

from collections.abc import Coroutine
from queue import SimpleQueue
from typing import Any

from penstock.runtime.loops import FlowLoop
from penstock.task_runners.base import BaseTaskRunner


class RunningRunner:
    """A started task runner, and the loop that it and its calls use."""

    def __init__(self, runner: BaseTaskRunner, loop: FlowLoop) -> None:
        self.runner = runner
        self.loop = loop
        self._context: Any = None
        self._stop: Any = None
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def start(self) -> None:
        """Start the runner; blocks until it has started."""
        if not self.runner.suspends:
            self._context = self.runner.start()
            _drive_by_hand(self._context.__aenter__())
            return
        started: SimpleQueue[BaseException | None] = SimpleQueue()
        self.loop.spawn(self._hold, started)
        problem = started.get()
        if problem is not None:
            raise problem

    def stop(self) -> None:
        """Stop the runner; blocks until it has released everything."""
        if self._context is not None:
            context, self._context = self._context, None
            _drive_by_hand(context.__aexit__(None, None, None))
        elif self._stop is not None:
            self._stop()
            problem = self._ended.get()
            if problem is not None:
                raise problem

    async def _hold(self, started: SimpleQueue[BaseException | None]) -> None:
        import asyncio

        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        try:
            async with self.runner.start():
                started.put(None)
                await stop.wait()
        except BaseException as exc:
            started.put(exc)
            self._ended.put(exc)
        else:
            self._ended.put(None)


def _drive_by_hand(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("A task runner that declares `suspends = False` suspended.")
