"""The desk where task runs with cache keys ask whether they run; one for each recorder.

    ask ──► in flight here? ── yes ──► wait ◄───────────────────────────────┐
             │ no: leads                                                    │
             ▼                                                              │ told
            value in memory or in the history? ── yes ──► hit ──────────────┤
             │ no                                                           │
             ▼                                                              │
            claims thread: claimed by another process? ── yes ──► look again│
             │ no                                                           │
             ▼                                                              │
            runs ──► end: its value is remembered, the history has it with ─┘
                     the run's end, in one group

Who waits does so outside the desk: an answer is a call of `request.answer`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic, time_ns
from typing import Any, NamedTuple, Protocol

from penstock.core.caching import (
    EXPIRED,
    HIT,
    MISS,
    REFRESHED,
    Flight,
    Flights,
    Kept,
    expires_at,
    is_expired,
)
from penstock.errors import HistoryError
from penstock.history.cache_store import CacheStore
from penstock.history.recorder import Recorder
from penstock.ids import new_task_run_key
from penstock.runs import TaskRun
from penstock.runtime.cache_claims import Claims
from penstock.settings import refreshes_cache
from penstock.states import StateType

logger = logging.getLogger("penstock.caching")
_MOST_REMEMBERED = 10_000
_MOST_BYTES = 64_000_000
_FRESH_SECONDS = 0.1  # as long as others may not see what is made here, either
_lock = threading.Lock()


class Answer(NamedTuple):
    """What a request is told: how it goes on, and the value to use in place of running."""

    how: str
    found: Kept | None = None


class Request:
    """A task run that asks for a key.

    Args:
        inside: the ids of the leading runs that it is inside of.
        seconds: after which its value expires.
        refresh: whether it runs in any case; None: as the setting says.
        answer: called with the answer, from any thread, when `ask` gave none.
        unusable: the task run whose value was given as an answer, and cannot be used.
        run: the task run itself, where it is of this process.
    """

    __slots__ = ("answer", "inside", "key", "refresh", "run", "run_key", "seconds", "unusable")

    def __init__(
        self,
        key: str,
        run_key: bytes,
        *,
        inside: tuple[bytes, ...],
        seconds: float | None,
        refresh: bool | None,
        answer: Callable[[Answer], object],
        unusable: bytes | None = None,
        run: TaskRun | None = None,
    ) -> None:
        self.key = key
        self.run_key = run_key
        self.inside = inside
        self.seconds = seconds
        self.refresh = refresh
        self.answer = answer
        self.unusable = unusable
        self.run = run


class Desk(Protocol):
    """Where a task run asks for its key: here, or on a worker.

    Attributes:
        patience: seconds within which most answers come.
        may_block_loops: a coroutine may block its loop for so long.
    """

    patience: float
    may_block_loops: bool

    def ask(self, request: Request) -> Answer | None:
        """Give the answer, or None: then it comes by `request.answer`. Never blocks for long."""

    def leave_unkeyed(self, run: TaskRun) -> None:
        """Take that a run has no key."""

    def end(self, run: TaskRun) -> Callable[[], object] | None:
        """Take that a run has ended; what is given is called once the end is recorded."""

    def who_makes(self, request: Request) -> str:
        """Say whom a request waits for."""

    def leader_of(self, request: Request) -> TaskRun | None:
        """Give the run of this process that a request waits for, where that is known."""

    def leave(self, request: Request) -> None:
        """Take that a request waits no longer: its run runs."""


def desk_for(recorder: Any) -> Desk:
    """Give the desk of a recorder, opening it when it is first needed."""
    if recorder.desk is None:
        with _lock:
            if recorder.desk is None:
                recorder.desk = CacheDesk(recorder)
    desk: Desk = recorder.desk
    return desk


class CacheDesk:
    """The desk in the process that records. Thread-safe.

    Args:
        recorder: where the ends of the runs are recorded.
    """

    patience = 0.05
    may_block_loops = False

    def __init__(self, recorder: Recorder) -> None:
        self._store = _opened(recorder)
        self._flights = Flights(_new_claim)
        self._lock = threading.Lock()
        self._recent = _Recent()
        self._process = os.getpid()
        self._claims = Claims(self._store, self._claimed) if self._store is not None else None

    def ask(self, request: Request) -> Answer | None:
        if self._process != os.getpid():
            return Answer(MISS)  # a forked child: what it does is not recorded either
        if refreshes_cache() if request.refresh is None else request.refresh:
            return Answer(REFRESHED)
        with self._lock:
            flight = self._flights.join(request)
            if flight is None:
                return Answer(MISS)
            if flight.leader is not request:
                return None
            if flight.is_settled:
                return Answer(flight.how)
        return self._lead(flight, request)

    def _lead(self, flight: Flight, request: Request) -> Answer | None:
        how, found = self._look_up(request)
        if found is not None:
            self._all_hit(flight, found)
        elif self._claims is not None:
            flight.how = how
            self._claims.want(flight, request.unusable)
        else:
            flight.how = how
            self._let_run(flight)
        return None

    def _all_hit(self, flight: Flight, found: Kept) -> None:
        with self._lock:
            requests = [] if flight.is_over else [flight.leader, *self._flights.end(flight)]
        self._tell(requests, Answer(HIT, found))

    def _let_run(self, flight: Flight) -> None:
        # Not the one that asked, if that has ended meanwhile: whoever leads now.
        with self._lock:
            flight.is_settled = True
            leader = flight.leader
        self._tell([leader], Answer(flight.how))

    def _look_up(self, request: Request) -> tuple[str, Kept | None]:
        found = self._recent.get(request.key)
        if self._store is not None and not self._recent.is_fresh(request.key):
            found = self._newest(request.key, found, self._store)
        if found is None or found.run_key == request.unusable:
            return MISS, None
        return (EXPIRED, None) if is_expired(found, time_ns()) else (HIT, found)

    def _newest(self, key: str, found: Kept | None, store: CacheStore) -> Kept | None:
        try:
            stored = store.find(key)
        except HistoryError as problem:
            logger.warning("A cached value cannot be looked up; the task runs. %s", problem)
            return found
        if stored is None or (found is not None and stored.made_at < found.made_at):
            stored = found
        if stored is not None:
            with self._lock:
                self._recent.put(key, stored)
        return stored

    def _claimed(self, flight: Flight, found: Kept | None) -> None:
        """Go on with a flight that has its claim, or the value that another process made."""
        if found is not None:
            self._all_hit(flight, found)
        else:
            self._let_run(flight)

    def _tell(self, requests: list[Request], answer: Answer) -> None:
        for request in requests:
            try:
                request.answer(answer)
            except Exception:  # its worker cannot be told any more: the others are
                logger.exception("An answer about a cache key could not be given.")

    def peek(self, request: Request) -> Answer:
        """Look for a value, for a run that has no part in this."""
        how, found = self._look_up(request)
        return Answer(how, found)

    def leave_unkeyed(self, run: TaskRun) -> None:
        pass

    def end(self, run: TaskRun) -> Callable[[], object] | None:
        note = run.cache
        completed = run.type is StateType.COMPLETED
        made = None
        if completed and note is not None and note.found is None and run.kept is not None:
            now = run.ended_at or time_ns()
            expiry = expires_at(now, note.seconds)
            made = Kept(run.kept, run.kept_codec or "", run.key, now, expiry)
        with self._lock:
            if made is not None and note is not None:
                self._recent.put(note.key, made)
            flight = self._flights.leave(run.key)
            if flight is None:
                return None
            if completed and note is not None:
                return self._end_completed(run, flight, made)
            return self._end_otherwise(run, flight)

    def _end_completed(
        self, run: TaskRun, flight: Flight, made: Kept | None
    ) -> Callable[[], object] | None:
        waiting = self._flights.end(flight)
        self._drop_claim(run, flight)
        if not waiting:
            return None
        if made is None:
            logger.warning(
                "The value of task run %r was not kept, so %d runs with the same cache key run.",
                run.name,
                len(waiting),
            )
        answer = Answer(MISS) if made is None else Answer(HIT, made)
        return lambda: self._tell(waiting, answer)

    def _end_otherwise(self, run: TaskRun, flight: Flight) -> Callable[[], object] | None:
        follower = self._flights.pass_on(flight)
        if follower is None:
            self._drop_claim(run, flight)
            return None
        if not flight.is_settled:
            return None  # whoever leads when the claim is there is told
        return lambda: self._tell([follower], Answer(flight.how))

    def _drop_claim(self, run: TaskRun, flight: Flight) -> None:
        if self._claims is None:
            return
        if run.cache is not None:
            run.cache = run.cache._replace(claim=flight.claim)
        else:
            self._claims.give_up(flight)

    def leader_of(self, request: Request) -> TaskRun | None:
        with self._lock:
            flight = self._flights.flight_of(request.run_key)
            leader = None if flight is None else flight.leader
        return None if leader is None or leader.run_key == request.run_key else leader.run

    def leave(self, request: Request) -> None:
        with self._lock:
            flight = self._flights.flight_of(request.run_key)
            if flight is not None and flight.leader.run_key != request.run_key:
                self._flights.leave(request.run_key)

    def who_makes(self, request: Request) -> str:
        with self._lock:
            flight = self._flights.flight_of(request.run_key)
            leader = None if flight is None else flight.leader
        if flight is None or leader is None:
            return "another run"
        if leader.run_key != request.run_key:
            return f"task run {leader.run_key.hex()}"
        return "another process" if self._claims is None else self._claims.who_makes(request.key)

    def close(self) -> None:
        """End the claims thread and release the history."""
        if self._claims is not None:
            self._claims.close()
        if self._store is not None and self._process == os.getpid():
            self._store.close()


def _opened(recorder: Recorder) -> CacheStore | None:
    try:
        return recorder.open_cache()
    except HistoryError as problem:
        logger.warning("Values are only cached in this process: %s", problem)
        return None


def _new_claim() -> bytes:
    return new_task_run_key(time_ns())


class _Recent:
    """Values made or found lately; the history may not have them yet. The oldest are forgotten."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, Kept] = OrderedDict()
        self._looked_at: dict[str, float] = {}
        self._size = 0

    def is_fresh(self, key: str) -> bool:
        """Tell whether a value was put here so lately that the history need not be asked."""
        return monotonic() < self._looked_at.get(key, 0.0) + _FRESH_SECONDS

    def get(self, key: str) -> Kept | None:
        return self._values.get(key)

    def put(self, key: str, kept: Kept) -> None:
        old = self._values.pop(key, None)
        self._size += len(kept.data) - (0 if old is None else len(old.data))
        self._values[key] = kept
        self._looked_at[key] = monotonic()
        while self._size > _MOST_BYTES or len(self._values) > _MOST_REMEMBERED:
            key, kept = self._values.popitem(last=False)
            self._looked_at.pop(key, None)
            self._size -= len(kept.data)
