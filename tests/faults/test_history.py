"""What a run does when its history is in trouble: rows H, F and L of the catalogue of faults."""

from __future__ import annotations

import ctypes
import itertools
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from time import monotonic, time_ns
from typing import Any

import pytest

from penstock import flow, get_run_logger, tags, task
from penstock.errors import HistoryCorrupt, HistoryUnavailable
from penstock.history import recorder as recorder_module
from penstock.history import sqlite as sqlite_module
from penstock.runtime import recording
from penstock.task_runners import ConcurrentTaskRunner
from tests.checker import History, problems_of
from tests.history.rows import let_go, locked_by_another_program, select

PATIENCE = 20.0


@task
def add_one(value: int) -> int:
    return value + 1


@flow
def chain(size: int) -> int:
    value = 0
    for _ in range(size):
        value = add_one(value)
    return value


# --- A1: killed --------------------------------------------------------------------------------

KILLED = """
import os, sys, time
from penstock import flow, task
ledger = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@task
def step(before, number):
    return number

@task
def note(before, number):
    os.write(ledger, b"%d %d\\n" % (number, time.time_ns()))

@flow
def long():
    value = None
    for number in range(20_000):
        value = step.submit(value, number)
        done = note.submit(value, number)
        if number % 100 == 0:
            done.wait()

long()
"""


@pytest.mark.parametrize("lines", [1_000, 4_000])
def test_a1_what_a_killed_process_leaves_is_closed_and_little_is_lost(
    lines: int, tmp_path: Path, penstock_home: Path
) -> None:
    ledger = tmp_path / "ledger"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(ledger)])
    pause = threading.Event()
    deadline = monotonic() + PATIENCE
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < lines:
        assert child.poll() is None
        assert monotonic() < deadline
        pause.wait(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait(PATIENCE)
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    noted = [int(line.split()[1]) for line in ledger.read_text().splitlines()]
    kept = [
        row["ended_at"]
        for row in History.read(path).task_runs.values()
        if row["state"] == "COMPLETED"
    ]
    assert kept or lines < 4_000  # which takes half a second
    lost = (noted[-1] - max(kept, default=noted[0])) / 1e9
    # 0.1 s on a quiet machine; here others may hold up the writing thread
    assert lost < 1.0, f"{lost:.3f} s were lost"


# --- H: SQLite ---------------------------------------------------------------------------------


def test_h1_locked_in_the_middle_the_run_goes_on_and_nothing_is_lost(penstock_home: Path) -> None:
    path = penstock_home / "history.db"
    chain(1)
    with locked_by_another_program(path) as holder:
        done_at: list[float] = []

        @flow
        def goes_on() -> int:
            value = 0
            for _ in range(2_000):
                value = add_one(value)
            done_at.append(monotonic())
            let_go(holder)
            return value

        began = monotonic()
        assert goes_on() == 2_000
        assert done_at[0] - began < 3
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) FROM task_runs") == [(2_001,)]


def test_h2_locked_for_too_long_the_flow_call_says_so(
    penstock_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = penstock_home / "history.db"
    chain(1)
    (recorder,) = recording._recorders.values()
    monkeypatch.setattr(recorder_module, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(recorder._store, "_patience", 0.1)
    with locked_by_another_program(path), ThreadPoolExecutor(1) as pool:
        with pytest.raises(HistoryUnavailable, match="has locked"):
            pool.submit(chain, 10).result(PATIENCE)
    assert chain(3) == 3  # and the next run records again
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) FROM flow_runs") == [(2,)]


def test_h3_disk_full_in_the_middle_is_waited_for(penstock_home: Path) -> None:
    chain(1)
    (recorder,) = recording._recorders.values()
    store = recorder._store
    assert isinstance(store, sqlite_module.SQLiteStore)
    assert store._connection is not None
    connection = store._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(chain, 2_000)
        pause = threading.Event()
        for _ in range(100):
            if len(recorder.entries) == 0 and not running.done():
                pause.wait(0.01)
        assert not running.done()
        connection.execute("PRAGMA max_page_count = 1000000").fetchone()
        assert running.result(PATIENCE) == 2_000
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) FROM task_runs") == [(2_001,)]


def test_h3_disk_full_for_too_long_is_told(
    penstock_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(1)
    monkeypatch.setattr(recorder_module, "PATIENCE_SECONDS", 0.2)
    (recorder,) = recording._recorders.values()
    connection = recorder._store._connection  # type: ignore[union-attr]
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    with pytest.raises(HistoryUnavailable, match="The disk of .* is full"):
        chain(2_000)
    recording.close()
    assert problems_of(penstock_home / "history.db") == []


def test_h7_damaged_history_is_told_before_the_flow_runs(penstock_home: Path) -> None:
    penstock_home.mkdir()
    path = penstock_home / "history.db"
    path.write_bytes(b"This is a letter, not a database. " * 200)
    ran = []

    @flow
    def never() -> None:
        ran.append(1)

    with pytest.raises(HistoryCorrupt, match="history.db"):
        never()
    assert not ran


def test_history_deleted_in_the_middle_is_made_anew(
    penstock_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = penstock_home / "history.db"

    @flow
    def loses_it() -> int:
        chain(10)
        (recorder,) = recording._recorders.values()
        recorder.flush()
        for file in penstock_home.iterdir():
            file.unlink()
        return chain(5)

    assert loses_it() == 5
    assert "moved or deleted while in use" in caplog.text
    assert select(path, "SELECT state FROM flow_runs WHERE flow = 'loses-it'") == [("COMPLETED",)]


@pytest.mark.parametrize("name", ["a b", "ü", "a?b", "a#b", "50% done", "%20", "x" * 240, "'\""])
def test_h13_any_name_of_a_folder_and_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name[:99] / f"{name}.db"
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", f"sqlite:///{path}")
    assert chain(2) == 2
    recording.close()
    assert problems_of(path) == []


# --- F: scale ----------------------------------------------------------------------------------


def test_f4_map_over_an_endless_iterable_keeps_little(penstock_home: Path) -> None:
    taken = 0

    def numbers() -> Any:
        nonlocal taken
        for number in itertools.count():
            taken = number
            yield number

    @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
    def endless() -> int:
        ahead = 0
        for count, future in enumerate(add_one.map(numbers(), max_in_flight=10)):
            future.result()
            ahead = max(ahead, taken - count)
            if count == 1_000:
                return ahead
        return -1

    assert 0 <= endless() < 30
    assert problems_of(penstock_home / "history.db") == []


def test_f9_every_task_run_of_a_task_of_its_own(penstock_home: Path) -> None:
    @flow
    def names() -> None:
        for number in range(2_000):
            add_one.with_options(name=f"task {number}")(number)

    names()
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) FROM tasks") == [(2_000,)]


# --- L, E: odd values --------------------------------------------------------------------------

ODD_TEXTS = {
    "NUL": "a\0b",
    "control": "\x01\x1b[31mred\x7f\x9b",
    "escape": "\x1b]0;title\x07",
    "surrogate": "\udc80lone\ud800",
    "bidi": "\u202eabc",
    "combining": "e" + "\u0301" * 10_000,
    "long": "x" * 1_000_000,
    "emoji": "👩‍👩‍👧",
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_l1_odd_text_everywhere(text: str, penstock_home: Path) -> None:
    @task(task_run_name=lambda: text)
    def odd(value: str) -> str:
        get_run_logger().warning("%s", text)
        return value

    @task
    def fails(value: str) -> None:
        raise ValueError(value)

    @flow(flow_run_name=lambda: text, version=text)
    def odd_flow(value: str) -> str:
        fails(text, return_state=True)
        return odd.submit(value).result()

    with tags(text):
        assert odd_flow(text) == text
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    with closing(sqlite3.connect(path)) as connection:
        for table, column, limit in [
            ("flow_runs", "name", 200),
            ("task_runs", "name", 200),
            ("task_runs", "message", 4_096),
            ("logs", "message", 32_768),
        ]:
            for (kept,) in connection.execute(f"SELECT {column} FROM {table}"):
                assert kept is None or len(kept) <= limit
                assert kept is None or ("\x1b" not in kept and "\0" not in kept)


class Colour(Enum):
    """An enumeration whose members say too much."""

    RED = 1


class Nasty:
    """An object that nobody should ever print."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class NastyError(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no str")


ODD_VALUES = {
    "2**64": 2**64,
    "-2**70": -(2**70),
    "10**5000": 10**5000,
    "Decimal": Decimal("1.10"),
    "datetime": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    "Path": Path("/tmp/\udc80"),
    "Enum": Colour.RED,
    "nan": float("nan"),
    "nasty": Nasty(),
    "lock": threading.Lock(),
    "pointer": ctypes.c_void_p(1),
}


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
def test_e15_odd_values_as_parameters_results_and_log_arguments(
    value: object, penstock_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @task
    def odd(value: object) -> object:
        get_run_logger().log(min(2**40, 2**70), "a number above all levels")
        if not isinstance(value, int | Nasty):
            get_run_logger().info("%s", value)
        return value

    @flow
    def odd_flow(value: object) -> bool:
        return odd.submit(value).result() is value

    assert odd_flow(value)
    assert problems_of(penstock_home / "history.db") == []


def test_e6_exception_that_cannot_be_printed(penstock_home: Path) -> None:
    @task
    def fails() -> None:
        raise NastyError(Nasty())

    @flow
    def odd_flow() -> str:
        return str(fails.submit().wait())

    assert "cannot be shown" in odd_flow()
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    ((detail,),) = select(path, "SELECT detail FROM task_runs")
    assert json.loads(detail)["error"]["type"].endswith("NastyError")


def test_e5_long_chain_of_causes_is_bounded(penstock_home: Path) -> None:
    @task
    def fails() -> None:
        problem = ValueError("the root")
        for number in range(2_000):
            outer = ValueError(f"number {number}")
            outer.__cause__ = problem
            problem = outer
        raise problem

    @flow
    def odd_flow() -> str:
        return str(fails.submit().wait())

    odd_flow()
    ((length,),) = select(penstock_home / "history.db", "SELECT length(detail) FROM task_runs")
    assert length < 3 * 65_536


SECRET = "hunter2-canary"


def test_e16_secrets_are_nowhere_in_the_file(
    penstock_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"postgres://ada:{SECRET}@host/db"

    @task(retries=1)
    def connect(url: str, password: str, options: dict[str, str]) -> None:
        get_run_logger().warning("connecting to %s with password=%s", url, password)
        raise ConnectionError(f"cannot reach {url} ({'x' * 5_000} token={SECRET})")

    @flow
    def leaky(url: str, password: str) -> None:
        connect(url, password, {"api_key": SECRET}, return_state=True)

    leaky(url, SECRET)
    recording.close()
    for file in penstock_home.iterdir():
        assert SECRET.encode() not in file.read_bytes(), file


def test_masking_takes_linear_time(penstock_home: Path) -> None:
    @flow
    def logs() -> None:
        for text in ("a_" * 500_000 + "=", "://" * 300_000 + "@", "://a:" * 200_000):
            get_run_logger().info(text)

    began = time_ns()
    logs()
    assert time_ns() - began < 5e9
