"""Start the task runners of a flow run, each once, on first use; and stop them at its end.

suspends = False   start and stop are driven by hand, in the thread of the flow
suspends = True    a task on an event loop holds `async with runner.start()` open
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from penstock.runtime.blocking import take
from penstock.runtime.loops import FlowLoop
from penstock.states import State, describe_exception, exception_to_crashed_state
from penstock.task_runners.base import BaseTaskRunner, Call, TaskConcurrencyType

_SLICE_SECONDS = 0.25

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


class _Beginning:
    """A runner that is being started, for others who want it meanwhile."""

    def __init__(self, wanted: BaseTaskRunner) -> None:
        self.wanted = wanted
        self.over = threading.Event()

    def wait(self) -> None:
        # In slices, between which the waiting thread can be interrupted.
        while not self.over.wait(_SLICE_SECONDS):
            pass


class _Unstartable(BaseTaskRunner):
    """Stands for a runner that could not be started: whatever is placed on it crashes."""

    suspends = False

    def __init__(self, wanted: BaseTaskRunner, problem: Exception) -> None:
        self._wanted = wanted
        self._problem = problem

    @property
    def concurrency_type(self) -> TaskConcurrencyType:
        return self._wanted.concurrency_type

    def check_resources(self, task_name: str, resources: Mapping[str, float]) -> None:
        # What it would have given, nobody knows.
        return

    async def submit(self, key: UUID, call: Callable[[], Awaitable[State]]) -> None:
        raise self._problem

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        return exception_to_crashed_state(self._problem)

    def place(self, calls: Sequence[Call]) -> None:
        for call in calls:
            call.finished(exception_to_crashed_state(self._problem))


class Runners:
    """The task runners of one flow run: each distinct one is started once, on first use.

    A runner that suspends gets an event loop of its own, so that starting it waits for nothing
    that could be waiting for it; only the flow's own runner may be started on the caller's loop.

    Args:
        main: the flow's own runner, not started.
        loop: the flow run's loop.
    """

    def __init__(self, main: BaseTaskRunner, loop: FlowLoop) -> None:
        self._main = main
        self._loop = loop
        self._running: dict[int, tuple[BaseTaskRunner, RunningRunner]] = {}
        self._beginning: list[_Beginning] = []
        self._lock = threading.Lock()

    def running(self, wanted: BaseTaskRunner | None) -> RunningRunner:
        """Give a started runner that equals the wanted one; None is the flow's own.

        The first use starts it, whichever thread that is in; others that want it wait. One that
        cannot be started crashes the task runs that are placed on it, and nothing else.

        Raises:
            Exception: the flow's own runner cannot be started.
        """
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
                if running.loop is not self._loop:
                    stack.callback(running.loop.close)
                stack.callback(running.stop)

    def _find_or_start(self, wanted: BaseTaskRunner) -> RunningRunner:
        while True:
            with self._lock:
                running = self._equal_to(wanted)
                if running is not None:
                    # The wanted runner is kept alive, so that its id stays its own.
                    self._running[id(wanted)] = (wanted, running)
                    return running
                beginning = next((one for one in self._beginning if one.wanted == wanted), None)
                if beginning is None:
                    mine = _Beginning(wanted)
                    self._beginning.append(mine)
            if beginning is None:
                return self._begin(mine)
            beginning.wait()

    def _equal_to(self, wanted: BaseTaskRunner) -> RunningRunner | None:
        return next((one for other, one in self._running.values() if other == wanted), None)

    def _begin(self, beginning: _Beginning) -> RunningRunner:
        """Start a runner. Others may be started and used meanwhile."""
        wanted = beginning.wanted
        try:
            running = self._started(wanted)
            with self._lock:
                self._running[id(wanted)] = (wanted, running)
            return running
        finally:
            with self._lock:
                self._beginning.remove(beginning)
            beginning.over.set()

    def _started(self, wanted: BaseTaskRunner) -> RunningRunner:
        is_main = wanted == self._main
        runner = self._main if is_main else wanted.duplicate()
        running = RunningRunner(runner, FlowLoop() if runner.suspends else self._loop)
        try:
            running.start()
        except BaseException as exc:
            if running.loop is not self._loop:
                running.loop.close()
            if is_main or not isinstance(exc, Exception):
                raise
            runner.logger.error("The %s could not be started: %s", runner, describe_exception(exc))
            return RunningRunner(_Unstartable(wanted, exc), self._loop)
        return running


def _drive_by_hand(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("A task runner that declares `suspends = False` suspended.")
