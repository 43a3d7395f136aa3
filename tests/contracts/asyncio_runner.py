"""Runners of a third party, on nothing but asyncio tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import UUID

from penstock import State
from penstock.states import exception_to_crashed_state
from penstock.task_runners import BaseTaskRunner, TaskConcurrencyType

Call = Callable[[], Awaitable[State]]


class MinimalTaskRunner(BaseTaskRunner):
    """Have `concurrency_type`, `submit` and `wait`, and nothing else: enough for a flow."""

    concurrency_type = TaskConcurrencyType.CONCURRENT

    def __init__(self) -> None:
        self._tasks: dict[UUID, asyncio.Future[State]] = {}

    async def submit(self, key: UUID, call: Call) -> None:
        self._tasks[key] = asyncio.ensure_future(call())

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        done, _ = await asyncio.wait([self._tasks[key]], timeout=timeout)
        return self._tasks.pop(key).result() if done else None


class AsyncioTaskRunner(MinimalTaskRunner):
    """Keep every rule, also for calls that no flow has made."""

    async def _start(self, exit_stack: AsyncExitStack) -> None:
        exit_stack.push_async_callback(self._drain)

    async def _drain(self) -> None:
        await asyncio.gather(*self._tasks.values())

    async def submit(self, key: UUID, call: Call) -> None:
        self._require_started()
        await super().submit(key, lambda: _guarded(call))


async def _guarded(call: Call) -> State:
    try:
        return await call()
    except BaseException as error:
        return exception_to_crashed_state(error)
