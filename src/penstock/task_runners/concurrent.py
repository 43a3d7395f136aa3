"""ConcurrentTaskRunner: sync tasks on a bounded thread pool, async tasks on the flow's loop."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

from penstock.core.resources import checked_own_resources
from penstock.errors import InvalidOptionError
from penstock.states import State, exception_to_crashed_state
from penstock.task_runners.accounts import Account
from penstock.task_runners.base import BaseTaskRunner, Call, TaskConcurrencyType
from penstock.task_runners.gate import ResourceGate
from penstock.task_runners.pool import WorkerPool
from penstock.task_runners.queues import take_back

if TYPE_CHECKING:
    import asyncio

DEFAULT_MAX_WORKERS = 256


class ConcurrentTaskRunner(BaseTaskRunner):
    """Run tasks on threads and on the flow's event loop. The default runner.

    Args:
        max_workers: how many task runs, of both kinds together, run at a time; default 256.
            Threads are started only as work needs them.
        resources: amounts of names of your own that tasks may ask for, such as
            `{"licence": 2}`. cpu, gpu and memory are the machine's.

    Raises:
        ValueError: `max_workers` is less than 1, or `resources` are no amounts by name.

    Example:
        >>> ConcurrentTaskRunner(max_workers=4)
        ConcurrentTaskRunner(max_workers=4)
    """

    suspends = False
    is_of_this_process = True

    def __init__(
        self, max_workers: int | None = None, resources: Mapping[str, Any] | None = None
    ) -> None:
        if max_workers is not None and (not isinstance(max_workers, int) or max_workers < 1):
            raise InvalidOptionError(
                f"max_workers is {max_workers!r}; it must be a whole number of at least 1."
            )
        self.max_workers = max_workers
        self.resources = checked_own_resources(resources)
        self._gate: ResourceGate | None = None
        self._pool: WorkerPool | None = None
        self._tasks: dict[UUID, asyncio.Task[State]] = {}
        self._turns: asyncio.Semaphore | None = None

    @property
    def concurrency_type(self) -> TaskConcurrencyType:
        return TaskConcurrencyType.CONCURRENT

    def duplicate(self) -> ConcurrentTaskRunner:
        if type(self) is not ConcurrentTaskRunner:
            return super().duplicate()
        return ConcurrentTaskRunner(self.max_workers, self.resources)

    async def _start(self, exit_stack: AsyncExitStack) -> None:
        limit = self.max_workers or DEFAULT_MAX_WORKERS
        self._pool = WorkerPool(limit)
        self._gate = ResourceGate(Account(self.resources, limit), self._pool.put)
        exit_stack.callback(self._gate.close)
        exit_stack.callback(self._close_pool)
        exit_stack.push_async_callback(self._wait_for_tasks)

    async def submit(self, key: UUID, call: Callable[[], Awaitable[State]]) -> None:
        self._require_started()
        import asyncio

        if self._turns is None:
            self._turns = asyncio.Semaphore(self.max_workers or DEFAULT_MAX_WORKERS)
        self._tasks[key] = asyncio.create_task(_guarded(call, self._turns))

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        import asyncio

        task = self._tasks[key]
        await asyncio.wait([task], timeout=timeout)
        return task.result() if task.done() else None

    def place(self, calls: Sequence[Call]) -> None:
        if self._pool is None or self._gate is None:
            self._require_started()
        elif calls[0].resources:
            self._gate.put(calls)
        else:
            self._pool.put(calls)

    def take_back(self, call: Call) -> bool:
        if call.resources and self._gate is not None:
            return self._gate.take_back(call)
        return take_back(call)

    def check_resources(self, task_name: str, resources: Mapping[str, float]) -> None:
        if self._gate is not None:
            self._gate.account.check(task_name, resources)

    def holders(self, call: Call) -> Sequence[Call]:
        return () if self._gate is None else self._gate.holders(call)

    def fits_beside(self, call: Call, holders: Sequence[Call]) -> bool:
        return self._gate is None or self._gate.account.fits_beside(call.resources, holders)

    async def _wait_for_tasks(self) -> None:
        if self._tasks:
            asyncio = sys.modules["asyncio"]
            await asyncio.wait(self._tasks.values())

    def _close_pool(self) -> None:
        pool, self._pool = self._pool, None
        stuck = pool.close() if pool is not None else 0
        if stuck:
            noun = "thread" if stuck == 1 else "threads"
            self.logger.warning("%d %s could not be stopped and may still run.", stuck, noun)


async def _guarded(call: Callable[[], Awaitable[State]], turns: asyncio.Semaphore) -> State:
    try:
        async with turns:
            return await call()
    except BaseException as exc:
        return exception_to_crashed_state(exc)
