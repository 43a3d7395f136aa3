"""Claims on cache keys, so that processes that share a history do not make one value twice.

    want ──► queue ──► thread "penstock-caching": all that wait in one transaction
                          │ claimed, or the value is there ──► told
                          └ another process has it ──► look again: 50 ms, …, 250 ms

The thread gives a sign of life for what is claimed, and ends when there is nothing to do.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic, time_ns
from typing import Any

from penstock.core.caching import Flight, Kept, is_expired
from penstock.errors import HistoryError
from penstock.history.cache_store import CacheStore, Claimant, Wanted
from penstock.runtime.blocking import ServiceThread

BEAT_SECONDS = 5.0
"""Seconds between signs of life."""
_SHORTEST, _LONGEST = 0.05, 0.25
_IDLE_SECONDS = 1.0
_PATIENCE = 5.0
logger = logging.getLogger("penstock.caching")


class _Want:
    __slots__ = ("at", "but_not", "claimant", "flight", "pause")

    def __init__(self, flight: Flight, but_not: bytes | None) -> None:
        self.flight = flight
        self.but_not = but_not
        self.pause = _SHORTEST
        self.at = 0.0
        self.claimant: Claimant | None = None


class Claims:
    """Claims keys for flights. Thread-safe.

    Args:
        store: where the claims are.
        claimed: called with a flight, and the value that is there by now, else None: it is
            claimed. From the thread.
    """

    def __init__(self, store: CacheStore, claimed: Callable[[Flight, Kept | None], None]) -> None:
        self._store = store
        self._claimed = claimed
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], None] | _Want | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting: dict[str, _Want] = {}
        self._held: set[Flight] = set()
        self._beat_at = 0.0
        self._process = os.getpid()

    def want(self, flight: Flight, but_not: bytes | None = None) -> None:
        """Claim the key of a flight, or have it told the value."""
        self._do(_Want(flight, but_not))

    def give_up(self, flight: Flight) -> None:
        """Delete the claim of a flight of which no run's end tells."""
        self._do(lambda: self._store.give_up(flight.key, flight.claim))

    def who_makes(self, key: str) -> str:
        """Say which process makes the value of a key."""
        want = self._waiting.get(key)
        claimant = None if want is None else want.claimant
        if claimant is None:
            return "the history"
        return f"process {claimant.pid} on {claimant.host}"

    def close(self) -> None:
        """End the thread."""
        thread = self._thread
        if thread is None or self._process != os.getpid():
            return
        self._queue.put(None)
        thread.join(_PATIENCE)

    def _do(self, work: Any) -> None:
        self._queue.put(work)
        with self._lock:
            if self._thread is None:
                self._thread = ServiceThread(
                    target=self._serve, name="penstock-caching", daemon=True
                )
                self._thread.start()

    def _serve(self) -> None:
        while True:
            for work in self._arrivals():
                if work is None:
                    return
                if isinstance(work, _Want):
                    self._waiting[work.flight.key] = work
                else:
                    self._contained(work)
            self._contained(self._claim_all)
            self._held = {flight for flight in self._held if not flight.is_over}
            if self._held and monotonic() - self._beat_at > BEAT_SECONDS:
                self._beat_at = monotonic()
                self._contained(lambda: self._store.beat(time_ns()))
            with self._lock:
                if not (self._waiting or self._held) and self._queue.empty():
                    self._thread = None
                    return

    def _arrivals(self) -> list[Any]:
        """Wait for something to do; give all that is new."""
        pauses = [want.at - monotonic() for want in list(self._waiting.values())]
        if self._held:
            pauses.append(self._beat_at + BEAT_SECONDS - monotonic())
        found = []
        try:
            found.append(self._queue.get(timeout=max(0.0, min(pauses, default=_IDLE_SECONDS))))
            while True:
                found.append(self._queue.get_nowait())
        except Empty:
            return found

    def _contained(self, function: Callable[[], object]) -> None:
        try:
            function()
        except HistoryError as problem:
            logger.warning("A claim on a cache key could not be written. %s", problem)
        except Exception:
            logger.exception("A claim on a cache key failed.")

    def _claim_all(self) -> None:
        now = monotonic()
        for want in list(self._waiting.values()):
            if want.flight.is_over:
                self._waiting.pop(want.flight.key, None)
        due = [want for want in list(self._waiting.values()) if want.at <= now]
        free = [want for want in due if self._is_free(want)]
        if not free:
            return
        wanted = [Wanted(want.flight.key, want.flight.claim, want.but_not) for want in free]
        try:
            answers = self._store.take(wanted, time_ns())
        except HistoryError as problem:
            # Better a value made twice than none.
            logger.warning("Cache keys could not be claimed; the tasks run. %s", problem)
            answers = [None] * len(free)
        if not self._held:
            self._beat_at = now
        for want, answer in zip(free, answers, strict=True):
            if isinstance(answer, Claimant):
                self._later(want, answer)
                continue
            self._waiting.pop(want.flight.key, None)
            if not want.flight.is_over:
                if answer is None:
                    self._held.add(want.flight)
                self._claimed(want.flight, answer)
            elif answer is None:
                # Its runs have ended without a note of it: nobody else would delete it.
                self._store.give_up(want.flight.key, want.flight.claim)

    def _is_free(self, want: _Want) -> bool:
        """Tell whether a key that another process had claimed may be free by now."""
        if want.claimant is None:
            return True
        key, now = want.flight.key, time_ns()
        found = self._store.find(key)
        if found is not None and found.run_key != want.but_not and not is_expired(found, now):
            return True
        claimant = self._store.claimant(key)
        if claimant is None or self._store.may_take_over(claimant, now):
            return True
        self._later(want, claimant)
        return False

    def _later(self, want: _Want, claimant: Claimant) -> None:
        want.claimant = claimant
        want.at = monotonic() + want.pause
        want.pause = min(want.pause * 1.5, _LONGEST)
