"""Which of the task runs with equal cache keys runs, and which of them wait for its value.

    join ──► leads ──► ends completed, its value kept ──► the others use it
              ▲  └───► ends completed, its value not kept ──► all others run
              └── the next one ◄── ends otherwise

A run that would wait, in the end, for itself runs on its own: one more run is no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

HIT, MISS, EXPIRED, REFRESHED, UNKEYED = "hit", "miss", "expired", "refreshed", "unkeyed"

LONGEST_KEY = 1_000
"""The most characters of a cache key."""


class Kept(NamedTuple):
    """A kept value.

    Attributes:
        data, codec: the value as the history keeps it.
        run_key: the id of the task run that made it.
        made_at, expires_at: nanoseconds since 1970; no end when None.
    """

    data: bytes
    codec: str
    run_key: bytes
    made_at: int
    expires_at: int | None


class CacheNote(NamedTuple):
    """What caching did for a task run.

    Attributes:
        how: "hit", "miss", "expired", "refreshed" or "unkeyed".
        key: its cache key; None where it has none.
        seconds: after which its value expires; None: never.
        claim: what is given up in the history once the run's end is in it.
        found: the value that was used in place of running.
    """

    how: str
    key: str | None = None
    seconds: float | None = None
    claim: bytes | None = None
    found: Kept | None = None

    def expires_at(self, made_at: int) -> int | None:
        """Give when a value made at some time expires, in nanoseconds since 1970."""
        return expires_at(made_at, self.seconds)


def is_expired(kept: Kept, now: int) -> bool:
    """Tell whether a kept value is too old to be used."""
    return kept.expires_at is not None and kept.expires_at <= now


def expires_at(now: int, seconds: float | None) -> int | None:
    """Give when a value made now expires, in nanoseconds since 1970."""
    return None if seconds is None else min(now + int(seconds * 1e9), 2**63 - 1)


class Flight:
    """Task runs of one key: one leads, the others wait for it.

    Attributes:
        claim: what stands for it in the history, for other processes to see.
        leader: the request that leads.
        how: why the leader runs.
        is_settled: the leader has been told to run.
        is_over: nobody is in it any more.
        waiting: the requests that wait, in order.
    """

    __slots__ = ("claim", "how", "is_over", "is_settled", "key", "leader", "waiting")

    def __init__(self, leader: Any, claim: bytes) -> None:
        self.key: str = leader.key
        self.claim = claim
        self.leader = leader
        self.how = MISS
        self.is_settled = False
        self.is_over = False
        self.waiting: list[Any] = []


class Flights:
    """The flights of one process. Not thread-safe.

    Requests have a `key`, a `run_key`, and `inside`: the ids of the leading runs in which their
    run was called or submitted.

    Example:
        >>> from types import SimpleNamespace
        >>> first = SimpleNamespace(key="k", run_key=b"1", inside=())
        >>> second = SimpleNamespace(key="k", run_key=b"2", inside=())
        >>> flights = Flights(lambda: b"claim")
        >>> flights.join(first).leader is first, flights.join(second).waiting == [second]
        (True, True)
    """

    def __init__(self, new_claim: Callable[[], bytes]) -> None:
        self._new_claim = new_claim
        self._by_key: dict[str, Flight] = {}
        self._by_run: dict[bytes, tuple[Flight, Any]] = {}

    def join(self, request: Any) -> Flight | None:
        """Have a request lead the flight of its key, or wait in it; None: it runs on its own."""
        known = self._by_run.get(request.run_key)
        if known is not None and known[0].key == request.key:
            # It asks again: its worker was lost, say.
            self._replace(*known, request)
            return known[0]
        flight = self._by_key.get(request.key)
        if flight is None:
            flight = self._by_key[request.key] = Flight(request, self._new_claim())
        elif self._is_circle(request, flight):
            return None
        else:
            flight.waiting.append(request)
        self._by_run[request.run_key] = flight, request
        return flight

    def flight_of(self, run_key: bytes) -> Flight | None:
        """Give the flight that a run leads or waits in."""
        known = self._by_run.get(run_key)
        return None if known is None else known[0]

    def leave(self, run_key: bytes) -> Flight | None:
        """Take a run out of its flight; gives the flight if the run led it."""
        flight, request = self._by_run.pop(run_key, (None, None))
        if flight is None:
            return None
        if flight.leader is request:
            return flight
        flight.waiting.remove(request)
        return None

    def pass_on(self, flight: Flight) -> Any:
        """Have the next one lead; gives its request. None: there is none, the flight is over."""
        if not flight.waiting:
            self.end(flight)
            return None
        flight.leader = flight.waiting.pop(0)
        return flight.leader

    def end(self, flight: Flight) -> list[Any]:
        """End a flight; gives the requests that wait in it."""
        if self._by_key.get(flight.key) is flight:
            del self._by_key[flight.key]
        flight.is_over = True
        waiting, flight.waiting = flight.waiting, []
        for request in (flight.leader, *waiting):
            self._by_run.pop(request.run_key, None)
        return waiting

    def _replace(self, flight: Flight, old: Any, new: Any) -> None:
        self._by_run[new.run_key] = flight, new
        if flight.leader is old:
            flight.leader = new
        else:
            flight.waiting[flight.waiting.index(old)] = new

    def _is_circle(self, request: Any, flight: Flight) -> bool:
        """Tell whether the leader may wait, in the end, for what is to wait for it."""
        if not request.inside:
            return False
        leaders = [flight.leader.run_key]
        seen = set(leaders)
        while leaders:
            leader = leaders.pop()
            if leader in request.inside:
                return True
            for other, waiting in self._by_run.values():
                ahead = other.leader.run_key
                if waiting is not other.leader and leader in waiting.inside and ahead not in seen:
                    seen.add(ahead)
                    leaders.append(ahead)
        return False
