"""Who holds how much of this machine: one ledger per process, one account per started runner.

    Account(own={"licence": 2}) ─┐
    Account() ───────────────────┼──► Ledger: cpu, gpu, memory; who holds, who waits
    Account() ───────────────────┘

cpu, gpu and memory belong to the machine, so that all runners and flow runs of the process
together never have more in use than there is. Names of the user's own belong to the runner.

An engine uses an account like this; all of it is thread-safe, and nothing blocks:

    account.check(task_name, request)            raises ResourceError: it can never be met
    grant = account.acquire(request, owner)      at once, or None; `grant.gpus` are its devices
    account.release(grant)                       when the code has really ended
    account.on_free(callback)                    called whenever something was given back

`acquire` never takes what is reserved for those in line, but asking again and again is no place
in the line. Who wants one, so that it cannot starve, lines up instead:

    waiting = Waiting(request, priority, account, start)
    account.line_up(waiting)                     `start(grant)` is called once, from any thread
    account.withdraw(waiting)                    False: `start` has been or will be called

A request is what `task.resources` holds. While the holder waits for other task runs it gives
its cpu back (`leave`), keeps the rest, and takes the cpu again before anybody in line
(`come_back`). Callbacks are called in the thread that gives something back, without any lock.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.core.resources import said
from penstock.errors import ResourceError
from penstock.task_runners.admission import Line, Request, Stock, Waiting
from penstock.task_runners.capacity import Machine, this_machine

logger = logging.getLogger("penstock.task_runner.resources")
_CPU = "cpu"


class Grant:
    """What somebody holds.

    Attributes:
        request: the amounts, by name.
        gpus: the devices that come with it, as CUDA_VISIBLE_DEVICES names them.
        owner: the call it is for, if there is one; it tells whom to name in a deadlock.
        waits: in how many waits for other task runs it is; its cpu is given back meanwhile.
    """

    __slots__ = ("account", "gpus", "has_cpu", "is_held", "owner", "request", "waits")

    def __init__(self, account: Account, request: Request, gpus: tuple[str, ...], owner: Any):
        self.account = account
        self.request = request
        self.gpus = gpus
        self.owner = owner
        self.waits = 0
        self.has_cpu = self.is_held = True

    @property
    def kept(self) -> dict[str, float]:
        """What is kept also while the owner waits."""
        return {name: amount for name, amount in self.request.items() if name != _CPU}

    @property
    def cpu(self) -> dict[str, float]:
        """What is given back while the owner waits."""
        return {_CPU: self.request[_CPU]} if _CPU in self.request else {}


class Ledger:
    """What is in use of a machine, and who waits for it. Thread-safe."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.lock = threading.Lock()
        self.stock = Stock(machine.amounts(), machine.gpus)
        self.line = Line()
        self.grants: set[Grant] = set()
        self.returning: deque[tuple[Grant, Callable[[], object]]] = deque()
        self.listeners: dict[Account, Callable[[], object]] = {}

    def serve(self) -> list[Callable[[], object]]:
        """Give to those whose turn it is; give what is to be called. The lock is held."""
        due: list[Callable[[], object]] = []
        while self.returning and not self.stock.lacking(self.returning[0][0].cpu):
            grant, wake = self.returning.popleft()
            self.take_cpu(grant)
            due.append(wake)
        reserved = (_CPU,) if self.returning else ()
        while (waiting := self.line.take(_lacking, reserved)) is not None:
            account: Account = waiting.whose
            grant = account.grant(waiting.request, waiting.owner)
            due.append(_Start(waiting.start, grant))
        return due

    def stop_returning(self, grant: Grant) -> list[Callable[[], object]]:
        """Take those who want a grant's cpu out of the line; give what wakes them."""
        wakes = [wake for one, wake in self.returning if one is grant]
        if wakes:
            self.returning = deque(one for one in self.returning if one[0] is not grant)
        return wakes

    def take_cpu(self, grant: Grant) -> None:
        """Let a grant have its cpu again. The lock is held."""
        self.stock.take(grant.cpu)
        grant.has_cpu = True
        grant.account.running += 1

    def give_cpu_back(self, grant: Grant) -> None:
        """Take a grant's cpu while its owner waits. The lock is held."""
        self.stock.give_back(grant.cpu)
        grant.has_cpu = False
        grant.account.running -= 1


class _Start:
    """Starts what has been granted; the grant is not lost when that fails."""

    def __init__(self, start: Callable[[Grant], object], grant: Grant) -> None:
        self._start, self._grant = start, grant

    def __call__(self) -> None:
        try:
            self._start(self._grant)
        except BaseException:
            self._grant.account.release(self._grant)
            raise


def _lacking(waiting: Waiting) -> list[str]:
    account: Account = waiting.whose
    return account.lacking(waiting.request)


def _call(due: Iterable[Callable[[], object]]) -> None:
    for function in due:
        try:
            function()
        except Exception:
            # The others must have their turn all the same.
            logger.exception("A task run could not be started with what it was granted.")


_made = threading.Lock()
_ledger: Ledger | None = None


def process_ledger() -> Ledger:
    """Give the ledger of this process, which looks at the machine when it is first needed."""
    global _ledger
    with _made:
        if _ledger is None:
            _ledger = Ledger(this_machine())
        return _ledger


class Account:
    """What one started runner may hold. See the top of this file for how it is used.

    Args:
        own: amounts of the runner's own names.
        limit: how many grants may be running at a time; None: as many as there is room for.
        ledger: default the one of this process.
    """

    def __init__(
        self,
        own: Mapping[str, float] | None = None,
        limit: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._found = ledger
        self._own = Stock(_folded(own or {}))
        self._given = dict(own or {})
        self._limit = limit
        self.running = 0

    @property
    def _ledger(self) -> Ledger:
        # The machine is looked at when somebody first asks for something of it.
        if self._found is None:
            self._found = process_ledger()
        return self._found

    def check(self, task_name: str, request: Request) -> None:
        """Refuse a request that can never be met.

        Raises:
            ResourceError: the text says what the task asks for, and what there is.
        """
        asked = _folded(request)
        there = {**self._ledger.machine.amounts(), **self._given}
        known = self._own.names | self._ledger.stock.names
        unknown = [name for name in asked if name not in known]
        if unknown or self._own.exceeded_by(asked) or self._ledger.stock.exceeded_by(asked):
            remedy = "Ask for less, or run the task where there is more."
            if unknown:
                own = {**self._given, **{name: _spelled(request, name) for name in unknown}}
                remedy = f"Names of your own are given by the task runner: resources={own}"
            raise ResourceError(
                f"Task {task_name!r} asks for {said(request)}; there is {said(there)}. {remedy}"
            )
        if asked.get("gpu", 0) > 1 and asked["gpu"] % 1:
            raise ResourceError(
                f"Task {task_name!r} asks for {said(request)}; above 1, gpu must be a whole "
                "number: only a share of one device can be lent."
            )

    def acquire(self, request: Request, owner: Any = None) -> Grant | None:
        """Take what is asked for, if it is free and nobody in line has a claim on it."""
        asked, ledger = _folded(request), self._ledger
        with ledger.lock:
            reserved = ledger.line.reserved()
            if ledger.returning:
                reserved |= {_CPU}
            if not reserved.isdisjoint(asked) or self.lacking(asked):
                return None
            ledger.line.note_passed(asked)
            return self.grant(asked, owner)

    def waiting(
        self, request: Request, priority: int, start: Callable[[Grant], object], owner: Any = None
    ) -> Waiting:
        """Make a request that can be lined up."""
        return Waiting(_folded(request), priority, self, start, owner)

    def line_up(self, waiting: Waiting) -> None:
        """Put a request in the line; it may be its turn at once, also in this thread."""
        with self._ledger.lock:
            self._ledger.line.push(waiting)
            due = self._ledger.serve()
        _call(due)

    def withdraw(self, waiting: Waiting) -> bool:
        """Take a request out of the line; tell whether it was in it."""
        is_out = waiting.claim()
        self.look_again()
        return is_out

    def look_again(self) -> None:
        """See whose turn it is: somebody has left the line by having its ticket taken."""
        with self._ledger.lock:
            due = self._ledger.serve()
        _call(due)

    def release(self, grant: Grant) -> None:
        """Give back everything. The second call does nothing."""
        ledger = self._ledger
        with ledger.lock:
            if not grant.is_held:
                return
            grant.is_held = False
            ledger.grants.discard(grant)
            if grant.has_cpu:
                ledger.give_cpu_back(grant)
            else:
                # Its owner was interrupted on its way back.
                ledger.stop_returning(grant)
            kept = grant.kept
            ledger.stock.give_back(kept, grant.gpus)
            self._own.give_back(kept)
            due = ledger.serve()
            due += ledger.listeners.values()
        _call(due)

    def leave(self, grant: Grant) -> None:
        """Give the cpu back while the owner waits; several waits at once count as one."""
        ledger = self._ledger
        with ledger.lock:
            grant.waits += 1
            if grant.waits > 1 or not grant.is_held:
                return
            if grant.has_cpu:
                ledger.give_cpu_back(grant)
                due = ledger.serve() + list(ledger.listeners.values())
            else:
                # Another of its waits is over and was to have the cpu: they count as one.
                due = ledger.stop_returning(grant)
        _call(due)

    def come_back(self, grant: Grant, wake: Callable[[], object]) -> bool:
        """Take the cpu again after a wait; False: `wake` is called once it has been taken."""
        ledger = self._ledger
        with ledger.lock:
            grant.waits -= 1
            if grant.waits or not grant.is_held or grant.has_cpu:
                return True
            if not grant.cpu or not (ledger.returning or ledger.stock.lacking(grant.cpu)):
                ledger.take_cpu(grant)
                return True
            ledger.returning.append((grant, wake))
            return False

    def on_free(self, callback: Callable[[], object]) -> None:
        """Have a function called, until `close`, whenever something was given back."""
        with self._ledger.lock:
            self._ledger.listeners[self] = callback

    def close(self) -> None:
        """Forget those of this account that wait. What is held stays held until it is released:
        a thread that could not be stopped still has it."""
        if self._found is None:
            return
        with self._ledger.lock:
            self._ledger.listeners.pop(self, None)
            self._ledger.line.drop(self)
            due = self._ledger.serve()
        _call(due)

    def holders(self, request: Request) -> list[Any]:
        """Give the owners of grants that hold something of what a request asks for."""
        asked = _folded(request).keys()
        with self._ledger.lock:
            return [
                grant.owner
                for grant in self._ledger.grants
                if grant.owner is not None and not asked.isdisjoint(grant.request)
            ]

    def fits_beside(self, request: Request, owners: Sequence[Any]) -> bool:
        """Tell whether a request could be met although what some owners keep is never free.

        Their cpu is: they give it back when they wait.
        """
        asked = _folded(request)
        with self._ledger.lock:
            kept: Counter[str] = Counter()
            for grant in self._ledger.grants:
                if grant.owner in owners:
                    own = grant.account is self
                    kept.update(
                        {
                            name: amount
                            for name, amount in grant.kept.items()
                            if own or name in self._ledger.stock.names
                        }
                    )
            stocks = (self._ledger.stock, self._own)
            return not any(stock.leaves_too_little(kept, asked) for stock in stocks)

    def free(self) -> dict[str, float]:
        """Give how much is free now, of the machine and of the runner's own names."""
        with self._ledger.lock:
            return {**self._ledger.stock.free(), **self._own.free()}

    # The lock is held.

    def lacking(self, request: Request) -> list[str]:
        """Give the names of which too little is free."""
        if self._limit is not None and self.running >= self._limit:
            return ["worker"]
        return self._ledger.stock.lacking(request) + self._own.lacking(request)

    def grant(self, request: Request, owner: Any) -> Grant:
        """Take what fits."""
        gpus = self._ledger.stock.take(request)
        self._own.take(request)
        grant = Grant(self, request, gpus, owner)
        self._ledger.grants.add(grant)
        self.running += 1
        return grant


def _folded(request: Mapping[str, float]) -> dict[str, float]:
    # Names mean the same in upper and lower case, as they do on a Dask cluster.
    return {name.casefold(): amount for name, amount in request.items()}


def _spelled(request: Request, folded: str) -> float:
    """Give how much a request asks of a name, however it is spelled there."""
    return next(amount for name, amount in request.items() if name.casefold() == folded)
