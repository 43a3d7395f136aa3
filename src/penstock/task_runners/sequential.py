"""SequentialTaskRunner: each call in the caller, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from penstock.states import State, exception_to_crashed_state
from penstock.task_runners.base import BaseTaskRunner, Call, TaskConcurrencyType
from penstock.task_runners.pool import WorkerPool
from penstock.task_runners.queues import take_back
from penstock.task_runners.slots import slot_left


class SequentialTaskRunner(BaseTaskRunner):
    """Run every task in the caller, one after another.

    Asynchronous tasks that an asynchronous flow submits are queued, and run one at a time on
    the flow's loop when the flow next awaits.
    """

    suspends = False
    runs_in_caller = True

    def __init__(self) -> None:
        self._states: dict[UUID, State] = {}
        # One turn at a time; a task that awaits its children lets them have theirs.
        self._turns = WorkerPool(1)

    @property
    def concurrency_type(self) -> TaskConcurrencyType:
        return TaskConcurrencyType.SEQUENTIAL

    def duplicate(self) -> SequentialTaskRunner:
        return SequentialTaskRunner()

    async def submit(self, key: UUID, call: Callable[[], Awaitable[State]]) -> None:
        self._require_started()
        try:
            self._states[key] = await call()
        except BaseException as exc:
            self._states[key] = exception_to_crashed_state(exc)

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        return self._states.get(key)

    def place(self, calls: Sequence[Call]) -> None:
        for call in calls:
            if not call.is_async:
                call.run()
            elif call.loop.runs_here():
                self._turns.put([call])
            else:
                with slot_left():
                    call.loop.run(call.arun)

    def take_back(self, call: Call) -> bool:
        return take_back(call)
