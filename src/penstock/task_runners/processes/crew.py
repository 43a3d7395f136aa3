"""The crew: which worker gets which bundle. Decides only; the engine does it.

waiting ──► a free worker, else a new one while there are fewer than the limit,
            else ahead of time to one that will soon be through
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from penstock.core.bundling import TARGET_SECONDS
from penstock.remote.engine import Bundle
from penstock.task_runners.processes.supervisor import WorkerProcess


@dataclass(eq=False)
class Order:
    """A bundle on its way to a worker.

    Attributes:
        body: what is sent.
        is_short: whether it is known to keep a worker busy for a moment only.
    """

    bundle: Bundle
    body: bytes
    is_short: bool


@dataclass(eq=False)
class Member:
    """A worker and what it has to do.

    Attributes:
        now: what it executes, or will once it is there.
        ahead: what it has been sent besides.
        is_ready: whether it has said that it is there.
        is_away: whether its task run waits for others, and needs no processor meanwhile.
        is_leaving: whether it has been told to end.
    """

    worker: WorkerProcess
    now: Order | None = None
    ahead: Order | None = None
    is_ready: bool = False
    is_away: bool = False
    is_leaving: bool = False

    @property
    def is_free(self) -> bool:
        """Whether it has nothing to do."""
        return self.now is None and not self.is_leaving


class Crew:
    """The workers there are, and the bundles that wait for one. Not thread-safe.

    Args:
        limit: how many workers may be busy at the same time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: deque[Order] = deque()
        self._members: dict[WorkerProcess, Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __getitem__(self, worker: WorkerProcess) -> Member:
        return self._members[worker]

    def add(self, worker: WorkerProcess) -> Member:
        """Take in a new worker."""
        member = self._members[worker] = Member(worker)
        return member

    def remove(self, worker: WorkerProcess) -> Member:
        """Strike out a worker that has died; what it was sent ahead waits again, as the first."""
        member = self._members.pop(worker)
        self.take_back_ahead(member)
        return member

    def named(self, name: str) -> Member | None:
        """Give the worker of a name."""
        return next((member for member in self if member.worker.name == name), None)

    def holder(self, bundle: Bundle) -> Member | None:
        """Give the worker that has been sent a bundle."""
        for member in self:
            if any(order and order.bundle is bundle for order in (member.now, member.ahead)):
                return member
        return None

    def withdraw(self, bundle: Bundle) -> bool:
        """Take out a bundle that still waits here; tell whether it did."""
        for order in self.waiting:
            if order.bundle is bundle:
                self.waiting.remove(order)
                return True
        return False

    def free(self) -> Member | None:
        """Give a worker that has nothing to do, one that is there already first."""
        found = [member for member in self if member.is_free]
        return max(found, key=lambda member: member.is_ready, default=None)

    def has_room(self) -> bool:
        """Tell whether one more worker may be started."""
        return self._present() < self.limit

    def is_surplus(self, member: Member) -> bool:
        """Tell whether a worker is one too many: it stood in for one that had to wait."""
        return member.is_free and self._present() > self.limit

    def soon_free(self, order: Order) -> Member | None:
        """Give a worker to send a bundle to ahead of time, None when it had better wait."""
        if not order.is_short:
            return None
        for member in self:
            is_staying = not member.is_away and not member.is_leaving
            if is_staying and member.ahead is None and member.now and member.now.is_short:
                return member
        return None

    def give(self, member: Member, order: Order) -> None:
        """Note that a worker is sent a bundle."""
        if member.now is None:
            member.now = order
        else:
            member.ahead = order

    def done(self, member: Member, bundle_id: str) -> None:
        """Note that a worker is through with a bundle."""
        assert member.now is not None
        if member.now.bundle.id != bundle_id:
            raise ValueError(f"{member.worker.name} was not at bundle {bundle_id!r}.")
        member.now, member.ahead = member.ahead, None

    def take_back_ahead(self, member: Member) -> None:
        """Let what a worker was sent ahead wait again, as the first."""
        if member.ahead is not None:
            self.waiting.appendleft(member.ahead)
            member.ahead = None

    def _present(self) -> int:
        return sum(not member.is_away and not member.is_leaving for member in self)


def is_short(bundle: Bundle) -> bool:
    """Tell whether a bundle is known to be done in a moment."""
    cargo: list[Any] = list(bundle.cargo.values())
    return (
        bool(cargo)
        and all(each.pace.is_known for each in cargo)
        and (sum(each.pace.seconds for each in cargo) < 2 * TARGET_SECONDS)
    )
