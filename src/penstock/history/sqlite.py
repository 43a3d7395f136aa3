"""The history in one SQLite file: the writing side.

    recorder thread ── write(group) ──► gate ──► BEGIN IMMEDIATE ── rows ── COMMIT ──► gate open
                                                                │
                     readers (reading.py, any process) ◄────────┘ write-ahead log

Readers never wait for the writer nor it for them. Who holds the gate also carries the log over
into the file when it has grown (`wal_autocheckpoint` on this connection only).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.core.previews import preview
from penstock.errors import HistoryError
from penstock.failpoints import FAILPOINTS, hit
from penstock.history.base import (
    CACHE_COLUMNS,
    CLAIM_COLUMNS,
    COUNT_COLUMNS,
    FLOW_RUN_COLUMNS,
    LOG_COLUMNS,
    ORDINARY_TASK_RUN_COLUMNS,
    SCHEMA_VERSION,
    TASK_COLUMNS,
    TASK_RUN_COLUMNS,
    Group,
    HistoryStore,
)
from penstock.history.filesystems import network_filesystem
from penstock.history.gate import Patience, WriteGate, logger
from penstock.history.locations import sqlite_path, sqlite_uri
from penstock.history.schema import inspect_file, migrate
from penstock.history.sqlite_errors import SQLITE_ERRORS, is_busy, refused, told
from penstock.history.sqlite_leases import check_leases, take_over
from penstock.history.statements import Insertion, Row, SplitInsertion
from penstock.history.stores import open_cache

if TYPE_CHECKING:
    from penstock.history.cache_store import CacheStore

PATIENCE = 5.0
"""Seconds that a write waits for other programs; the recorder then tries again."""
OPENING_PATIENCE = 60.0
"""Seconds that opening waits for other programs: nobody tries that again."""

_BUSY_TIMEOUT = 1.0
_PAUSE = 0.02
_MOST_VARIABLES = 32_766
_CHECKPOINT_PAGES = 4_000
# Strong, so that no child ever collects, and thereby closes, what its parent had open.
_open_stores: set[SQLiteStore] = set()
_fork_lock = threading.Lock()
_held: list[SQLiteStore] = []  # by the fork that is going on


class SQLiteStore(HistoryStore):
    """Write a history into a SQLite file, which is made when it is missing.

    Many processes may write one file; each opens a store of its own, after any fork.

    Args:
        url: `sqlite:///PATH` or a path.
        power_safe: survive also a power cut: every commit waits for the disk.
        patience: seconds that a write waits for other programs.

    Raises:
        HistoryUnavailable: the file cannot be made or written; the text says what to do.
        HistoryTooNew: a newer Penstock wrote it; it was not touched.
        HistoryCorrupt: it is no history.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        power_safe: bool = False,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.path = sqlite_path(url)
        self._power_safe = power_safe
        self._patience = patience
        self._process = os.getpid()
        self._writing = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._gate = self._make_gate()
        self._inode = 0
        try:
            self._connection = self._open()
        except BaseException:
            self._gate.close()
            raise
        self._insertions = _insertions(self._connection)
        self._warn_of_network()
        _open_stores.add(self)

    def _warn_of_network(self) -> None:
        kind = network_filesystem(os.path.dirname(self.path))
        if kind is not None:
            logger.warning(
                "%s lies on a network file system (%s), whose locks are not reliable. Name a "
                "local file in PENSTOCK_DATABASE_URL; one host alone may go on.",
                self.path,
                kind,
            )

    def _make_gate(self) -> WriteGate:
        try:
            _make_folder(Path(self.path).parent)
            return WriteGate(self.path)
        except OSError as problem:
            raise refused(self.path, problem.strerror or str(problem)) from problem

    def _open(self) -> sqlite3.Connection:
        patience = Patience(max(self._patience, OPENING_PATIENCE))
        self._gate.acquire(patience)
        try:
            while True:
                try:
                    connection = self._connect()
                except SQLITE_ERRORS as problem:
                    if not is_busy(problem):
                        raise told(problem, self.path) from problem
                else:
                    self._inode = os.stat(self.path).st_ino
                    return connection
                patience.wait(_PAUSE, self.path)
        finally:
            self._gate.release()

    def _connect(self) -> sqlite3.Connection:
        version = inspect_file(self.path)
        connection = sqlite3.connect(
            sqlite_uri(self.path, "mode=rwc"),
            uri=True,
            timeout=min(_BUSY_TIMEOUT, self._patience),
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )
        try:
            self._prepare(connection, version)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, version: int) -> None:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._power_safe else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}").fetchone()
        if version < SCHEMA_VERSION:
            migrate(connection, self.path, version)

    def write(self, group: Group) -> None:
        self._check_usable()
        if group.written:
            return
        tables = (
            group.flow_runs,
            group.tasks,
            group.task_runs,
            group.logs,
            group.counts,
            group.cache,
            group.claims_ended,
        )
        with self._writing:
            try:
                self._commit(tables, group.leases)
            except _ODD_VALUES:  # that nobody cleaned; nothing of the group is in yet
                self._commit(tuple(_storable(rows) for rows in tables), group.leases)
        group.written = True

    def take_over(self, flow_run_id: bytes, epoch: int, at: int, owner: tuple[Any, ...]) -> None:
        self._check_usable()
        with self._writing, self._transaction() as connection:
            take_over(connection, flow_run_id, epoch, at, owner)

    def _check_usable(self) -> None:
        if self._process != os.getpid():
            raise HistoryError(
                f"The history {self.path} was opened by process {self._process} and cannot be "
                "written by its child. Open it again here."
            )
        if self._connection is None:
            raise HistoryError(f"The history {self.path} was closed.")
        if self._is_lost():
            logger.warning("%s was moved or deleted while in use. A new one is made.", self.path)
            self._connection.close()
            self._gate.close()
            self._gate = self._make_gate()
            self._connection = self._open()

    def _is_lost(self) -> bool:
        """Tell whether the path no longer leads to the open file: rows would go nowhere."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError:
            return False  # SQLite's own error will tell more

    def _commit(self, tables: tuple[list[Row], ...], leases: list[Row]) -> None:
        with self._transaction() as connection:
            check_leases(connection, leases)
            for insertion, rows in zip(self._insertions, tables, strict=True):
                for text, values in insertion.steps(rows):
                    connection.execute(text, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        assert connection is not None  # write() has checked it
        patience = Patience(self._patience)
        self._gate.acquire(patience)
        try:
            self._begin(connection, patience)
            if FAILPOINTS:
                hit("history.begin")
            yield connection
            if FAILPOINTS:
                hit("history.before_commit")
            connection.execute("COMMIT")
            if FAILPOINTS:
                hit("history.committed")
        except sqlite3.ProgrammingError:
            raise  # a value of a type that no column takes
        except SQLITE_ERRORS as problem:
            raise told(problem, self.path) from problem
        finally:
            self._roll_back(connection)
            self._gate.release()

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        """Undo an unfinished group; without effect after a commit."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except SQLITE_ERRORS:
            pass  # on a failing disk SQLite has rolled back itself; the first error tells more

    def _begin(self, connection: sqlite3.Connection, patience: Patience) -> None:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as problem:
                if not is_busy(problem):
                    raise
            patience.wait(0.0, self.path)

    def open_cache(self) -> CacheStore:
        return open_cache(self.path)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None or self._process != os.getpid():
            return
        with self._writing:
            connection.close()
            self._gate.close()
        _open_stores.discard(self)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, for this user alone."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _insertions(connection: sqlite3.Connection) -> tuple[Insertion | SplitInsertion, ...]:
    most = min(_MOST_VARIABLES, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
    return (
        Insertion("write_flow_runs", FLOW_RUN_COLUMNS, most, repeatable=True),
        Insertion("write_tasks", TASK_COLUMNS, most, repeatable=True),
        _task_run_insertion(most),
        Insertion("write_logs", LOG_COLUMNS, most, repeatable=False),
        Insertion("write_counts", COUNT_COLUMNS, most, repeatable=True),
        Insertion("write_cache", CACHE_COLUMNS, most, repeatable=True),
        Insertion("delete_claims", CLAIM_COLUMNS, most, repeatable=True),
    )


def _task_run_insertion(most: int) -> SplitInsertion:
    return SplitInsertion(
        Insertion("write_task_runs", TASK_RUN_COLUMNS, most, repeatable=True),
        Insertion("write_task_runs", ORDINARY_TASK_RUN_COLUMNS, most, repeatable=True),
    )


_ODD_VALUES = (UnicodeEncodeError, OverflowError, sqlite3.ProgrammingError)
_MOST = 2**63


def _storable(rows: list[Row]) -> list[Row]:
    """Make every value one that the database takes, so that an odd one cannot lose a group."""
    return [tuple(map(_storable_value, row)) for row in rows]


def _storable_value(value: object) -> object:
    """Escape lone surrogates; tell what is too large, or is no such value at all, as text."""
    if value is None or isinstance(value, float | bytes):
        return value
    if isinstance(value, int) and -_MOST <= value < _MOST:
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return preview(value)


# A fork waits for the write that is going on, so that no lock inside SQLite is copied while it is
# held. The child closes its copies of the gates, which would else outlive the parent, and leaves
# the connections alone: closing one would touch its parent's locks and files.


def _before_fork() -> None:
    _fork_lock.acquire()
    _held.extend(_open_stores)
    for store in _held:
        store._writing.acquire()


def _after_fork() -> None:
    while _held:
        _held.pop()._writing.release()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    _after_fork()
    for store in _open_stores:
        store._gate.close()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork,
    after_in_child=_after_fork_in_child,
)
