"""Recorded runs in Python: what `runs()` and `run()` give."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import penstock
from penstock import flow, get_run_logger, tags, task
from penstock.cli.app import run_app
from penstock.errors import (
    AmbiguousRun,
    FailedRun,
    HistoryUnavailable,
    InvalidOptionError,
    ResultCorrupt,
    ResultMissing,
    ResultNotKept,
    RunNotFound,
    UnfinishedRun,
    UpstreamFailed,
)
from penstock.history.base import Group
from penstock.records import FlowRunRecord, RunList, TaskRunRecord
from penstock.states import StateType
from tests.cli.histories import (
    OTHER_ID,
    RUN_ID,
    SECOND,
    START,
    flow_run,
    sample_group,
    task_run,
    write_history,
)


@pytest.fixture
def history(penstock_home: Path) -> Path:
    write_history(penstock_home, sample_group())
    return penstock_home / "history.db"


@task
def load(number: int) -> int:
    get_run_logger().info("loading %s", number)
    if number == 2:
        raise ValueError("bad <date>")
    return 10 * number


@task
def add(numbers: list[int]) -> int:
    return sum(numbers)


@flow
def inner(number: int) -> int:
    return load(number)


@flow
def census(size: int) -> Any:
    get_run_logger().warning("begin")
    loaded = load.map(range(size))
    return add.submit(loaded), inner(1)


def run_census(size: int = 2) -> FlowRunRecord:
    with tags("nightly"):
        census(size, return_state=True)
    return penstock.run("@last")


def test_flow_run_tells_what_was_recorded() -> None:
    before = datetime.now(UTC)
    record = run_census()
    assert isinstance(record.id, UUID)
    assert record.flow == "census"
    assert record.name == penstock.run(record.id).name
    assert record.state.is_completed()
    assert record.state.data is None
    assert [str(state.type) for state in record.states] == ["PENDING", "RUNNING", "COMPLETED"]
    assert record.parameters == {"size": "2"}
    assert record.tags == {"nightly"}
    assert record.runner == "ConcurrentTaskRunner"
    assert record.attempt == 1
    assert record.counts == {"COMPLETED": 4}
    assert (record.is_stale, record.stale_since, record.stale_reason) == (False, None, None)
    assert record.error is None
    assert record.created_at is not None
    assert record.started_at is not None
    assert record.ended_at is not None
    assert record.created_at.tzinfo is UTC
    assert before - timedelta(seconds=1) <= record.created_at <= record.started_at
    assert record.duration == pytest.approx(
        (record.ended_at - record.started_at).total_seconds(), abs=1e-4
    )
    assert repr(record).startswith(f"<FlowRunRecord '{record.name}' of 'census' Completed(")


def test_task_run_tells_what_was_recorded() -> None:
    record = run_census(3)
    failed = record.task_run("load-2")
    assert (failed.name, failed.task, failed.number, failed.attempt) == ("load-2", "load", 2, 1)
    assert failed.flow_run_id == record.id
    assert failed.state.is_failed()
    assert failed.parameters == {"number": "2"}
    assert failed.tags == {"nightly"}
    assert failed.error is not None
    assert failed.error["type"].endswith("ValueError")
    assert 'raise ValueError("bad <date>")' in failed.error["traceback"]
    assert len(failed.identity or "") == 32
    assert failed.duration is not None
    assert failed.subflow_run_id is None
    loaded = [record.task_run(f"load-{n}").id for n in range(3)]
    assert record.task_run("add-0").upstream == tuple(loaded)
    assert record.task_run("add-0").state.name == "NotReady"
    assert repr(failed).startswith("<TaskRunRecord 'load-2' Failed(")


def test_records_say_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    record = run_census(3)
    assert run_app(["show", str(record.id), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flow_run"] == record.to_dict()
    assert run_app(["tasks", str(record.id), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["task_runs"]
    assert told == [task_run.to_dict() for task_run in record.task_runs()]


def test_task_runs_are_chosen_by_state_and_name() -> None:
    record = run_census(3)
    assert [run.name for run in record.task_runs(name="load")] == ["load-0", "load-1", "load-2"]
    assert [run.name for run in record.task_runs(state="failed")] == ["load-2"]
    assert [run.name for run in record.task_runs(state=StateType.FAILED)] == ["load-2"]
    assert list(record.task_runs(state="crashed")) == []
    with pytest.raises(InvalidOptionError, match="state is 'lost'; it must be one of scheduled"):
        record.task_runs(state="lost")


def test_task_run_is_found_by_name_and_id() -> None:
    @task(task_run_name="row {number}-7")
    def named(number: int) -> int:
        return number

    @flow
    def naming() -> None:
        named(1)
        named(2)

    naming()
    record = penstock.run("@last")
    second = record.task_run("named-1")
    assert second.name == "row 2-7"
    assert record.task_run("row 2-7") == second
    assert record.task_run(second.id) == second
    assert record.task_run(second.id.hex) == second
    with pytest.raises(RunNotFound):
        record.task_run("named-2")
    naming()
    with pytest.raises(RunNotFound, match="of another flow run"):
        penstock.run("@last").task_run(second.id)


def test_results_are_loaded() -> None:
    record = run_census()
    assert record.task_run("load-1").result() == 10
    assert record.task_run("add-0").result() == 10
    assert record.result() == (10, 10)


def test_result_that_was_not_kept_says_why() -> None:
    @task
    def large() -> bytes:
        return bytes(20_000)

    @flow
    def makes() -> int:
        return len(large())

    makes()
    record = penstock.run("@last")
    assert record.result() == 20_000
    with pytest.raises(ResultNotKept, match="'large-0' was not kept: .* 16 KiB .*persist_result"):
        record.task_run("large-0").result()


def test_stored_result_is_loaded_or_missed(penstock_home: Path) -> None:
    @task(persist_result=True)
    def large() -> bytes:
        return bytes(50_000)

    @flow
    def makes() -> None:
        large()

    makes()
    found = penstock.run("@last").task_run("large-0")
    assert found.result() == bytes(50_000)
    (stored,) = [path for path in (penstock_home / "results").rglob("*") if path.is_file()]
    content = stored.read_bytes()
    stored.write_bytes(content[:-1] + b"x")
    with pytest.raises(ResultCorrupt, match="not what was stored"):
        found.result()
    stored.unlink()
    with pytest.raises(ResultMissing):
        found.result()


def test_result_of_what_did_not_complete_raises() -> None:
    record = run_census(3)
    with pytest.raises(FailedRun, match="ValueError: bad <date>") as caught:
        record.task_run("load-2").result()
    assert 'raise ValueError("bad <date>")' in caught.value.__notes__[0]
    with pytest.raises(UpstreamFailed):
        record.task_run("add-0").result()


def test_reading_unpickles_nothing_but_results(history: Path) -> None:
    marker = history.parent / "executed"
    evil = pickle.dumps(_Touch(str(marker)))
    row = task_run(OTHER_ID, 0, result=evil, result_codec="pickle")
    write_history(history.parent, Group(tasks=[(OTHER_ID.bytes, 0, "m.x", "x", None)]))
    write_history(history.parent, Group(task_runs=[row]))
    record = penstock.run("calm-heron")
    (found,) = record.task_runs()
    record.to_pandas(), found._repr_html_(), found.to_dict(), list(found.logs())
    found.refresh()
    assert not marker.exists()
    found.result()
    assert marker.exists()


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def test_logs_by_level_and_task() -> None:
    record = run_census(3)
    lines = [line for line in record.logs() if line.logger != "penstock.flow_runs.internal"]
    messages = [line.message for line in lines]
    assert "begin" in messages
    assert [m for m in messages if m.startswith("loading")] == [f"loading {n}" for n in range(3)]
    (warning,) = [line for line in record.logs(level="warning") if line.message == "begin"]
    assert (warning.level, warning.flow_run_id, warning.task_run_id) == ("WARNING", record.id, None)
    assert warning.at.tzinfo is UTC
    assert str(warning).endswith("WARNING  begin")
    of_task = [line.message for line in record.logs(task="load") if "loading" in line.message]
    assert of_task == ["loading 0", "loading 1", "loading 2"]
    one = [line.message for line in record.logs(task="load-1") if "loading" in line.message]
    assert one == ["loading 1"]
    assert one == [line.message for line in record.task_run("load-1").logs(level=20)]
    with pytest.raises(RunNotFound):
        record.logs(task="load-9")
    with pytest.raises(InvalidOptionError, match="level is 'loud'"):
        list(record.logs(level="loud"))


def test_subflow_runs() -> None:
    record = run_census()
    (child,) = record.subflow_runs()
    assert child.flow == "inner"
    assert child.parameters == {"number": "1"}
    assert record.task_run("inner-0").subflow_run_id == child.id
    assert list(child.subflow_runs()) == []
    assert {run.id for run in penstock.runs()} == {record.id, child.id}


def test_runs_are_chosen_and_paged(history: Path) -> None:
    assert [run.name for run in penstock.runs()] == ["calm-heron", "brave-otter"]
    assert [run.id for run in penstock.runs(state="failed")] == [RUN_ID]
    assert [run.id for run in penstock.runs(flow="census")] == [OTHER_ID]
    assert [run.id for run in penstock.runs(tag="eu")] == [RUN_ID]
    (newest,) = penstock.runs(limit=1)
    assert [run.id for run in penstock.runs(before=newest.created_at)] == [RUN_ID]
    assert isinstance(penstock.runs(), RunList)
    with pytest.raises(InvalidOptionError, match="limit is 0"):
        penstock.runs(limit=0)


def test_database_is_named_by_path_or_url(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.environ["PENSTOCK_HOME"] = str(tmp_path / "other")
    assert penstock.runs() == []
    with pytest.raises(HistoryUnavailable, match="no history yet"):
        penstock.run("@last")
    with pytest.raises(HistoryUnavailable, match="no history yet"):
        penstock.runs(database=tmp_path / "none.db")
    for database in (history, str(history), f"sqlite:///{history}"):
        assert len(penstock.runs(database=database)) == 2
    monkeypatch.chdir(history.parent)
    record = penstock.run("7f3a", database="history.db")
    monkeypatch.chdir("/")
    assert len(list(record.task_runs())) == 24


def test_run_by_reference(history: Path) -> None:
    for reference in (RUN_ID, str(RUN_ID), "7f3a", "brave-otter", "@last-failed"):
        assert penstock.run(reference).id == RUN_ID
    with pytest.raises(RunNotFound, match="no flow run 'nobody'"):
        penstock.run("nobody")
    twin = UUID(int=RUN_ID.int + 1)
    write_history(history.parent, Group(flow_runs=[flow_run(twin, name="twin")]))
    with pytest.raises(AmbiguousRun, match="fits more than one"):
        penstock.run("7f3a")


def test_run_that_goes_on_is_read_and_refreshed() -> None:
    begun, go_on = threading.Event(), threading.Event()

    @task
    def waits() -> int:
        begun.set()
        go_on.wait(30)
        return 7

    @flow
    def slow() -> int:
        future = waits.submit()
        begun.wait(30)
        reader.start()
        return future.result()

    seen: list[Any] = []

    def read() -> None:
        while not penstock.runs():  # until the recorder has written it
            pass
        record = penstock.run("@last")
        while not record.counts.get("RUNNING"):
            record.refresh()
        (task_run,) = record.task_runs()
        seen.append((record, task_run, record.state.is_running(), task_run.duration))
        try:
            task_run.result()
        except UnfinishedRun as problem:
            seen.append(problem)
        go_on.set()

    reader = threading.Thread(target=read)
    assert slow() == 7
    reader.join()
    (record, task_run, was_running, duration), problem = seen
    assert was_running
    assert duration > 0
    assert "not finished" in str(problem)
    assert task_run.state.is_running()  # a snapshot
    assert task_run.result() == 7  # which reads again what had not ended
    assert task_run.state.is_completed()
    record.refresh()
    assert record.counts == {"COMPLETED": 1}


def test_iterators_close_what_they_opened(history: Path) -> None:
    record = penstock.run("7f3a")
    before = _open_files(history)
    task_runs = record.task_runs()
    assert isinstance(next(task_runs), TaskRunRecord)
    assert _open_files(history) > before
    del task_runs
    assert _open_files(history) == before
    list(record.logs())
    assert _open_files(history) == before


def _open_files(path: Path) -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found += os.readlink(entry).startswith(str(path))
        except OSError:  # the listing's own
            continue
    return found


def test_thousands_of_task_runs_are_read_in_pages(history: Path) -> None:
    rows = [task_run(OTHER_ID, n) for n in range(3_000)]
    write_history(history.parent, Group(tasks=[(OTHER_ID.bytes, 0, "m.x", "x", None)]))
    write_history(history.parent, Group(task_runs=rows))
    found = penstock.run("calm-heron").task_runs()
    assert [run.number for run in found] == list(range(3_000))


def test_a_writer_is_not_waited_for(history: Path) -> None:
    with closing(sqlite3.connect(history, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE flow_runs SET tags = '[]' WHERE name = 'calm-heron'")
        assert len(penstock.runs()) == 2
        assert sum(1 for _ in penstock.run("7f3a").task_runs()) == 24
        writer.execute("ROLLBACK")


def test_records_are_read_in_many_threads(history: Path) -> None:
    record = penstock.run("7f3a")
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(list(record.task_runs()))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [24] * 8


def test_records_are_equal_by_their_run(history: Path) -> None:
    first, again = penstock.run("7f3a"), penstock.run("7f3a")
    assert first == again
    assert first != penstock.run("@last")
    assert len({first, again}) == 1


def test_stale_run_says_since_when(history: Path) -> None:
    row = flow_run(OTHER_ID, state="RUNNING", ended_at=None, name="lost", host="node7", seq=99)
    id = UUID(int=OTHER_ID.int + 1)
    write_history(history.parent, Group(flow_runs=[(id.bytes, *row[1:])]))
    with closing(sqlite3.connect(history)) as connection, connection:
        lease = (id.bytes, 0, 1, START + SECOND, "node7", 1, 1)
        connection.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)", lease)
    record = penstock.run("lost")
    assert record.is_stale
    assert record.stale_since == datetime.fromtimestamp(START // SECOND + 1, UTC)
    assert (record.stale_reason or "").startswith("no sign of life from node7 for ")
    assert "(stale)" in repr(record)


def test_module_of_the_same_name_can_still_be_imported() -> None:
    code = (
        "import penstock\n"
        "from penstock.runs import FlowRun\n"
        "import penstock.runs\n"
        "assert callable(penstock.runs) and penstock.runs() == []\n"
        "from penstock import runs\n"
        "assert runs is penstock.runs and FlowRun.__module__ == 'penstock.runs'\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)
