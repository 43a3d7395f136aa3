"""The contract of what finds and claims the values of cache keys in a history."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import NamedTuple

from penstock.core.caching import Kept


class Wanted(NamedTuple):
    """A cache key that somebody wants to make the value of.

    Attributes:
        claim: 16 bytes that stand for whoever wants it.
        but_not: the task run whose value cannot be used.
    """

    key: str
    claim: bytes
    but_not: bytes | None


class Claimant(NamedTuple):
    """Who is making the value of a cache key; `beat_at` is its last sign of life."""

    claim: bytes
    beat_at: int
    host: str | None
    pid: int | None
    pid_started_at: int | None


class CacheStore(abc.ABC):
    """Finds the values of cache keys, and claims keys for this process. Thread-safe.

    All of it raises `HistoryError` where the database cannot be used.
    """

    @abc.abstractmethod
    def find(self, key: str) -> Kept | None:
        """Give the value of a key, expired or not."""

    @abc.abstractmethod
    def claimant(self, key: str) -> Claimant | None:
        """Give who is making the value of a key."""

    @abc.abstractmethod
    def take(self, wanted: Iterable[Wanted], now: int) -> list[Kept | Claimant | None]:
        """Claim keys, all in one transaction.

        Returns:
            For each key the value that is there by now, or who makes it; None where the claim
            was made. It is deleted by the group that has the end of the run (`claims_ended`).
        """

    @abc.abstractmethod
    def may_take_over(self, claimant: Claimant, now: int) -> bool:
        """Tell whether a claim is one of this process, or of one that is gone or silent."""

    @abc.abstractmethod
    def give_up(self, key: str, claim: bytes) -> None:
        """Delete a claim of which no run's end tells."""

    @abc.abstractmethod
    def beat(self, now: int) -> None:
        """Give a sign of life for all claims of this process."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the database."""
