"""Evidence that any process can leave and any process can read.

The contract runs on threads, processes and clusters, so a task cannot tell a test anything
through shared memory. It writes a line into a `Ledger`, or waits at a `Gate`; both are files.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE = 10.0
PATIENCE = 30.0  # seconds that evidence may take: a worker starts slowly on a busy machine
POLL_INTERVAL = 0.004


class Ledger:
    """An append-only file of lines; each line is one write, so writers never mix.

    Args:
        path: The file; it is created by the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def add(self, line: str) -> None:
        """Append one line, from any thread or process."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self.path, flags, 0o600)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    def lines(self) -> list[str]:
        """Give all lines so far, oldest first."""
        if not os.path.exists(self.path):
            return []
        return Path(self.path).read_text(encoding="utf-8").splitlines()

    def wait_for(self, line: str) -> None:
        """Block until a line was written, at most `PATIENCE` seconds."""
        wait_until(lambda: line in self.lines())


class Gate:
    """A file that tasks wait for: closed until somebody, anywhere, opens it.

    Args:
        path: The file whose existence means open.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def open(self) -> None:
        """Let everybody through, now and later."""
        Path(self.path).touch()

    def is_open(self) -> bool:
        """Say whether somebody opened the gate."""
        return os.path.exists(self.path)

    def wait(self) -> None:
        """Block until the gate is open, at most `PATIENCE` seconds."""
        wait_until(self.is_open)

    async def wait_async(self, seconds: float = PATIENCE) -> None:
        """Await the opening of the gate, at most so many seconds."""
        await wait_until_async(self.is_open, seconds)


def wait_until(condition: Callable[[], bool]) -> None:
    """Block until a condition holds.

    Raises:
        TimeoutError: It did not hold within `PATIENCE` seconds.
    """
    give_up_at = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the condition did not hold within {PATIENCE} seconds")
        time.sleep(POLL_INTERVAL)


async def wait_until_async(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Await a condition without blocking the loop.

    Raises:
        TimeoutError: It did not hold within so many seconds.
    """
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the condition did not hold within {seconds} seconds")
        await asyncio.sleep(POLL_INTERVAL)
