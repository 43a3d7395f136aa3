"""Lanes: where calls wait to be sent, and how those that travel together are chosen.

take(cargo) ─► lane of its task and wishes ─► compose ─► calls of one bundle
foresee(cargo) ─► followers of its upstreams ────┘  (all of a follower's open upstreams
                                                     are in the bundle, before it)
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import Any

from penstock.core.bundling import MOST_TOGETHER, TARGET_SECONDS, Pace, bundle_size
from penstock.remote.cargo import Cargo
from penstock.remote.codes import Codes
from penstock.remote.engine import Options, given_elsewhere
from penstock.remote.handover import Handovers
from penstock.remote.payloads import Payloads
from penstock.runs import TaskRun
from penstock.runtime.upstreams import run_of
from penstock.states import StateType
from penstock.task_runners.queues import CallQueue

_MOST_BYTES = 4_000_000
_MOST_LANES = 256
_NOWHERE: frozenset[str] = frozenset()


class Lane:
    """Calls that may travel together: of one task, with the same wishes.

    Attributes:
        options: the engine's own options for them.
        pace: how long runs of the task take.
        is_bundled: whether they may travel together at all.
    """

    def __init__(self, options: Options | None, pace: Pace, numbers: Any, is_bundled: bool) -> None:
        self.options = options
        self.pace = pace
        self.queue = CallQueue(numbers)
        self.is_bundled = is_bundled

    @property
    def places(self) -> Hashable:
        """Say where its calls may run; None for anywhere."""
        return None if self.options is None else self.options.places

    def size(self, workers: int) -> int:
        """Give how many calls the next bundle is to hold."""
        return bundle_size(self.pace, len(self.queue), workers) if self.is_bundled else 1

    def most_ahead(self, workers: int, looks_ahead: int) -> int:
        """Give how many bundles may be on their way, so that no worker runs out of work."""
        if self.pace.seconds > TARGET_SECONDS or not self.is_bundled:
            # Sent one by one: let the engine see enough of them to place them well.
            return workers + looks_ahead
        return 2 * workers if self.pace.is_known else workers


class Lanes:
    """The lanes of one dispatcher. Used by its thread alone.

    Args:
        refuse: ends a call whose arguments or code cannot travel.
        bundles: False lets no calls travel together.
        handovers: where calls wait for large values from elsewhere.
    """

    def __init__(
        self,
        refuse: Callable[[Any, Exception], None],
        bundles: bool,
        handovers: Handovers,
    ) -> None:
        self._refuse = refuse
        self._handovers = handovers
        self._bundles = bundles
        self.codes = Codes()
        self._payloads = Payloads()
        self._lanes: dict[Hashable, Lane] = {}
        self._paces: dict[tuple[str, str], Pace] = {}
        self._numbers = itertools.count(1)
        self._followers: dict[TaskRun, list[Cargo]] = {}

    def take(self, cargo: Cargo) -> None:
        """Queue a call whose upstreams have settled."""
        lane = self._lane_of(cargo)
        cargo.pace = lane.pace
        lane.queue.push(cargo.call)

    def foresee(self, cargo: Cargo) -> None:
        """Remember a call with those of its upstreams that have not settled."""
        if not self._bundles or not cargo.call.task.is_bundled:
            return
        cargo.pace = self._pace_of(cargo.call.task)
        for dependency in list(cargo.call.upstreams):
            run = run_of(dependency)
            if run is not None and run.outcome is None:
                self._followers.setdefault(run, []).append(cargo)

    def forget(self, run: TaskRun) -> None:
        """Forget who waits for a run that is over."""
        self._followers.pop(run, None)

    def next(self, has_room: Callable[[Lane], bool]) -> Lane | None:
        """Give the lane whose first call is next: largest priority, then first come.

        Calls that may run in the same places are looked at in this order; where there is no room
        for the first of them, there is none for the others. None: no call has room.
        """
        first: dict[Hashable, tuple[tuple[int, int], Lane]] = {}
        for lane in self._lanes.values():
            if lane.queue:
                head = lane.queue.head()
                best = first.get(lane.places)
                if head is not None and (best is None or head < best[0]):
                    first[lane.places] = head, lane
        found = [(head, lane) for head, lane in first.values() if has_room(lane)]
        return min(found, key=itemgetter(0))[1] if found else None

    def has_more(self) -> bool:
        """Tell whether anything waits here."""
        return any(lane.queue for lane in self._lanes.values())

    def compose(self, lane: Lane, workers: int) -> list[Cargo]:
        """Take calls out of a lane, and what can travel along with them."""
        most = lane.size(workers)
        together: dict[bytes, Cargo] = {}
        room = _MOST_BYTES
        while len(together) < most and room > 0:
            call: Any = lane.queue.pop()
            if call is None:
                break
            cargo: Cargo = call.cargo
            if cargo.is_suspect and together:
                lane.queue.push(call)
                break
            if not self.pack(cargo):
                continue
            together[cargo.run.key] = cargo
            room -= cargo.size
            if cargo.is_suspect:
                break
            if lane.is_bundled and self._followers:
                self._add_followers(cargo, together, lane.options)
        return list(together.values())

    def drain(self) -> list[Cargo]:
        """Take everything out."""
        drained: list[Cargo] = self._handovers.drain()
        for lane in self._lanes.values():
            while (call := lane.queue.pop()) is not None:
                drained.append(call.cargo)
        return drained

    def _lane_of(self, cargo: Cargo) -> Lane:
        task = cargo.call.task
        options = cargo.options
        # What is kept on the same workers is best used there.
        homes = _NOWHERE if cargo.call.found is None else cargo.homes()
        key = (task.key, task.name, task.is_bundled, options, homes)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) > _MOST_LANES:
                self._lanes = {key: lane for key, lane in self._lanes.items() if lane.queue}
            is_bundled = self._bundles and task.is_bundled
            lane = self._lanes[key] = Lane(options, self._pace_of(task), self._numbers, is_bundled)
        return lane

    def _pace_of(self, task: Any) -> Pace:
        pace = self._paces.get((task.key, task.name))
        if pace is None:
            pace = self._paces[task.key, task.name] = Pace()
        return pace

    def pack(self, cargo: Cargo) -> bool:
        """Pack the arguments of a call; tell whether it can be sent."""
        if cargo.is_over:
            if cargo.is_prepared:
                self._handovers.sent(cargo)
            return False
        if self._handovers.holds_up(cargo):
            return False
        try:
            cargo.code = self.codes.of(cargo.call.task)
            cargo.waits_for = cargo.pack()
            if cargo.large:
                self.note_large(cargo)
        except Exception as exc:
            self._refuse(cargo.call, exc)
            return False
        finally:
            if cargo.is_prepared:
                self._handovers.sent(cargo)
        return True

    def note_large(self, cargo: Cargo) -> None:
        """Take note of packed arguments with large parts. Thread-safe."""
        call = cargo.call
        if cargo.data is None or call.context.get(given_elsewhere):
            return  # of what was submitted on a worker, that one has told
        is_one_of_many = call.memo is not None
        self._payloads.note(call.task, cargo.data, cargo.large, is_one_of_many=is_one_of_many)

    def _add_followers(
        self, first: Cargo, together: dict[bytes, Cargo], options: Options | None
    ) -> None:
        """Add calls whose open upstreams are all in the bundle, and what follows on them."""
        pending = deque([first])
        seconds = 0.0
        while pending and len(together) < MOST_TOGETHER and seconds < TARGET_SECONDS:
            for cargo in self._followers.pop(pending.popleft().run, ()):
                if (
                    cargo.is_over
                    or cargo.bundle is not None
                    or not cargo.call.upstreams
                    or cargo.options != options
                    or not self._is_covered(cargo, together)
                    # It waits for that once its upstreams have settled.
                    or cargo.far()
                    or not self.pack(cargo)
                ):
                    continue
                cargo.is_early = True
                together[cargo.run.key] = cargo
                pending.append(cargo)
                seconds += cargo.pace.seconds

    def _is_covered(self, cargo: Cargo, together: dict[bytes, Cargo]) -> bool:
        """Tell whether every upstream has completed or is in the bundle."""
        for dependency, allowed in cargo.call.upstreams.items():
            run = run_of(dependency)
            if run is None:
                continue
            if run.outcome is None:
                # What a failure is to become is decided here, not there.
                if allowed or run.key not in together:
                    return False
            elif run.outcome.type is not StateType.COMPLETED:
                return False
        return True
