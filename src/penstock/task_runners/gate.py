"""The gate of in-process runners: calls that ask for resources pass it before they get a slot.

    put(calls) ──► line of the ledger ──granted──► AdmittedCall ──► pool ──► run, release
                        │ taken back: never started

Calls wait here as entries in memory, without a thread. What a call was granted it gives back when
its code has really ended: of a run that was cancelled or exceeded its time limit while its thread
goes on, that is when the thread comes to its end. Resources are always taken before a slot, so
nobody who has a slot waits for somebody who has resources and waits for a slot. No more calls are
let through than there are slots; where calls without resources have taken those, a call that was
let through keeps what it has until its slot comes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from penstock.clock import clock
from penstock.core.resources import said
from penstock.errors import BlockingWaitError
from penstock.states import State, exception_to_crashed_state
from penstock.task_runners.accounts import Account, Grant
from penstock.task_runners.admission import Waiting
from penstock.task_runners.base import Call, Loop
from penstock.task_runners.pool import LoopWake
from penstock.task_runners.queues import take_back
from penstock.task_runners.slots import Slot

_SLICE_SECONDS = 0.25
_PATIENCE_SECONDS = 1.0
logger = logging.getLogger("penstock.task_runner.resources")


class GrantedSlot:
    """The slot of a call that was granted resources: leaving it gives the cpu back, too."""

    __slots__ = ("_account", "_grant", "_slot")

    def __init__(self, slot: Slot | None, grant: Grant) -> None:
        self._slot = slot
        self._grant = grant
        self._account = grant.account

    def leave(self) -> None:
        self._account.leave(self._grant)
        if self._slot is not None:
            self._slot.leave()

    def come_back(self) -> None:
        bell: SimpleQueue[None] = SimpleQueue()
        if not self._account.come_back(self._grant, partial(bell.put, None)):
            bell.get()
        if self._slot is not None:
            self._slot.come_back()

    async def acome_back(self) -> None:
        import asyncio

        alarm = LoopWake(asyncio.get_running_loop())
        try:
            if not self._account.come_back(self._grant, alarm.wake):
                await alarm.woken
        finally:
            if self._slot is not None:
                await self._slot.acome_back()

    def abandon(self) -> None:
        clock.call_later(_PATIENCE_SECONDS, self._tell_if_held)
        if self._slot is not None:
            self._slot.abandon()

    def _tell_if_held(self) -> None:
        if self._grant.is_held:
            logger.warning(
                "A task run has ended, but its code goes on: it keeps %s until it stops.",
                said(self._grant.request),
            )

    def lend(self) -> None:
        # What would run inside this call could not have the cpu that this one holds.
        return None

    def take_home(self, lent: Any) -> None:
        pass


class AdmittedCall:
    """A call that has what it asked for, and gives it back when its code has ended."""

    __slots__ = ("_call", "_unbegun", "grant")

    def __init__(self, call: Call, grant: Grant, unbegun: set[AdmittedCall]) -> None:
        self._call = call
        self._unbegun = unbegun
        self.grant = grant

    @property
    def is_async(self) -> bool:
        return self._call.is_async

    @property
    def priority(self) -> int:
        return self._call.priority

    @property
    def resources(self) -> Mapping[str, float]:
        return self._call.resources

    @property
    def loop(self) -> Loop:
        return self._call.loop

    @property
    def context(self) -> Context:
        return self._call.context

    @property
    def key(self) -> UUID:
        return self._call.key

    @property
    def slot(self) -> Slot | None:
        return self._call.slot

    @slot.setter
    def slot(self, slot: Slot | None) -> None:
        self._call.slot = GrantedSlot(slot, self.grant)

    @property
    def ticket(self) -> list[None]:
        return self._call.ticket

    @ticket.setter
    def ticket(self, ticket: list[None]) -> None:
        self._call.ticket = ticket

    @property
    def number(self) -> int:
        return self._call.number

    @number.setter
    def number(self, number: int) -> None:
        self._call.number = number

    @property
    def cargo(self) -> Any:
        return self._call.cargo

    @cargo.setter
    def cargo(self, cargo: Any) -> None:
        self._call.cargo = cargo

    def __call__(self) -> Any:
        return self._call()

    def run(self) -> None:
        self._unbegun.discard(self)
        try:
            self._call.run()
        finally:
            self.grant.account.release(self.grant)

    async def arun(self) -> None:
        self._unbegun.discard(self)
        try:
            await self._call.arun()
        finally:
            self.grant.account.release(self.grant)

    def finished(self, state: State) -> None:
        self._call.finished(state)


class ResourceGate:
    """Lets calls through once they have what they ask for. Thread-safe.

    Args:
        account: where that comes from.
        place: places calls that may run now.
    """

    def __init__(self, account: Account, place: Callable[[Sequence[Call]], object]) -> None:
        self.account = account
        self._place = place
        self._unbegun: set[AdmittedCall] = set()

    def put(self, calls: Sequence[Call]) -> None:
        """Let calls through, each as soon as it has what it asks for."""
        for call in calls:
            start = partial(self._admit, call)
            self.account.line_up(self._in_line(call, start))

    def pass_here(self, call: Call) -> AdmittedCall | None:
        """Wait, in this thread, until a call may run here; None: it was taken back meanwhile.

        Raises:
            BlockingWaitError: what it waits for is held by tasks on this thread's own loop.
        """
        bell: SimpleQueue[Grant | None] = SimpleQueue()
        waiting = self._in_line(call, bell.put)
        call.cargo = bell
        self.account.line_up(waiting)
        try:
            if bell.empty():
                self._refuse_to_block_the_loop(call)
            grant = _wait(bell)
        except BaseException:
            self._leave_line(waiting, bell)
            # As if it had never been here: whoever cleans up takes it back.
            call.ticket = [None]
            raise
        call.cargo = None
        if grant is None:
            return None
        admitted = AdmittedCall(call, grant, self._unbegun)
        admitted.slot = None
        return admitted

    def take_back(self, call: Call) -> bool:
        """Take back a call that has not started; tell whether that succeeded."""
        if not take_back(call):
            return False
        kept, call.cargo = call.cargo, None
        if isinstance(kept, AdmittedCall):
            self._unbegun.discard(kept)
            self.account.release(kept.grant)
            return True
        self.account.look_again()
        if isinstance(kept, SimpleQueue):
            kept.put(None)
        return True

    def close(self) -> None:
        """Forget who waits, and release what was granted to calls that never began."""
        self.account.close()
        for admitted in list(self._unbegun):
            self.account.release(admitted.grant)
        self._unbegun.clear()

    def holders(self, call: Call) -> list[Call]:
        """Give the calls that hold something of what a call which has not started asks for."""
        holders = self.account.holders(call.resources)
        return [] if call in holders else holders

    def _in_line(self, call: Call, start: Callable[[Grant], object]) -> Waiting:
        waiting = self.account.waiting(call.resources, call.priority, start, call)
        call.ticket = waiting.ticket
        return waiting

    def _admit(self, call: Call, grant: Grant) -> None:
        admitted = call.cargo = AdmittedCall(call, grant, self._unbegun)
        self._unbegun.add(admitted)
        try:
            self._place([admitted])
        except Exception as exc:
            self.account.release(grant)
            call.finished(exception_to_crashed_state(exc))

    def _leave_line(self, waiting: Waiting, bell: SimpleQueue[Grant | None]) -> None:
        if not self.account.withdraw(waiting) and (grant := _wait(bell)) is not None:
            self.account.release(grant)

    def _refuse_to_block_the_loop(self, call: Call) -> None:
        if "asyncio" not in sys.modules:
            return
        for holder in self.account.holders(call.resources):
            if holder is not call and holder.is_async and holder.loop.runs_here():
                raise BlockingWaitError(
                    f"A task that asks for {said(call.resources)} would have to wait here for "
                    "a task that runs on the event loop of this thread, and would block it. "
                    "Await that task first, or make both of them asynchronous."
                )


def _wait(bell: SimpleQueue[Grant | None]) -> Grant | None:
    """Wait in slices, between which this thread can be interrupted."""
    while True:
        try:
            return bell.get(timeout=_SLICE_SECONDS)
        except Empty:
            continue
