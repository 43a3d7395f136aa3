"""SequentialTaskRunner: each call in the caller, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

from penstock.core.resources import checked_own_resources
from penstock.states import State, exception_to_crashed_state
from penstock.task_runners.accounts import Account
from penstock.task_runners.base import BaseTaskRunner, Call, TaskConcurrencyType
from penstock.task_runners.gate import ResourceGate
from penstock.task_runners.pool import WorkerPool
from penstock.task_runners.queues import take_back
from penstock.task_runners.slots import BorrowedSlot, current_slot, slot_left


class SequentialTaskRunner(BaseTaskRunner):
    """Run every task in the caller, one after another.

    Asynchronous tasks that an asynchronous flow submits are queued, and run one at a time on
    the flow's loop when the flow next awaits.

    Args:
        resources: amounts of names of your own that tasks may ask for, such as
            `{"licence": 2}`. cpu, gpu and memory are the machine's.

    Raises:
        ValueError: `resources` are no amounts by name.
    """

    suspends = False
    runs_in_caller = True

    def __init__(self, resources: Mapping[str, Any] | None = None) -> None:
        self.resources = checked_own_resources(resources)
        self._gate: ResourceGate | None = None
        self._states: dict[UUID, State] = {}
        # One turn at a time; a task that awaits its children lets them have theirs.
        self._turns = WorkerPool(1)

    @property
    def concurrency_type(self) -> TaskConcurrencyType:
        return TaskConcurrencyType.SEQUENTIAL

    def duplicate(self) -> SequentialTaskRunner:
        if type(self) is not SequentialTaskRunner:
            return super().duplicate()
        return SequentialTaskRunner(self.resources)

    async def _start(self, exit_stack: AsyncExitStack) -> None:
        self._gate = ResourceGate(Account(self.resources), self._turns.put)
        exit_stack.callback(self._gate.close)

    async def submit(self, key: UUID, call: Callable[[], Awaitable[State]]) -> None:
        self._require_started()
        try:
            self._states[key] = await call()
        except BaseException as exc:
            self._states[key] = exception_to_crashed_state(exc)

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        return self._states.get(key)

    def place(self, calls: Sequence[Call]) -> None:
        gate = self._gate if calls[0].resources else None
        for call in calls:
            if call.is_async and call.loop.runs_here():
                (self._turns if gate is None else gate).put([call])
            elif gate is None:
                _run(call)
            else:
                with slot_left():
                    admitted = gate.pass_here(call)
                    if admitted is not None:
                        _run(admitted)

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


def _run(call: Call) -> None:
    """Run a call here, or have its loop run it while this thread waits."""
    if call.is_async:
        with slot_left():
            call.loop.run(call.arun)
        return
    slot = current_slot.get()
    if slot is not None and call.slot is None:
        # The task run whose thread this is gives its slot away while the call waits.
        call.slot = BorrowedSlot(slot)
    call.run()
