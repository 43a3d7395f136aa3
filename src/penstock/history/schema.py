"""Make, check and migrate a history's database.

Migrations are the files `migrations/<number>_<name>.sql`, applied in order in one transaction;
`user_version` holds the number of the last one and `application_id` says whose database it is.
A newer or a foreign database is only ever read.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from penstock.errors import HistoryError, HistoryTooNew
from penstock.failpoints import FAILPOINTS, hit
from penstock.history.base import SCHEMA_VERSION
from penstock.history.locations import sqlite_uri
from penstock.history.sqlite_errors import SQLITE_ERRORS, damaged, is_busy, refused

APPLICATION_ID = int.from_bytes(b"Pnst", "big")
MIGRATIONS = Path(__file__).parent / "migrations"


def inspect_file(path: str, newest: int = SCHEMA_VERSION) -> int:
    """Give the schema version of a database file, 0 when there is nothing in it yet.

    The file is opened for reading only, and nothing is created beside it unless SQLite needs
    its write-ahead log to see the truth.

    Raises:
        HistoryTooNew: a newer Penstock wrote it.
        HistoryCorrupt: it belongs to another program.
        HistoryUnavailable: it is a folder.
        sqlite3.Error: it cannot be read.
    """
    if os.path.isdir(path):
        raise refused(path, "it is a folder")
    if not os.path.exists(path) or not os.path.getsize(path):
        return 0
    options = "mode=ro" if os.path.exists(f"{path}-wal") else "mode=ro&immutable=1"
    connection = sqlite3.connect(sqlite_uri(path, options), uri=True, isolation_level=None)
    try:
        return check_version(connection, path, newest)
    finally:
        connection.close()


def check_version(connection: sqlite3.Connection, path: str, newest: int = SCHEMA_VERSION) -> int:
    """Give the schema version of an open database, 0 when there is nothing in it yet.

    Raises:
        HistoryTooNew: a newer Penstock wrote it.
        HistoryCorrupt: it belongs to another program.
        sqlite3.Error: it cannot be read.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if owner == 0 and version == 0 and not _has_tables(connection):
        return 0
    if owner != APPLICATION_ID:
        raise damaged(path, "it is the database of another program")
    if version > newest:
        raise _too_new(connection, path, version, newest)
    return int(version)


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None


def _too_new(connection: sqlite3.Connection, path: str, version: int, newest: int) -> HistoryTooNew:
    try:
        row = connection.execute(
            "SELECT penstock_version FROM flow_runs ORDER BY created_at DESC LIMIT 1"
        ).fetchone()
    except SQLITE_ERRORS:
        row = None  # that schema is not ours to know
    writer = row[0] if row and isinstance(row[0], str) else None
    least = f'"penstock>={writer}"' if writer else "penstock"
    return HistoryTooNew(
        f"{path} was written by {'penstock ' + writer if writer else 'a newer penstock'} "
        f"(schema {version}); this penstock reads up to schema {newest}.\n"
        f"  It was not touched. Upgrade with: pip install -U {least}"
    )


def migrate(
    connection: sqlite3.Connection,
    path: str,
    version: int,
    *,
    folder: Path = MIGRATIONS,
) -> None:
    """Bring a database from `version` to the newest schema, in one transaction.

    A database that holds something is copied to `<path>.schema-<version>.backup` before.

    Raises:
        HistoryError: a migration failed; the database is as it was.
        sqlite3.Error: another program holds the database, or the backup failed.
    """
    steps = _steps_after(version, folder)
    if not steps:
        return
    if version:
        _back_up(connection, f"{path}.schema-{version}.backup")
        if FAILPOINTS:
            hit("migrate.backup")
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _statements(steps):
            connection.execute(statement)
            if FAILPOINTS:
                hit("migrate.step")
        connection.execute("COMMIT")
    except SQLITE_ERRORS as problem:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if is_busy(problem):
            raise
        raise HistoryError(
            f"{path} could not be brought to schema {steps[-1][0]}: {problem}. It is as it was."
        ) from problem


def _steps_after(version: int, folder: Path) -> list[tuple[int, Path]]:
    numbered = [(int(file.name.split("_")[0]), file) for file in folder.glob("*_*.sql")]
    return sorted(step for step in numbered if step[0] > version)


def _statements(steps: list[tuple[int, Path]]) -> Iterator[str]:
    """Give the statements of migrations one by one, and those that say what was done."""
    for _, file in steps:
        statement = ""
        for line in file.read_text("utf-8").splitlines(keepends=True):
            statement += line
            # A semicolon may also stand in a comment, or between the steps of a trigger.
            if line.rstrip().endswith(";") and sqlite3.complete_statement(statement):
                yield statement
                statement = ""
        yield statement
    yield f"PRAGMA application_id = {APPLICATION_ID}"
    yield f"PRAGMA user_version = {steps[-1][0]}"


def _back_up(connection: sqlite3.Connection, place: str) -> None:
    """Copy by SQLite's own means: an ordinary copy could miss the write-ahead log."""
    copy = sqlite3.connect(sqlite_uri(place, "mode=rwc"), uri=True)
    try:
        connection.backup(copy)
    finally:
        copy.close()
