"""Making, refusing and migrating databases."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from penstock.errors import HistoryCorrupt, HistoryError, HistoryTooNew
from penstock.history import schema
from penstock.history.base import SCHEMA_VERSION
from penstock.history.schema import MIGRATIONS, inspect_file, migrate
from penstock.history.sqlite import SQLiteStore
from penstock.history.stores import open_reader
from tests.history.rows import flow_run_row, is_sound, new_id, one_flow_run, select
from tests.history.test_gate import PROCESSES, run_together

NEWER = SCHEMA_VERSION + 6

CREATOR = """
import os, sys
from penstock.history.sqlite import SQLiteStore
from tests.history.rows import one_flow_run

print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    store = SQLiteStore(f"{sys.argv[1]}/{number}/history.db")
    store.write(one_flow_run(os.urandom(16), 0))
    store.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a history of the present schema with one flow run of three task runs."""
    path = tmp_path / "history.db"
    with closing(SQLiteStore(path)) as store:
        group = one_flow_run(new_id(), 3)
        group.flow_runs = [flow_run_row(penstock_version="9.4.0")]
        store.write(group)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a copy of the migrations with one more, numbered after the newest."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    step = folder / f"{SCHEMA_VERSION + 1:04}_colour.sql"
    step.write_text("ALTER TABLE flow_runs ADD COLUMN colour TEXT;", "utf-8")
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)


def test_migrations_are_numbered_from_one_to_the_schema_version() -> None:
    numbers = sorted(int(file.name[:4]) for file in MIGRATIONS.glob("*.sql"))
    assert numbers == list(range(1, SCHEMA_VERSION + 1))


def test_newer_database_is_refused_untouched(path: Path) -> None:
    execute(path, f"PRAGMA user_version = {NEWER}")
    before, files = digest(path), sorted(path.parent.iterdir())
    for opener in (SQLiteStore, open_reader):
        with pytest.raises(HistoryTooNew) as caught:
            opener(str(path))
        text = str(caught.value)
        assert str(path) in text
        assert "written by penstock 9.4.0" in text
        assert f"schema {NEWER}" in text
        assert f"up to schema {SCHEMA_VERSION}" in text
        assert 'pip install -U "penstock>=9.4.0"' in text
        assert digest(path) == before
        if opener is SQLiteStore:
            assert sorted(path.parent.iterdir()) == files


def test_newer_database_in_use_is_refused_untouched(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as user:
        user.execute("PRAGMA wal_autocheckpoint = 0").fetchone()
        user.execute("DROP TABLE flow_runs")
        user.execute(f"PRAGMA user_version = {NEWER}")
        log = Path(f"{path}-wal")
        before = digest(path), digest(log)
        for opener in (SQLiteStore, open_reader):
            with pytest.raises(HistoryTooNew, match="written by a newer penstock"):
                opener(str(path))
            assert (digest(path), digest(log)) == before


@pytest.mark.parametrize(
    "statements",
    [
        ["PRAGMA application_id = 7"],
        ["PRAGMA application_id = 0"],
        ["PRAGMA application_id = 0", "PRAGMA user_version = 0"],
    ],
)
def test_database_of_another_program_is_refused_untouched(
    path: Path, statements: list[str]
) -> None:
    for statement in statements:
        execute(path, statement)
    before = digest(path)
    for opener in (SQLiteStore, open_reader):
        with pytest.raises(HistoryCorrupt, match="another program"):
            opener(str(path))
    assert digest(path) == before


def test_empty_file_becomes_a_history(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.touch()
    SQLiteStore(path).close()
    assert inspect_file(str(path)) == SCHEMA_VERSION


def test_database_without_tables_becomes_a_history(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    execute(path, "VACUUM")
    with closing(SQLiteStore(path)) as store:
        store.write(one_flow_run(new_id(), 1))
    assert is_sound(path)


def test_processes_that_create_at_once_agree(tmp_path: Path) -> None:
    histories = 10
    run_together(CREATOR, str(tmp_path), str(histories))
    for number in range(histories):
        path = tmp_path / str(number) / "history.db"
        assert select(path, "SELECT count(*) FROM flow_runs") == [(PROCESSES,)]
        assert is_sound(path)


def test_older_database_is_backed_up_and_migrated(path: Path, folder: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, str(path), SCHEMA_VERSION, folder=folder)
    assert select(path, "SELECT name, colour FROM flow_runs") == [("brave-otter", None)]
    assert select(path, "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]
    backup = Path(f"{path}.schema-{SCHEMA_VERSION}.backup")
    assert inspect_file(str(backup)) == SCHEMA_VERSION
    assert select(backup, "SELECT count(*) FROM task_runs") == [(3,)]


def test_failed_migration_leaves_the_database_as_it_was(path: Path, folder: Path) -> None:
    step = folder / f"{SCHEMA_VERSION + 2:04}_broken.sql"
    step.write_text("DROP TABLE logs; SELECT nonsense;", "utf-8")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(HistoryError, match=r"could not be brought to schema .*as it was"):
            migrate(connection, str(path), SCHEMA_VERSION, folder=folder)
    assert inspect_file(str(path)) == SCHEMA_VERSION
    assert select(path, "SELECT count(*) FROM logs") == [(0,)]
    assert is_sound(path)


MIGRATOR = """
import os, sys
from pathlib import Path
from penstock.history import base, schema, sqlite
from tests.history.rows import one_flow_run

newest = base.SCHEMA_VERSION + 1
sqlite.SCHEMA_VERSION = newest
sqlite.migrate.__kwdefaults__["folder"] = Path(sys.argv[2])
sqlite.inspect_file.__defaults__ = (newest,)
print("ready", flush=True)
sys.stdin.readline()
store = sqlite.SQLiteStore(sys.argv[1])
store.write(one_flow_run(os.urandom(16), 0))
store.close()
"""


def test_of_processes_that_migrate_at_once_one_does(path: Path, folder: Path) -> None:
    run_together(MIGRATOR, str(path), str(folder), number=4)
    assert select(path, "SELECT count(*) FROM flow_runs WHERE colour IS NULL") == [(5,)]
    assert select(path, "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]
    assert schema.inspect_file(f"{path}.schema-{SCHEMA_VERSION}.backup") == SCHEMA_VERSION
