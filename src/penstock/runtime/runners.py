"""Start the task runners of a flow run, each once, on first use; and stop them at its end.

suspends = False   start and stop are driven by hand, in the thread of the flow
suspends = True    a task on an event loop holds `async with runner.start()` open
"""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from penstock.runtime.blocking import take
from penstock.runtime.loops import FlowLoop
from penstock.task_runners.base import BaseTaskRunner

_GIVE_UP_SECONDS = 5.0


class RunningRunner:
    """A started task runner, and the loop that it and its calls use."""

    def __init__(self, runner: BaseTaskRunner, loop: FlowLoop) -> None:
        self.runner = runner
        self.loop = loop
        self._context: Any = None
        self._stop: Any = None
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()
        self._holder: Any = None
        self._is_given_up = False

    def start(self) -> None:
        """Start the runner; blocks until it has started."""
        if not self.runner.suspends:
            self._context = self.runner.start()
            _drive_by_hand(self._context.__aenter__())
            return
        started: SimpleQueue[BaseException | None] = SimpleQueue()
        self.loop.spawn(self._hold, started)
        try:
            problem = take(started)
        except BaseException:
            # Interrupted: nobody else knows of what has been opened so far.
            self._give_up()
            raise
        if problem is not None:
            raise problem

    def stop(self) -> None:
        """Stop the runner; blocks until it has released everything."""
        if self._context is not None:
            context, self._context = self._context, None
            _drive_by_hand(context.__aexit__(None, None, None))
        elif self._stop is not None:
            self._stop()
            problem = take(self._ended)
            if problem is not None:
                raise problem

    def _give_up(self) -> None:
        """Stop starting, and wait a while until what was opened is released."""
        self._is_given_up = True
        self.loop.opened().call_soon_threadsafe(lambda: self._holder and self._holder.cancel())
        take(self._ended, _GIVE_UP_SECONDS)

    async def astart(self) -> None:
        """Start the runner on the running loop."""
        self._context = self.runner.start()
        await self._context.__aenter__()

    async def astop(self) -> None:
        """Stop a runner that was started on the running loop."""
        context, self._context = self._context, None
        await context.__aexit__(None, None, None)

    async def _hold(self, started: SimpleQueue[BaseException | None]) -> None:
        import asyncio

        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        self._holder = asyncio.current_task()
        try:
            if self._is_given_up:
                raise asyncio.CancelledError
            async with self.runner.start():
                started.put(None)
                await stop.wait()
        except BaseException as exc:
            started.put(exc)
            self._ended.put(exc)
        else:
            self._ended.put(None)


class Runners:
    """The task runners of one flow run: each distinct one is started once, on first use.

    Args:
        main: the flow's own runner, not started.
        loop: the flow run's loop.
        side_loop: a loop that is never the caller's. A runner that suspends while it starts must
            not do so on a loop that waits for it.
    """

    def __init__(self, main: BaseTaskRunner, loop: FlowLoop, side_loop: FlowLoop) -> None:
        self._main = main
        self._loop = loop
        self._side_loop = side_loop
        self._running: dict[int, tuple[BaseTaskRunner, RunningRunner]] = {}
        self._lock = threading.RLock()

    def running(self, wanted: BaseTaskRunner | None) -> RunningRunner:
        """Give a started runner that equals the wanted one; None is the flow's own."""
        wanted = wanted or self._main
        entry = self._running.get(id(wanted))
        return entry[1] if entry is not None else self._find_or_start(wanted)

    async def astart_main(self) -> None:
        """Start the flow's own runner on the running loop, if it is one that suspends."""
        if self._main.suspends:
            running = RunningRunner(self._main, self._loop)
            await running.astart()
            self._running[id(self._main)] = (self._main, running)

    async def astop_main(self) -> None:
        """Stop the flow's own runner, if it was started on the running loop."""
        entry = self._running.get(id(self._main))
        if entry is not None and entry[1].loop is self._loop and self._main.suspends:
            del self._running[id(self._main)]
            await entry[1].astop()

    def stop(self) -> None:
        """Stop every runner, the last one first."""
        started = {id(running): running for _, running in self._running.values()}
        self._running.clear()
        with ExitStack() as stack:
            # The last one is stopped first, and one that fails does not keep the others running.
            for running in started.values():
                stack.callback(running.stop)

    def _find_or_start(self, wanted: BaseTaskRunner) -> RunningRunner:
        with self._lock:
            for _, running in self._running.values():
                if running.runner == wanted:
                    break
            else:
                runner = wanted if wanted is self._main else wanted.duplicate()
                running = RunningRunner(runner, self._side_loop if runner.suspends else self._loop)
                running.start()
            # The wanted runner is kept alive, so that its id stays its own.
            self._running[id(wanted)] = (wanted, running)
            return running


def _drive_by_hand(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("A task runner that declares `suspends = False` suspended.")
