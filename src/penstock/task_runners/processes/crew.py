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
from penstock.task_runners.accounts import Grant
from penstock.task_runners.processes.supervisor import WorkerProcess


@dataclass(eq=False)
class Order:
    """A bundle on its way to a worker.

    Attributes:
        data: the pickled `Sent`.
        parts: names and kinds of what it refers to in the arena.
        is_short: whether it is known to keep a worker busy for a moment only.
        grant: the resources that it holds; None where it asks for none.
        is_warned_of: whether it has been said that it may wait for ever for them.
    """

    bundle: Bundle
    data: bytes
    parts: list[tuple[str, int]]
    is_short: bool
    grant: Grant | None = None
    is_warned_of: bool = False

    @property
    def gpus(self) -> tuple[str, ...]:
        """The devices that it may use, of those that it has asked for."""
        return () if self.grant is None else self.grant.gpus


@dataclass(eq=False)
class Member:
    """A worker and what it has to do.

    Attributes:
        now: what it executes, or will once it is ready.
        ahead: what it is to execute after that.
        is_ready: whether it has said that it is there.
        is_away: whether its task run waits for others, and needs no processor meanwhile.
        is_leaving: whether it has been told to end.
        gpus: the devices that it has used: a process cannot change to others.
    """

    worker: WorkerProcess
    now: Order | None = None
    ahead: Order | None = None
    is_ready: bool = False
    is_away: bool = False
    is_leaving: bool = False
    gpus: tuple[str, ...] = ()

    @property
    def orders(self) -> list[Order]:
        """What it is to execute, in order; it is sent nothing before it is ready."""
        return [order for order in (self.now, self.ahead) if order is not None]

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
        """Strike out a worker that has died; what it had not begun waits again, as the first."""
        member = self._members.pop(worker)
        not_begun = member.orders[1:] if member.is_ready else member.orders
        for order in reversed(not_begun):
            self.returned(member, order.bundle.id)
        return member

    def named(self, name: str) -> Member | None:
        """Give the worker of a name."""
        return next((member for member in self if member.worker.name == name), None)

    def holder(self, bundle: Bundle) -> Member | None:
        """Give the worker that has been sent a bundle."""
        for member in self:
            if any(order.bundle is bundle for order in member.orders):
                return member
        return None

    def withdraw(self, bundle: Bundle) -> Order | None:
        """Take out a bundle that still waits here, if it does."""
        for order in self.waiting:
            if order.bundle is bundle:
                self.waiting.remove(order)
                return order
        holder = self.holder(bundle)
        if holder is None or holder.is_ready:
            return None
        return self._take_from(holder, bundle.id)

    def free(self, order: Order) -> Member | None:
        """Give a worker that has nothing to do and can take a bundle, first one that is there."""
        found = [member for member in self if member.is_free]
        if order.gpus:
            found = [member for member in found if member.gpus in ((), order.gpus)]
        return max(found, key=lambda member: member.is_ready, default=None)

    def misfit(self) -> Member | None:
        """Give a worker that has nothing to do, and only keeps another one from being started."""
        return next((member for member in self if member.is_free), None)

    def has_room(self) -> bool:
        """Tell whether one more worker may be started."""
        return self.present() < self.limit

    def is_surplus(self, member: Member) -> bool:
        """Tell whether a worker is one too many: it stood in for one that had to wait."""
        return member.is_free and self.present() > self.limit

    def soon_free(self, order: Order) -> Member | None:
        """Give a worker to send a bundle to ahead of time, None when it had better wait."""
        if not order.is_short or order.grant is not None:
            return None
        for member in self:
            is_staying = not member.is_away and not member.is_leaving
            if is_staying and member.ahead is None and member.now and member.now.is_short:
                return member
        return None

    def give(self, member: Member, order: Order) -> None:
        """Note that a worker is sent a bundle."""
        member.gpus = order.gpus or member.gpus
        if member.now is None:
            member.now = order
        else:
            member.ahead = order

    def done(self, member: Member, bundle_id: str) -> Order:
        """Note that a worker is through with a bundle."""
        return self._take_from(member, bundle_id)

    def returned(self, member: Member, bundle_id: str) -> None:
        """Let a bundle that a worker has not begun wait again, as the first.

        It was sent ahead; but the worker may have ended the one before it in the same moment.
        """
        self.waiting.appendleft(self._take_from(member, bundle_id))

    def _take_from(self, member: Member, bundle_id: str) -> Order:
        orders = member.orders
        for order in orders:
            if order.bundle.id == bundle_id:
                orders.remove(order)
                member.now, member.ahead = [*orders, None, None][:2]
                return order
        raise ValueError(f"{member.worker.name} does not have bundle {bundle_id!r}.")

    def present(self) -> int:
        """Count the workers that have a place: neither away nor leaving."""
        return sum(not member.is_away and not member.is_leaving for member in self)


def is_short(bundle: Bundle) -> bool:
    """Tell whether a bundle is known to be done in a moment."""
    cargo: list[Any] = list(bundle.cargo.values())
    return (
        bool(cargo)
        and all(each.pace.is_known for each in cargo)
        and (sum(each.pace.seconds for each in cargo) < 2 * TARGET_SECONDS)
    )
