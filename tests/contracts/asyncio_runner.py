"""A third party's runner: `concurrency_type`, `submit`, `wait`, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from penstock import State
from penstock.task_runners import BaseTaskRunner, TaskConcurrencyType


class AsyncioTaskRunner(BaseTaskRunner):
    """Run every call as an asyncio task."""

    concurrency_type = TaskConcurrencyType.CONCURRENT

    def __init__(self) -> None:
        self._tasks: dict[UUID, asyncio.Future[State]] = {}

    async def submit(self, key: UUID, call: Callable[[], Awaitable[State]]) -> None:
        self._tasks[key] = asyncio.ensure_future(call())

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        done, _ = await asyncio.wait([self._tasks[key]], timeout=timeout)
        return self._tasks.pop(key).result() if done else None
