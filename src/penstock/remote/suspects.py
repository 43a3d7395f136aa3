"""Suspects: calls that were on a worker when it died, and may have been what killed it.

lost, perhaps begun ──► suspect: sent alone, says so before it begins ──► charged for a death
one more death and it is over ──► no other suspect is on its way meanwhile
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from penstock.remote.cargo import Cargo


class Suspects:
    """The suspects of one dispatcher. Used by its thread alone."""

    def __init__(self) -> None:
        self._waiting: deque[Cargo] = deque()
        # Those on their way, by the id of their bundle.
        self._away: dict[str, Cargo] = {}
        self._deaths: dict[bytes, int] = {}

    def charge(self, cargo: Cargo) -> None:
        """Note that a call has lost an attempt by the death of a worker."""
        key = cargo.run.key
        self._deaths[key] = self._deaths.get(key, 0) + 1

    def is_one(self, key: bytes) -> bool:
        """Tell whether a call, or an earlier attempt of it, is a suspect."""
        return key in self._deaths

    def forget(self, key: bytes) -> None:
        """Forget a call that is over."""
        self._deaths.pop(key, None)

    def take(self, cargo: Cargo) -> None:
        """Queue a suspect."""
        self._waiting.append(cargo)

    def next(self, most: int) -> Cargo | None:
        """Give the next suspect that may be sent now.

        Args:
            most: how many may be on their way at the same time.
        """
        while self._waiting:
            cargo = self._waiting[0]
            if not cargo.call.ticket:
                # It was taken back.
                self._waiting.popleft()
                continue
            others = self._away.values()
            if len(others) >= most or any(map(self._is_last_chance, others)):
                return None
            if others and self._is_last_chance(cargo):
                return None
            self._waiting.popleft()
            try:
                cargo.call.ticket.pop()
            except IndexError:
                continue
            return cargo
        return None

    def sent(self, bundle_id: str, cargo: Cargo) -> None:
        """Note that a suspect is on its way."""
        self._away[bundle_id] = cargo

    def landed(self, bundle_id: str) -> None:
        """Note that a bundle is on its way no more."""
        self._away.pop(bundle_id, None)

    def drain(self, take: Callable[[Cargo], Any]) -> None:
        """Hand over every suspect that waits."""
        while self._waiting:
            cargo = self._waiting.popleft()
            if cargo.call.ticket:
                take(cargo)

    def _is_last_chance(self, cargo: Cargo) -> bool:
        deaths: int = self._deaths.get(cargo.run.key, 0)
        return deaths >= cargo.call.task.worker_loss_retries  # type: ignore[no-any-return]
