"""Admission: which of the calls that ask for resources may start. Decides; does nothing else.

    Stock   how much there is, and how much of it is free
    Line    who waits, and whose turn it is

**The rule of the line.** Larger priority goes first, then first come first served. Who does not
fit now is passed by those behind that do, so a large request holds up nobody; but once
`MOST_PASSED` others have taken something it asks for past it, nobody behind it gets any of what
it asks for until it has had its turn. So nobody starves while those of the same priority pass.

Amounts are counted in ten-thousandths, so that shares such as 0.1 add up exactly.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

MOST_PASSED = 16
_UNITS = 10_000
Request = Mapping[str, float]


def _units(amount: float) -> int:
    return max(1, round(amount * _UNITS)) if amount else 0


class Stock:
    """Amounts by name, and how much of each is free.

    Args:
        amounts: how much there is.
        gpus: the devices behind the name "gpu", if there are any: a request below 1 shares a
            device with others, a whole number has as many devices to itself.
    """

    def __init__(self, amounts: Request, gpus: Sequence[str] = ()) -> None:
        self._total = {name: _units(amount) for name, amount in amounts.items()}
        self._free = dict(self._total)
        self._devices = dict.fromkeys(gpus, _UNITS)
        self.names = frozenset(amounts)

    def lacking(self, request: Request) -> list[str]:
        """Give the names of which too little is free; names that are none of ours are left out."""
        return [name for name, amount in request.items() if not self._has(name, _units(amount))]

    def _has(self, name: str, units: int) -> bool:
        if name not in self.names:
            return True
        if name != "gpu":
            return self._free[name] >= units
        return len(self._devices_for(units)) == _devices_needed(units)

    def exceeded_by(self, request: Request) -> list[str]:
        """Give the names of which there is too little even when all of it is free."""
        return [
            name
            for name, amount in request.items()
            if name in self.names and _units(amount) > self._total[name]
        ]

    def leaves_too_little(self, held: Request, request: Request) -> bool:
        """Tell whether a request has to wait as long as another one is held."""
        return any(
            name in held and self._total[name] - _units(held[name]) < _units(amount)
            for name, amount in request.items()
            if name in self.names
        )

    def take(self, request: Request) -> tuple[str, ...]:
        """Take what fits; give the devices that were taken."""
        devices: tuple[str, ...] = ()
        for name, amount in request.items():
            if name not in self.names:
                continue
            units = _units(amount)
            self._free[name] -= units
            if name == "gpu":
                devices = self._devices_for(units)
                for device in devices:
                    self._devices[device] -= min(units, _UNITS)
        return devices

    def give_back(self, request: Request, devices: Collection[str] = ()) -> None:
        """Give back what was taken."""
        for name, amount in request.items():
            if name not in self.names:
                continue
            units = _units(amount)
            self._free[name] += units
            if name == "gpu":
                for device in devices:
                    self._devices[device] += min(units, _UNITS)

    def free(self) -> dict[str, float]:
        """Give how much is free of each name."""
        return {name: units / _UNITS for name, units in self._free.items()}

    def _devices_for(self, units: int) -> tuple[str, ...]:
        """Choose devices: a share goes where the least is left that will do."""
        share = min(units, _UNITS)
        fitting = [device for device, free in self._devices.items() if free >= share]
        if units < _UNITS:
            fitting.sort(key=self._devices.__getitem__)
        return tuple(fitting[: _devices_needed(units)])


def _devices_needed(units: int) -> int:
    return -(-units // _UNITS)


class Waiting:
    """A request in the line.

    Attributes:
        whose: the account it is for; requests of different ones never share a lane.
        start: what is to be called with what is granted.
        owner: for whom.
        ticket: holds something as long as it waits; whoever takes that has the request.
        passed: how many have taken, past it, something it asks for.
    """

    __slots__ = ("number", "owner", "passed", "priority", "request", "start", "ticket", "whose")

    def __init__(
        self,
        request: Request,
        priority: int,
        whose: Any,
        start: Callable[[Any], object],
        owner: Any = None,
    ) -> None:
        self.request = request
        self.priority = priority
        self.whose = whose
        self.start = start
        self.owner = owner
        self.ticket: list[None] = [None]
        self.number = 0
        self.passed = 0

    @property
    def place(self) -> tuple[int, int]:
        """What the line is ordered by."""
        return -self.priority, self.number

    def claim(self) -> bool:
        """Take the request out of the line; tell whether it was in it. Atomic."""
        try:
            self.ticket.pop()
        except IndexError:
            return False
        return True


class Line:
    """Requests that wait. Those that ask for the same stand behind each other in one lane, so
    only the first of each lane has to be looked at."""

    def __init__(self) -> None:
        self._lanes: dict[Any, list[tuple[int, int, Waiting]]] = {}
        self._last = 0

    def push(self, waiting: Waiting) -> None:
        """Put a request at its place."""
        self._last += 1
        waiting.number = self._last
        key = (id(waiting.whose), tuple(sorted(waiting.request.items())))
        heapq.heappush(self._lanes.setdefault(key, []), (*waiting.place, waiting))

    def take(
        self, lacking: Callable[[Waiting], Iterable[str]], reserved: Collection[str] = ()
    ) -> Waiting | None:
        """Take out the request whose turn it is; None when nobody's is.

        Args:
            lacking: gives the names of which a request lacks something now.
            reserved: names of which nobody in the line may get anything.
        """
        kept = set(reserved)
        before: list[Waiting] = []
        for waiting in sorted(self._heads(), key=lambda head: head.place):
            names = waiting.request.keys()
            if kept.isdisjoint(names) and not list(lacking(waiting)):
                if not waiting.claim():
                    # It was taken back this very moment: look again.
                    return self.take(lacking, reserved)
                _pass(before, names)
                return waiting
            before.append(waiting)
            if waiting.passed >= MOST_PASSED:
                kept.update(names)
        return None

    def note_passed(self, request: Request) -> None:
        """Note that somebody who is not in the line was given what he asked for."""
        _pass(self._heads(), request.keys())

    def reserved(self) -> frozenset[str]:
        """Give the names that are kept for those who have been passed often enough."""
        heads = (head for head in self._heads() if head.passed >= MOST_PASSED)
        return frozenset(name for head in heads for name in head.request)

    def drop(self, whose: Any) -> None:
        """Forget whatever somebody waits for."""
        for lane in self._lanes.values():
            for *_, waiting in lane:
                if waiting.whose is whose:
                    waiting.claim()

    def _heads(self) -> list[Waiting]:
        heads = []
        for key, lane in list(self._lanes.items()):
            while lane and not lane[0][2].ticket:
                heapq.heappop(lane)
            if lane:
                heads.append(lane[0][2])
            else:
                del self._lanes[key]
        return heads


def _pass(passed: Iterable[Waiting], names: Collection[str]) -> None:
    for waiting in passed:
        waiting.passed += not waiting.request.keys().isdisjoint(names)
