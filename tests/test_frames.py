"""Recorded runs as DataFrames: stable columns and types, quick and small."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas
import pytest

import penstock
from penstock import flow, task
from penstock.errors import MissingDependencyError
from penstock.frames import FLOW_RUN_COLUMNS, STATES, TASK_RUN_COLUMNS
from penstock.history.base import TABLE_COLUMNS, Group
from penstock.history.stores import open_reader
from tests.cli.histories import (
    OTHER_ID,
    RUN_ID,
    START,
    failed_task_run,
    flow_run,
    sample_group,
    task_run,
    write_history,
)


def types_of(frame: pandas.DataFrame) -> dict[str, str]:
    return {str(name): str(kind) for name, kind in frame.dtypes.items()}


@pytest.fixture
def frame(penstock_home: Path) -> pandas.DataFrame:
    write_history(penstock_home, sample_group())
    return penstock.run("7f3a").to_pandas()


def test_task_runs_have_the_published_columns(frame: pandas.DataFrame) -> None:
    assert types_of(frame) == TASK_RUN_COLUMNS
    assert len(frame) == 24
    assert list(frame.state.cat.categories) == list(STATES)


def test_frame_says_what_the_records_say(frame: pandas.DataFrame) -> None:
    for record, row in zip(
        penstock.run("7f3a").task_runs(), frame.itertuples(index=False), strict=True
    ):
        assert row.id == str(record.id)
        assert (row.name, row.task, row.number) == (record.name, record.task, record.number)
        assert (row.state, row.state_name) == (record.state.type, record.state.name)
        assert row.attempt == record.attempt
        for name in ("created_at", "started_at", "ended_at"):
            at = getattr(row, name)
            assert (None if pandas.isna(at) else at.to_pydatetime()) == getattr(record, name)
        expected = record.duration
        assert row.duration == expected if expected is not None else pandas.isna(row.duration)
        assert pandas.isna(row.worker)
        error = None if record.error is None else f"ValueError: {record.error['message']}"
        assert (None if pandas.isna(row.error) else row.error) == error


def test_empty_frames_have_the_same_columns(penstock_home: Path) -> None:
    write_history(penstock_home, Group(flow_runs=[flow_run(OTHER_ID)]))
    empty = penstock.run("@last").to_pandas()
    assert (types_of(empty), len(empty)) == (TASK_RUN_COLUMNS, 0)
    none = penstock.runs(state="crashed").to_pandas()
    assert (types_of(none), len(none)) == (FLOW_RUN_COLUMNS, 0)
    both = pandas.concat([empty, empty])
    assert types_of(both) == TASK_RUN_COLUMNS


def test_task_runs_are_chosen(frame: pandas.DataFrame) -> None:
    record = penstock.run("7f3a")
    assert list(record.to_pandas(state="failed").number) == [17, 18, 19]
    assert list(record.to_pandas(name="load").name) == ["load-0", "load-1", "load-2", "load-3"]
    assert set(record.to_pandas(name="load").state_name) == {"NotReady"}


def test_what_is_asked_of_a_frame(frame: pandas.DataFrame) -> None:
    slowest = frame.nlargest(1, "duration").iloc[0]
    assert (slowest["name"], slowest["duration"]) == ("clean-19", 2.0)
    by_task = frame.groupby("task", observed=True).duration.mean()
    assert by_task["clean"] == pytest.approx(1.05)
    start = datetime.fromtimestamp(START / 1e9, UTC)
    assert (frame.started_at.dropna() == start).all()


def test_running_task_run_took_until_now(penstock_home: Path) -> None:
    started_at = time.time_ns() - 60 * 10**9
    row = task_run(OTHER_ID, 0, state="RUNNING", started_at=started_at, ended_at=None)
    group = Group(flow_runs=[flow_run(OTHER_ID)], task_runs=[row])  # its task is not written yet
    write_history(penstock_home, group)
    (found,) = penstock.run("@last").to_pandas().itertuples()
    assert 60 <= found.duration < 90
    assert pandas.isna(found.task)


def test_odd_rows_do_not_hide_the_rest(penstock_home: Path) -> None:
    rows = [
        task_run(RUN_ID, 0, detail="{"),
        task_run(RUN_ID, 1, detail='{"error": "text", "worker": 7}'),
        task_run(RUN_ID, 2, created_at=None, started_at=None, ended_at=None, attempt=None),
        failed_task_run(RUN_ID, 3, "it's \x00 <b>"),
    ]
    tasks: list[tuple[Any, ...]] = [(RUN_ID.bytes, 0, "m.x", "x", None)]
    write_history(penstock_home, Group(flow_runs=[flow_run(RUN_ID)], tasks=tasks, task_runs=rows))
    frame = penstock.run("@last").to_pandas()
    assert types_of(frame) == TASK_RUN_COLUMNS
    assert list(frame.number) == [0, 1, 2, 3]


def test_flow_runs_have_the_published_columns(penstock_home: Path) -> None:
    write_history(penstock_home, sample_group())
    frame = penstock.runs().to_pandas()
    assert types_of(frame) == FLOW_RUN_COLUMNS
    assert list(frame.name) == ["calm-heron", "brave-otter"]
    assert list(frame.task_runs) == [0, 24]
    assert list(frame.completed) == [0, 17]
    assert list(frame.failed) == [0, 3]
    assert frame.duration[1] == 102.0
    assert not frame.stale.any()


def test_real_run() -> None:
    @task
    def double(number: int) -> int:
        return 2 * number

    @flow
    def doubles() -> list[int]:
        return [future.result() for future in double.map(range(50))]

    doubles()
    frame = penstock.run("@last").to_pandas()
    assert list(frame.number) == list(range(50))
    assert (frame.state == "COMPLETED").all()
    assert (frame.ended_at >= frame.started_at).all()
    assert (frame.duration >= 0).all()


def test_pandas_is_asked_for_when_it_is_missing(penstock_home: Path) -> None:
    write_history(penstock_home, sample_group())
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import penstock\n"
        "from penstock.errors import MissingDependencyError\n"
        "for record in (penstock.run('7f3a'), penstock.runs()):\n"
        "    try: record.to_pandas()\n"
        "    except MissingDependencyError as problem: print(problem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.count('pip install "penstock[pandas]"') == 2, done.stderr
    assert issubclass(MissingDependencyError, ImportError)


def test_reading_loads_no_pandas(penstock_home: Path) -> None:
    write_history(penstock_home, sample_group())
    code = (
        "import sys, penstock\n"
        "record = penstock.run('7f3a')\n"
        "list(record.task_runs()), record._repr_html_(), penstock.runs()._repr_html_()\n"
        "assert not {'pandas', 'numpy', 'html'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)


def test_hundred_thousand_task_runs_are_quick_and_small(large_history: Path) -> None:
    """Say how long it takes in processor time: the machine may do other things as well."""
    code = (
        "import resource, time, pandas, penstock\n"
        "record = penstock.run('@last')\n"
        "record.to_pandas(state='failed')\n"  # loads what pandas loads on first use
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "times = []\n"
        "for _ in range(3):\n"
        "    start = time.process_time()\n"
        "    frame = record.to_pandas()\n"
        "    times.append(time.process_time() - start)\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(len(frame), min(times), (after - before) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    number, seconds, megabytes = map(float, done.stdout.split())
    assert number == 100_000
    assert seconds < 4  # 1.3 s on a busy machine
    assert megabytes < 150


@pytest.fixture
def large_history(penstock_home: Path) -> Path:
    group = Group(
        flow_runs=[flow_run(RUN_ID)],
        tasks=[(RUN_ID.bytes, 0, "m.x", "x", None)],
        counts=[(RUN_ID.bytes, 0, "COMPLETED", 100_000)],
    )
    groups = [Group(task_runs=[task_run(RUN_ID, n) for n in range(5_000)]) for _ in range(20)]
    write_history(penstock_home, group, *groups)
    return penstock_home


def test_columns_of_the_query_are_those_published(penstock_home: Path) -> None:
    write_history(penstock_home, sample_group())
    with closing(open_reader(str(penstock_home / "history.db"))) as reader:
        (page,) = reader.task_run_columns(str(RUN_ID))
    row = dict(zip(TABLE_COLUMNS, page[17], strict=True))
    assert row["name"] == "clean-17"
    assert row["error_type"] == "ValueError"
    assert row["error_message"] == "bad date"
    assert row["attempt"] == 3
