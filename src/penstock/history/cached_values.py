"""The values of cache keys in a SQLite history, and the claims of those who are making one.

    look ──► read only: the value of a key, who makes it
    take ──► one short transaction for many keys: a value that is there by now, or a claim

Its connections are its own, beside those of the recorder's thread; used by any thread.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from penstock.core.caching import Kept, is_expired
from penstock.history.cache_store import CacheStore, Claimant, Wanted
from penstock.history.gate import Patience, WriteGate
from penstock.history.locations import sqlite_uri
from penstock.history.owners import host_name, is_gone, process_started_at
from penstock.history.sqlite_errors import SQLITE_ERRORS, told
from penstock.history.statements import load_query

PATIENCE = 5.0
"""Seconds that a claim waits for other programs."""
SILENT_AFTER = 15.0
"""Seconds without a sign of life after which a claim is taken over."""

_query = cache(load_query)


# Strong, so that no child ever collects, and thereby closes, what its parent had open.
_open_stores: set[SQLiteCacheStore] = set()


class _Me(NamedTuple):
    host: str
    pid: int
    started_at: int | None


class SQLiteCacheStore(CacheStore):
    """Read and claim cache keys in a history that exists.

    Args:
        path: the file of the history.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._me = _Me(host_name(), os.getpid(), process_started_at(os.getpid()))
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._reader = self._connect("mode=ro")
        self._writer: sqlite3.Connection | None = None
        self._gate: WriteGate | None = None
        _open_stores.add(self)

    def _connect(self, mode: str) -> sqlite3.Connection:
        try:
            return sqlite3.connect(
                sqlite_uri(self.path, mode),
                uri=True,
                timeout=PATIENCE,
                isolation_level=None,
                check_same_thread=False,
            )
        except SQLITE_ERRORS as problem:
            raise told(problem, self.path) from problem

    def find(self, key: str) -> Kept | None:
        with self._reading() as connection:
            return _found(connection, key)

    def claimant(self, key: str) -> Claimant | None:
        with self._reading() as connection:
            return _claimant(connection, key)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._reader
        except SQLITE_ERRORS as problem:
            raise told(problem, self.path) from problem

    def take(self, wanted: Iterable[Wanted], now: int) -> list[Kept | Claimant | None]:
        with self._transaction() as connection:
            return [self._take(connection, each, now) for each in wanted]

    def _take(
        self, connection: sqlite3.Connection, wanted: Wanted, now: int
    ) -> Kept | Claimant | None:
        found = _found(connection, wanted.key)
        if found is not None and found.run_key != wanted.but_not and not is_expired(found, now):
            return found
        claimant = _claimant(connection, wanted.key)
        if claimant is not None and not self.may_take_over(claimant, now):
            return claimant
        connection.execute(_query("take_claim"), (wanted.key, wanted.claim, now, *self._me))
        return None

    def may_take_over(self, claimant: Claimant, now: int) -> bool:
        is_mine = claimant[2:] == self._me
        is_silent = claimant.beat_at + int(SILENT_AFTER * 1e9) < now
        return is_mine or is_silent or is_gone(*claimant[2:])

    def give_up(self, key: str, claim: bytes) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM cache_claims WHERE key = ? AND claim = ?", (key, claim))

    def beat(self, now: int) -> None:
        with self._transaction() as connection:
            connection.execute(_query("beat_claims"), (now, *self._me))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            if self._writer is None:
                self._gate = WriteGate(self.path)
                self._writer = self._connect("mode=rw")
            assert self._gate is not None
            connection = self._writer
            self._gate.acquire(Patience(PATIENCE))
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except SQLITE_ERRORS as problem:
                raise told(problem, self.path) from problem
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._gate.release()

    def close(self) -> None:
        _open_stores.discard(self)
        with self._lock, self._writing:
            self._reader.close()
            if self._writer is not None:
                self._writer.close()
            if self._gate is not None:
                self._gate.close()


def _after_fork_in_child() -> None:
    # Its copies of the gates would outlive the parent; the connections are the parent's to close.
    for store in _open_stores:
        if store._gate is not None:
            store._gate.close()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _found(connection: sqlite3.Connection, key: str) -> Kept | None:
    row = connection.execute(_query("cached_value"), (key,)).fetchone()
    return None if row is None else Kept(*row)


def _claimant(connection: sqlite3.Connection, key: str) -> Claimant | None:
    row = connection.execute(_query("cache_claim"), (key,)).fetchone()
    return None if row is None else Claimant(*row)
