"""The writing side: what a group leaves in the database."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock.core.previews import preview
from penstock.errors import HistoryError
from penstock.history import statements
from penstock.history.base import (
    FLOW_RUN_COLUMNS,
    LOG_COLUMNS,
    OUTSIDE_FLOWS,
    SCHEMA_VERSION,
    TASK_RUN_COLUMNS,
    Group,
    number_outside_flows,
)
from penstock.history.schema import APPLICATION_ID
from penstock.history.sqlite import SQLiteStore
from penstock.history.statements import Insertion
from penstock.history.stores import open_reader, open_store
from tests.history.rows import (
    changed,
    flow_run_row,
    is_sound,
    log_row,
    new_id,
    one_flow_run,
    select,
    task_run_row,
)

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


def test_columns_are_those_of_the_contract(store: SQLiteStore, path: Path) -> None:
    for table, columns in (("flow_runs", FLOW_RUN_COLUMNS), ("task_runs", TASK_RUN_COLUMNS)):
        found = select(path, f"SELECT name FROM pragma_table_info('{table}')")
        assert tuple(name for (name,) in found) == columns


def test_rows_come_back_as_they_were(store: SQLiteStore, path: Path) -> None:
    flow_run, task_run = flow_run_row(), task_run_row(new_id(), upstream=new_id() + new_id())
    store.write(Group(flow_runs=[flow_run], task_runs=[task_run]))
    assert select(path, "SELECT * FROM flow_runs") == [flow_run]
    assert select(path, "SELECT * FROM task_runs") == [task_run]


@pytest.mark.parametrize("number", [1, 2, 4, 5, 100, 1_638, 1_639, 5_000])
def test_groups_of_any_size_are_complete(store: SQLiteStore, path: Path, number: int) -> None:
    flow_run_id = new_id()
    group = one_flow_run(flow_run_id, number)
    group.logs = [log_row(flow_run_id, str(line)) for line in range(number)]
    store.write(group)
    assert select(path, "SELECT count(*), count(DISTINCT id) FROM task_runs") == [(number, number)]
    lines = select(path, "SELECT message FROM logs ORDER BY position")
    assert [line for (line,) in lines] == [str(line) for line in range(number)]


def test_group_written_twice_changes_nothing(store: SQLiteStore, path: Path) -> None:
    flow_run_id = new_id()
    group = one_flow_run(flow_run_id, 3)
    group.logs = [log_row(flow_run_id, "once")]
    tables = ("flow_runs", "tasks", "task_runs", "logs", "counts")
    store.write(group)
    before = [select(path, f"SELECT * FROM {table}") for table in tables]
    store.write(group)
    assert group.written
    assert [select(path, f"SELECT * FROM {table}") for table in tables] == before


def test_empty_group_is_taken(store: SQLiteStore) -> None:
    store.write(Group())


@pytest.mark.parametrize(("seq", "message"), [(4, "old"), (5, "old"), (6, "new")])
def test_only_a_newer_row_replaces(store: SQLiteStore, path: Path, seq: int, message: str) -> None:
    row = task_run_row(new_id(), state="RUNNING", seq=5, message="old")
    newer = changed(row, TASK_RUN_COLUMNS, seq=seq, message="new")
    store.write(Group(task_runs=[row]))
    store.write(Group(task_runs=[newer]))
    assert select(path, "SELECT message FROM task_runs") == [(message,)]


def test_newest_of_one_group_wins(store: SQLiteStore, path: Path) -> None:
    row = task_run_row(new_id(), state="PENDING", seq=1)
    rows = [changed(row, TASK_RUN_COLUMNS, seq=n, message=str(n)) for n in (1, 2, 3)]
    store.write(Group(task_runs=rows))
    assert select(path, "SELECT seq, message FROM task_runs") == [(3, "3")]


@pytest.mark.parametrize("final", FINAL)
def test_final_state_is_never_replaced(store: SQLiteStore, path: Path, final: str) -> None:
    task_run = task_run_row(new_id(), state=final, seq=1)
    flow_run = flow_run_row(state=final)
    store.write(Group(flow_runs=[flow_run], task_runs=[task_run]))
    other = {"state": "RUNNING", "seq": 9}
    store.write(
        Group(
            flow_runs=[changed(flow_run, FLOW_RUN_COLUMNS, **other)],
            task_runs=[changed(task_run, TASK_RUN_COLUMNS, **other)],
        )
    )
    for table in ("flow_runs", "task_runs"):
        assert select(path, f"SELECT state, seq FROM {table}") == [(final, 1)]


@pytest.mark.parametrize("table", ["task_runs", "flow_runs"])
@pytest.mark.parametrize(
    "change",
    ["state = 'RUNNING'", "state = 'FAILED'", "seq = seq + 1", "ended_at = 1", "result = x'00'"],
)
def test_database_itself_refuses_to_change_a_final_state(
    store: SQLiteStore, path: Path, table: str, change: str
) -> None:
    store.write(
        Group(flow_runs=[flow_run_row(state="COMPLETED")], task_runs=[task_run_row(new_id())])
    )
    with closing(sqlite3.connect(path)) as connection:
        with pytest.raises(sqlite3.IntegrityError, match="final state of a .* never changes"):
            connection.execute(f"UPDATE {table} SET {change}")


def test_counts_are_absolute(store: SQLiteStore, path: Path) -> None:
    id = new_id()
    store.write(Group(counts=[(id, 1, "RUNNING", 3), (id, 1, "COMPLETED", 1)]))
    store.write(Group(counts=[(id, 1, "RUNNING", 0), (id, 1, "COMPLETED", 4)]))
    found = select(path, "SELECT state, number FROM counts ORDER BY state")
    assert found == [("COMPLETED", 4), ("RUNNING", 0)]


def test_group_that_fails_leaves_nothing(store: SQLiteStore, path: Path) -> None:
    flow_run_id = new_id()
    group = one_flow_run(flow_run_id, 2)
    group.counts.append((flow_run_id, 2, None, 1))  # a state is required
    with pytest.raises(HistoryError, match="NOT NULL"):
        store.write(group)
    assert not group.written
    assert select(path, "SELECT * FROM task_runs") == []
    group.counts.pop()
    store.write(group)
    assert len(select(path, "SELECT * FROM task_runs")) == 2


@pytest.mark.parametrize("value", [1 << 63, -(1 << 70), 10**5000, object()], ids=range(4))
def test_value_that_does_not_fit_does_not_lose_the_group(
    store: SQLiteStore, path: Path, value: Any
) -> None:
    store.write(Group(flow_runs=[flow_run_row(version=value), flow_run_row(version="1")]))
    rows = select(path, "SELECT version FROM flow_runs ORDER BY id")
    assert rows == [(preview(value),), ("1",)]


ODD_TEXTS = ["\udc80 lone", "\x00", "a\x00b", "\x1b[31m", "é́́́", "\u202e", "", "😀"]


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_text_does_not_lose_the_group(store: SQLiteStore, path: Path, text: str) -> None:
    store.write(Group(flow_runs=[flow_run_row(name=text)], logs=[log_row(None, text)]))
    kept = text.replace("\udc80", "\\udc80")
    assert select(path, "SELECT name FROM flow_runs") == [(kept,)]
    assert select(path, "SELECT message FROM logs") == [(kept,)]


def test_task_outside_flows_is_found_by_a_number_from_its_key(
    store: SQLiteStore, path: Path
) -> None:
    number = number_outside_flows("census.load")
    store.write(
        Group(
            tasks=[(OUTSIDE_FLOWS, number, "census.load", "load", None)],
            task_runs=[task_run_row(None, task=number)],
        )
    )
    with closing(open_reader(str(path))) as reader:
        ((id,),) = select(path, "SELECT hex(id) FROM task_runs")
        found = reader.find_task_run(id)
    assert (found["task"], found["name"], found["flow_run_id"]) == ("load", "load-0", None)


def test_numbers_outside_flows_differ() -> None:
    numbers = {number_outside_flows(f"module_{n}.task_{n * 7}") for n in range(20_000)}
    assert len(numbers) == 20_000
    assert all(0 <= number < 1 << 63 for number in numbers)


def test_file_is_marked_and_in_wal_mode(store: SQLiteStore, path: Path) -> None:
    assert select(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert select(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert select(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(("power_safe", "level"), [(False, 1), (True, 2)])
def test_power_safety_sets_synchronous(path: Path, power_safe: bool, level: int) -> None:
    with closing(SQLiteStore(path, power_safe)) as store:
        connection = store._connection
        assert connection is not None
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_closing_tidies_up_and_can_be_repeated(path: Path) -> None:
    store = SQLiteStore(path)
    store.write(one_flow_run(new_id(), 3))
    store.close()
    store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["history.db", "history.db.gate"]
    with pytest.raises(HistoryError, match="closed"):
        store.write(Group())


def test_missing_folders_are_made_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "history.db"
    SQLiteStore(path).close()
    for folder in (path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_log_is_carried_over_when_it_grows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.history.sqlite._CHECKPOINT_PAGES", 20)
    with closing(SQLiteStore(path)) as store:
        for _ in range(50):
            store.write(one_flow_run(new_id(), 100))
        assert os.path.getsize(f"{path}-wal") < 100 * 4096
    assert is_sound(path)


def test_stores_are_opened_by_url(path: Path) -> None:
    with closing(open_store(f"sqlite:///{path}", power_safe=True)) as store:
        store.write(one_flow_run(new_id(), 1))
    with closing(open_reader(f"sqlite:///{path}")) as reader:
        assert reader.find_flow_run("@last")["name"] == "brave-otter"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://user:secret@host/db", "'postgresql' is not supported yet"),
        ("mysql://host", "'mysql' is no kind of history"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://host/file.db", "names no file"),
    ],
)
def test_url_that_names_no_history_is_refused(url: str, text: str) -> None:
    for opener in (open_store, open_reader):
        with pytest.raises(HistoryError, match=text) as caught:
            opener(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("number", range(0, 60, 7))
def test_insertion_covers_every_row_once_in_order(repeatable: bool, number: int) -> None:
    insertion = Insertion("write_logs", LOG_COLUMNS, 7 * 10, repeatable=repeatable)
    rows = [tuple(range(7 * n, 7 * n + 7)) for n in range(number)]
    values = [value for _, values in insertion.steps(rows) for value in values]
    assert values[: 7 * number] == list(range(7 * number))
    assert repeatable or len(values) == 7 * number
    assert all(text.count("?") == len(values) for text, values in insertion.steps(rows))


def test_statements_stay_the_same_object() -> None:
    insertion = Insertion("write_logs", LOG_COLUMNS, 700, repeatable=True)
    texts = [text for _ in range(2) for text, _ in insertion.steps([(0,) * 7] * 3)]
    assert texts[0] is texts[1]


def test_every_query_file_is_used() -> None:
    package = Path(statements.__file__).parent
    sources = "".join(file.read_text("utf-8") for file in package.glob("*.py"))
    for file in (package / "queries").glob("*.sql"):
        assert f'"{file.stem}"' in sources


FORK = """
import os, sys
from penstock.errors import HistoryError
from penstock.history.sqlite import SQLiteStore
from tests.history.rows import new_id, one_flow_run

path = sys.argv[1]
store = SQLiteStore(path)
store.write(one_flow_run(new_id(), 10))
child = os.fork()
if child == 0:
    try:
        store.write(one_flow_run(new_id(), 10))
    except HistoryError as problem:
        assert "opened by process" in str(problem), problem
    else:
        os._exit(3)
    store.close()
    own = SQLiteStore(path)
    own.write(one_flow_run(os.urandom(16), 0))
    own.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
store.write(one_flow_run(new_id(), 10))
store.close()
"""


def test_forked_child_writes_only_by_a_store_of_its_own(path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORK, str(path)], check=True, timeout=30)
    assert select(path, "SELECT count(*) FROM task_runs") == [(20,)]
    assert select(path, "SELECT count(*) FROM flow_runs") == [(3,)]
    assert is_sound(path)


@pytest.mark.parametrize("newest_first", [False, True])
def test_rows_with_and_without_rare_columns_in_one_group(
    store: SQLiteStore, path: Path, newest_first: bool
) -> None:
    waiting, done = new_id(), new_id()
    rows = [
        task_run_row(new_id(), id=waiting, seq=1, state="SCHEDULED", message="why", ended_at=None),
        task_run_row(new_id(), id=waiting, seq=2, state="RUNNING", ended_at=None),
        task_run_row(new_id(), id=done, seq=3, state="RUNNING", ended_at=None),
        task_run_row(new_id(), id=done, seq=4, state="FAILED", message="no", detail="{}"),
    ]
    store.write(Group(task_runs=rows[::-1] if newest_first else rows))
    query = "SELECT state, seq, message, detail FROM task_runs ORDER BY id"
    assert select(path, query) == [("RUNNING", 2, None, None), ("FAILED", 4, "no", "{}")]
