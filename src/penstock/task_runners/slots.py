"""Slots: the right to run, of which a pool gives out as many as it has workers.

A task run that waits for another one leaves its slot and comes back to it afterwards, so that
tasks may wait for tasks to any depth with any number of workers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class Slot(Protocol):
    """One running call's right to run."""

    def leave(self) -> None:
        """Give the slot to others while this call waits."""

    def come_back(self) -> None:
        """Take a slot again, waiting in this thread until there is one."""

    async def acome_back(self) -> None:
        """Take a slot again, waiting on the running loop until there is one."""

    def abandon(self) -> None:
        """Give the slot to others for good: the call has ended, though its thread has not."""

    def lend(self) -> Any:
        """Give a slot for another call that runs in this thread while this one waits for it.

        None when there is none to lend; else it is to be taken home afterwards.
        """

    def take_home(self, lent: Any) -> None:
        """Go on with the own slot: the call it was lent to has ended."""


class BorrowedSlot:
    """The slot of a call for another one that runs within it, in the same thread.

    The inner call may leave it while it waits, but it is not the inner call's to give away.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def leave(self) -> None:
        self._slot.leave()

    def come_back(self) -> None:
        self._slot.come_back()

    async def acome_back(self) -> None:
        await self._slot.acome_back()

    def abandon(self) -> None:
        pass

    def lend(self) -> Any:
        return self._slot.lend()

    def take_home(self, lent: Any) -> None:
        self._slot.take_home(lent)


current_slot: ContextVar[Slot | None] = ContextVar("penstock_slot", default=None)


@contextmanager
def slot_left() -> Iterator[None]:
    """Leave the current slot, if there is one, for the time of a blocking wait."""
    slot = current_slot.get()
    if slot is None:
        yield
        return
    slot.leave()
    try:
        yield
    finally:
        slot.come_back()


@asynccontextmanager
async def slot_left_async() -> AsyncIterator[None]:
    """Leave the current slot, if there is one, for the time of an await."""
    slot = current_slot.get()
    if slot is None:
        yield
        return
    slot.leave()
    try:
        yield
    finally:
        await slot.acome_back()
