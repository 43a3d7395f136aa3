"""Task runners whose start is interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import pytest

from penstock import flow, task
from tests.contracts.asyncio_runner import MinimalTaskRunner


class NeverStarted(MinimalTaskRunner):
    """Opens something, and is interrupted before all is there."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def duplicate(self) -> NeverStarted:
        return self

    async def _start(self, exit_stack: AsyncExitStack) -> None:
        self.events.append("opened")
        exit_stack.push_async_callback(self._release)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    async def _release(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)  # as what closes connections
        self.events.append("released")


@task
def nothing() -> None:
    pass


def test_what_was_opened_is_released_when_the_start_is_interrupted() -> None:
    runner = NeverStarted()
    assert runner.suspends

    @flow(task_runner=runner)
    def example() -> None:
        nothing.submit()

    with pytest.raises(KeyboardInterrupt):
        example()
    assert runner.events == ["opened", "released"]
