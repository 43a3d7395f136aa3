"""A run whose driver is lost is stale, and says since when and why; nobody has to write that."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from penstock.errors import HistoryCorrupt, PenstockError
from penstock.history.base import Group
from penstock.history.leases import STALE_SECONDS
from penstock.history.owners import host_name, process_started_at
from penstock.history.reading import SQLiteReader
from penstock.history.schema import APPLICATION_ID, MIGRATIONS
from penstock.history.sqlite import SQLiteStore
from penstock.history.staleness import Staleness, staleness_of
from tests.history.rows import START, flow_run_row, new_id, task_run_row

SECOND = 1_000_000_000
NOBODY = 2**22 + 1
HERE = {"host": host_name(), "pid": os.getpid(), "pid_started_at": process_started_at(os.getpid())}
GONE = HERE | {"pid": NOBODY}
ELSEWHERE = {"host": "node7", "pid": 1, "pid_started_at": 1}
NOW = START + 60 * SECOND


def beat(driver: dict[str, Any], seconds_ago: float) -> dict[str, Any]:
    return driver | {"beat_at": NOW - int(seconds_ago * SECOND)}


@pytest.mark.parametrize(
    ("flow_run", "lease", "expected"),
    [
        (HERE, None, None),
        (GONE, None, Staleness(None, f"its process {NOBODY} is gone")),
        (ELSEWHERE, None, None),
        # the lease knows better than the flow run's row, which an earlier driver may have written
        (GONE, beat(HERE, 60), None),
        (HERE, beat(GONE, 1), Staleness(NOW - SECOND, f"its process {NOBODY} is gone")),
        (GONE, beat(ELSEWHERE, 3), None),
        (HERE, beat(ELSEWHERE, STALE_SECONDS), None),
        (
            HERE,
            beat(ELSEWHERE, 12.5),
            Staleness(NOW - 12 * SECOND - SECOND // 2, "no sign of life from node7 for 12 s"),
        ),
        # a clock that goes ahead elsewhere
        (ELSEWHERE, beat(ELSEWHERE, -3600), None),
        (
            HERE,
            beat({"host": None, "pid": None, "pid_started_at": None}, 20),
            Staleness(NOW - 20 * SECOND, "no sign of life from its host for 20 s"),
        ),
        # a pid out of a stranger's file
        (HERE | {"pid": "../../etc"}, None, None),
    ],
)
def test_driver_is_asked_or_its_last_sign_of_life_decides(
    flow_run: dict[str, Any], lease: dict[str, Any] | None, expected: Staleness | None
) -> None:
    assert staleness_of(flow_run, lease, NOW) == expected


def write_lease(path: Path, flow_run_id: bytes, driver: dict[str, Any], beat_at: Any) -> None:
    values = (flow_run_id, 1, 7, beat_at, *driver.values())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def test_run_elsewhere_is_stale_by_its_last_sign_of_life(
    store: SQLiteStore, reader: SQLiteReader, path: Path
) -> None:
    id = new_id()
    store.write(Group(flow_runs=[flow_run_row(id, **ELSEWHERE)]))
    write_lease(path, id, ELSEWHERE, time.time_ns())
    run = reader.find_flow_run("@last")
    assert (run["stale"], run["stale_since"], run["stale_reason"]) == (False, None, None)
    write_lease(path, id, ELSEWHERE, START + 31 * SECOND)
    run = reader.find_flow_run("@last")
    assert run["stale"] is True
    assert run["stale_since"] == "2023-11-14T22:13:51.000000+00:00"
    assert run["stale_reason"].startswith("no sign of life from node7 for ")
    assert run["duration"] == pytest.approx(31, abs=0.001)  # not up to now: nobody knows
    assert reader.flow_runs()[0]["stale"] is True


def test_subflow_run_lives_by_the_lease_of_its_outermost_flow_run(
    store: SQLiteStore, reader: SQLiteReader, path: Path
) -> None:
    top, middle, bottom = new_id(), new_id(), new_id()
    calls = [task_run_row(top, state="RUNNING"), task_run_row(middle, state="RUNNING")]
    store.write(
        Group(
            flow_runs=[
                flow_run_row(top, **ELSEWHERE),
                flow_run_row(middle, parent_task_run_id=calls[0][0], **GONE),
                flow_run_row(
                    bottom, parent_task_run_id=calls[1][0], created_at=START + 1, **ELSEWHERE
                ),
            ],
            task_runs=calls,
        )
    )
    # no lease: its own row's process counts
    assert [run["stale"] for run in reader.flow_runs()] == [False, True, False]
    write_lease(path, top, ELSEWHERE, time.time_ns())
    assert not any(run["stale"] for run in reader.flow_runs())
    write_lease(path, top, ELSEWHERE, START)
    assert all(run["stale"] for run in reader.flow_runs())


def test_final_run_is_never_stale(store: SQLiteStore, reader: SQLiteReader, path: Path) -> None:
    id = new_id()
    store.write(Group(flow_runs=[flow_run_row(id, state="COMPLETED", ended_at=NOW, **GONE)]))
    write_lease(path, id, GONE, START)
    run = reader.find_flow_run("@last")
    assert (run["stale"], run["stale_since"], run["stale_reason"]) == (False, None, None)


def test_parents_in_a_circle_end(store: SQLiteStore, reader: SQLiteReader) -> None:
    id = new_id()
    call = task_run_row(id)
    store.write(Group(flow_runs=[flow_run_row(id, parent_task_run_id=call[0])], task_runs=[call]))
    assert reader.flow_runs()[0]["stale"] is False


def test_lease_of_odd_values_is_damage(
    store: SQLiteStore, reader: SQLiteReader, path: Path
) -> None:
    id = new_id()
    store.write(Group(flow_runs=[flow_run_row(id)]))
    write_lease(path, id, ELSEWHERE, "soon")
    with pytest.raises(HistoryCorrupt):
        reader.find_flow_run("@last")


def test_schema_without_leases_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((MIGRATIONS / "0001_runs.sql").read_text("utf-8"))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute(
            "INSERT INTO flow_runs (id, seq, name, flow, state, created_at, host, pid) "
            "VALUES (?, 1, 'old', 'census', 'RUNNING', ?, ?, ?)",
            (new_id(), START, host_name(), NOBODY),
        )
        connection.commit()
    with closing(SQLiteReader(path)) as reader:
        assert reader.find_flow_run("old")["stale"] is True


DRIVER = """
import time
from penstock import flow, task

@task
def nap():
    time.sleep(60)

@flow
def sleepy():
    nap.submit().wait()

sleepy()
"""


def test_killed_driver_is_noticed_within_two_seconds(penstock_home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DRIVER]) as driver:
        try:
            run = _when_running(penstock_home / "history.db")
            assert run["stale"] is False
        finally:
            driver.send_signal(signal.SIGKILL)
            killed_at = time.monotonic()
    with closing(SQLiteReader(penstock_home / "history.db")) as reader:
        run = reader.find_flow_run("@last")
    assert run["stale"] is True
    assert run["stale_reason"] == f"its process {run['pid']} is gone"
    assert time.monotonic() - killed_at < 2


def _when_running(path: Path) -> dict[str, Any]:
    """Give the latest flow run as soon as a task run of it is recorded as running."""
    give_up_at = time.monotonic() + 20
    pause = Event()
    while time.monotonic() < give_up_at:
        if path.exists():
            try:
                with closing(SQLiteReader(path)) as reader:
                    run = reader.find_flow_run("@last")
                    if run["counts"].get("RUNNING"):
                        return run
            except PenstockError:  # it is being made
                pass
        pause.wait(0.02)
    raise AssertionError("the driver did not start its task")
