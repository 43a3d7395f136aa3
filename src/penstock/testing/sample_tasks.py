"""The tasks that the contract submits again and again."""

from __future__ import annotations

from typing import Any

from penstock import task
from penstock.testing.ledger import Gate, Ledger


@task
def identity(value: Any) -> Any:
    """Give the argument back."""
    return value


@task
def add(x: Any, y: Any) -> Any:
    """Add two values."""
    return x + y


@task
async def add_async(x: Any, y: Any) -> Any:
    """Add two values in a coroutine."""
    return x + y


@task
def total(values: Any) -> Any:
    """Add up an iterable."""
    return sum(values)


@task
def fail(text: str = "boom") -> Any:
    """Raise a ValueError."""
    raise ValueError(text)


@task
async def fail_async(text: str = "boom") -> Any:
    """Raise a ValueError in a coroutine."""
    raise ValueError(text)


@task
def note(ledger: Ledger, line: str, after: Any = None) -> str:
    """Write one line; `after` is there to depend on something."""
    ledger.add(line)
    return line


@task
async def note_async(ledger: Ledger, line: str) -> str:
    """Write one line, in a coroutine."""
    ledger.add(line)
    return line


@task
def hold(ledger: Ledger, gate: Gate, name: str = "held") -> str:
    """Write that it started, wait at the gate, write that it ended."""
    ledger.add(f"{name} started")
    gate.wait()
    ledger.add(f"{name} ended")
    return name


@task
async def hold_async(ledger: Ledger, gate: Gate, name: str = "held") -> str:
    """Do as `hold` does, in a coroutine."""
    ledger.add(f"{name} started")
    await gate.wait_async()
    ledger.add(f"{name} ended")
    return name
