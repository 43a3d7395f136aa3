"""Handing large values over from elsewhere: another engine, or the memory of this process.

    lane ──► needs something large from elsewhere? ──► waits here ──► a thread fetches and packs it
                                                                            │
    lane ◄── again, with its arguments packed ◄─────────────────────────────┘

Fetching waits for the other engine, and packing digests every byte: both take time that the
dispatcher's thread does not have. What is fetched for a call is held only until it is packed, and
what is packed only until it is on the engine; calls that need the same values have them fetched
and packed once. At most `MOST_OPEN` groups of such calls are on their way at a time, so that
values do not pile up in this process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from penstock.remote.cargo import Cargo

MOST_OPEN = 4
Key = tuple[int, ...]


class Handovers:
    """The calls of one dispatcher that wait for large values. Used by its thread alone.

    Args:
        post: has a function called in the dispatcher's thread.
        again: queues a call that can be sent now.
        refuse: ends a call whose arguments cannot be had or cannot travel.
    """

    def __init__(
        self,
        post: Callable[..., None],
        again: Callable[[Cargo], None],
        refuse: Callable[[Any, Exception], None],
    ) -> None:
        self._post = post
        self._again = again
        self._refuse = refuse
        self._waiting: dict[Key, list[Cargo]] = {}
        self._open: dict[Key, set[Cargo]] = {}

    def holds_up(self, cargo: Cargo) -> bool:
        """Tell whether a call has to wait for large values; it is queued again afterwards."""
        if cargo.is_prepared:
            return False
        far = cargo.far()
        if not far:
            return False
        cargo.call.ticket = [None]
        self._waiting.setdefault(tuple(map(id, far)), []).append(cargo)
        self._begin()
        return True

    def sent(self, cargo: Cargo) -> None:
        """Take that a call which was prepared here has been sent, or never will be."""
        cargo.is_prepared = False
        for key, group in list(self._open.items()):
            group.discard(cargo)
            if not group:
                del self._open[key]
        self._begin()

    def drain(self) -> list[Cargo]:
        """Take everything out."""
        groups = [*self._waiting.values(), *self._open.values()]
        self._waiting.clear()
        self._open.clear()
        return [cargo for group in groups for cargo in group if not cargo.is_over]

    def _begin(self) -> None:
        for key in [key for key in self._waiting if key not in self._open]:
            if len(self._open) >= MOST_OPEN:
                break
            group = [cargo for cargo in self._waiting.pop(key) if not cargo.is_over]
            if group:
                self._open[key] = set(group)
                name = "penstock-handover"
                threading.Thread(
                    target=self._prepare, args=(group,), name=name, daemon=True
                ).start()

    def _prepare(self, group: list[Cargo]) -> None:
        """Fetch and pack the arguments of calls that need the same values; in its own thread."""
        brought: dict[int, Any] = {}
        memo: dict[int, Any] = {}
        for cargo in group:
            problem = None
            if not cargo.is_over:
                try:
                    cargo.prepare(brought, memo)
                except Exception as exc:
                    problem = exc
            self._post(self._prepared, cargo, problem)

    def _prepared(self, cargo: Cargo, problem: Exception | None) -> None:
        if cargo.is_over or problem is not None:
            self.sent(cargo)
            if problem is not None and not cargo.is_over:
                self._refuse(cargo.call, problem)
            return
        self._again(cargo)
