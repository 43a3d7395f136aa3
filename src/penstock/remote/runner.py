"""RemoteTaskRunner: what the runners of engines outside this process have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

from penstock.errors import TaskRunnerError
from penstock.remote.dispatch import Dispatcher
from penstock.remote.engine import Engine
from penstock.remote.parcels import pack_code
from penstock.states import State, exception_to_crashed_state
from penstock.task_runners.base import BaseTaskRunner, Call, TaskConcurrencyType

_PATIENCE_SECONDS = 3.0


class RemoteTaskRunner(BaseTaskRunner):
    """A runner whose engine executes task runs in other processes.

    Subclasses say how their engine is opened.
    """

    suspends = True
    runs_elsewhere = True
    foresees = True

    _dispatcher: Dispatcher | None = None
    _raw: dict[UUID, Any]

    @property
    def concurrency_type(self) -> TaskConcurrencyType:
        return TaskConcurrencyType.PARALLEL

    @abstractmethod
    async def _open(self, exit_stack: AsyncExitStack) -> Engine:
        """Open the engine, and push on the stack what closes it."""

    @property
    def _sends_bundles(self) -> bool:
        return bool(getattr(self, "bundle", True))

    async def _start(self, exit_stack: AsyncExitStack) -> None:
        self._raw = {}
        engine = await self._open(exit_stack)
        dispatcher = Dispatcher(engine, self._sends_bundles)
        engine.listen(dispatcher)
        dispatcher.start()
        exit_stack.callback(self._release)
        exit_stack.push_async_callback(self._end, dispatcher)
        self._dispatcher = dispatcher

    async def _end(self, dispatcher: Dispatcher) -> None:
        """Wait for what was submitted, and end the dispatcher."""
        import asyncio

        if self._raw:
            await asyncio.wait(self._raw.values())
        loop, idle = asyncio.get_running_loop(), asyncio.Event()
        dispatcher.when_idle(lambda: loop.call_soon_threadsafe(idle.set))
        try:
            # Every task run has ended by now; only threads that nobody can stop still run.
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await idle.wait()
        except TimeoutError:
            self.logger.warning("Something could not be stopped on a worker and may still run.")
        await asyncio.to_thread(dispatcher.close)

    def _release(self) -> None:
        self._dispatcher = None

    async def submit(self, key: UUID, call: Callable[[], Awaitable[State]]) -> None:
        import asyncio

        self._require_started()
        assert self._dispatcher is not None
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[State] = loop.create_future()
        self._raw[key] = ended

        def end(state: State) -> None:
            loop.call_soon_threadsafe(_resolve, ended, state)

        try:
            code = pack_code(call)
        except Exception as exc:
            end(exception_to_crashed_state(exc))
            return
        self._dispatcher.send_raw(key.bytes, code, end)

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        import asyncio

        ended = self._raw[key]
        await asyncio.wait([ended], timeout=timeout)
        return ended.result() if ended.done() else None

    def place(self, calls: Sequence[Call]) -> None:
        if self._dispatcher is None:
            self._require_started()
            raise TaskRunnerError("The task runner has ended.")
        self._dispatcher.place(calls)

    def foresee(self, call: Any) -> None:
        if self._dispatcher is not None:
            self._dispatcher.foresee(call)

    def take_back(self, call: Call) -> bool:
        return self._dispatcher is not None and self._dispatcher.take_back(call)

    @property
    def engine(self) -> Any:
        """The engine that task runs are on; None before the start."""
        return None if self._dispatcher is None else self._dispatcher.engine

    def is_away(self, call: Any) -> bool:
        return call.cargo is not None and call.cargo.bundle is not None

    def recall(self, call: Call) -> None:
        if self._dispatcher is not None:
            self._dispatcher.recall(call)

    def interrupt(self, call: Call) -> None:
        if self._dispatcher is not None:
            self._dispatcher.interrupt(call)


def _resolve(ended: Any, state: State) -> None:
    if not ended.done():
        ended.set_result(state)
