"""A program that dies while it migrates leaves the history as it was, or as it shall be."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from penstock.history.schema import MIGRATIONS, migrate

OPEN = (
    "import sys; from penstock.history.sqlite import SQLiteStore; SQLiteStore(sys.argv[1]).close()"
)
IDENTITY = "SELECT number, key, name FROM tasks"


def old_history(folder: Path) -> Path:
    """Make a history of the first schema that holds something."""
    first = folder / "first"
    first.mkdir()
    (script,) = MIGRATIONS.glob("0001_*.sql")
    (first / script.name).write_text(script.read_text())
    path = folder / "history.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, str(path), 0, folder=first)
        connection.execute(
            "INSERT INTO tasks (flow_run_id, number, key, name) VALUES (zeroblob(16), 1,"
            " 'a.b', 'b')"
        )
    return path


def open_store(path: Path, failpoints: str = "") -> int:
    """Open a history in a process of its own, which migrates it; gives its exit code."""
    variables = {"PENSTOCK_TESTING": "1", "PENSTOCK_FAILPOINTS": failpoints}
    command = [sys.executable, "-c", OPEN, str(path)]
    return subprocess.run(command, env={**os.environ, **variables}, timeout=30).returncode


@pytest.mark.parametrize(
    "point", ["migrate.backup=kill", *(f"migrate.step=kill@{n}" for n in (1, 5, 9))]
)
def test_migration_that_was_killed_is_made_by_the_next(tmp_path: Path, point: str) -> None:
    path = old_history(tmp_path)
    assert open_store(path, point) == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute(IDENTITY).fetchall() == [(1, "a.b", "b")]
    assert open_store(path) == 0
    backup = tmp_path / "history.db.schema-1.backup"
    for file in (path, backup):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute(IDENTITY).fetchall() == [(1, "a.b", "b")]
