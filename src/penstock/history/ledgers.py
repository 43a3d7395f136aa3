"""Ledgers: the numbers and counts that the recorder writes for each flow run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from penstock.history.base import EPOCH_BITS
from penstock.history.leases import Lease
from penstock.runs import TaskRun
from penstock.states import StateType

_FIRST_AFTER = 1 << 20

Counts = dict[StateType, int]


class Ledger:
    """What the writing thread knows of one flow run.

    Attributes:
        key: the id of the flow run; None for task runs outside flows.
        numbers: the numbers of changes.
        counts: how many task runs are in a state, by task number and state type, as committed.
        lease: what allows to write of it; None where nothing has to.
    """

    __slots__ = ("counts", "epoch", "key", "lease", "numbers")

    def __init__(self, key: bytes | None, epoch: int = 0, lease: Lease | None = None) -> None:
        self.key = key
        self.epoch = epoch
        self.lease = lease
        # A driver that takes over writes a few rows before its first change.
        self.numbers = itertools.count((epoch << EPOCH_BITS) + (_FIRST_AFTER if epoch else 1))
        self.counts: dict[int, Counts] = {}
        if lease is not None and key is not None:
            lease.members.add(key)

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken the flow run over, so that nothing is written of it."""
        return self.lease is not None and self.lease.is_lost

    def take_up(self, counts: dict[int, dict[str, int]]) -> None:
        """Go on from the counts of the drivers before, by task number and state."""
        for task, states in counts.items():
            self.counts[task] = {StateType(state): number for state, number in states.items()}

    def count(self, run: TaskRun, now: StateType) -> None:
        """Move a task run from the state it was recorded in to the one that is recorded now."""
        states = self.counts.get(run.task_number)
        if states is None:
            states = self.counts[run.task_number] = {}
        before = run.recorded
        if before is not None:
            states[before] -= 1
        states[now] = states.get(now, 0) + 1
        run.recorded = now

    def count_rows(self, tasks: Iterable[int]) -> list[tuple[Any, ...]]:
        """Give the rows of the counts of some tasks."""
        return [
            (self.key, task, state.value, number)
            for task in tasks
            for state, number in self.counts[task].items()
        ]
