"""The reading side: shapes, references, pages."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from penstock.errors import AmbiguousRun, RunNotFound
from penstock.history import reading
from penstock.history.base import Group, HistoryReader
from penstock.history.owners import host_name
from penstock.history.reading import SQLiteReader
from penstock.history.sqlite import SQLiteStore
from penstock.history.statements import load_query
from tests.history.rows import START, flow_run_row, log_row, new_id, task_run_row

FLOW_RUN_KEYS = (
    "id name flow state parameters tags runner created_at started_at ended_at duration counts"
)
TASK_RUN_KEYS = (
    "id name task flow_run_id state attempt worker started_at ended_at duration upstream error"
)
LOG_KEYS = "at level message logger flow_run_id task_run_id"

FIRST = UUID("11112222-aaaa-4000-8000-000000000001")
SECOND = UUID("1111bbbb-aaaa-4000-8000-000000000002")
CHILD = UUID("33330000-aaaa-4000-8000-000000000003")
ERROR = {"type": "ValueError", "message": "bad date", "traceback": "..."}


@pytest.fixture
def runs(store: SQLiteStore) -> list[bytes]:
    """Write two flow runs and a subflow run; the first one has four task runs and three lines.

    Gives the ids of the task runs.
    """
    ids = [new_id() for _ in range(4)]
    first = FIRST.bytes
    crash = {"state": "CRASHED", "message": "lost", "ended_at": START + 2_000_000_000}
    store.write(
        Group(
            flow_runs=[
                flow_run_row(first, name="brave-otter", tags='["red", "blue"]', **crash),
                flow_run_row(SECOND.bytes, name="calm-heron", flow="etl", created_at=START + 5),
                flow_run_row(
                    CHILD.bytes, name="calm-heron", created_at=START + 9, parent_task_run_id=ids[2]
                ),
            ],
            tasks=[(first, 1, "m.load", "load", None), (first, 2, "m.clean", "clean", None)],
            task_runs=[
                task_run_row(first, id=ids[0]),
                task_run_row(first, id=ids[1], number=1, name="special"),
                task_run_row(
                    first,
                    id=ids[2],
                    task=2,
                    state="FAILED",
                    message="ValueError: bad date",
                    upstream=ids[0] + ids[1],
                    detail=json.dumps(
                        {"error": ERROR, "worker": "w1", "subflow_run_id": CHILD.hex}
                    ),
                ),
                task_run_row(first, id=ids[3], task=2, number=1, state="CANCELLED"),
            ],
            logs=[
                log_row(first, "one"),
                log_row(first, "two", task_run_id=ids[0], level=30),
                log_row(first, "three", level=25),
            ],
            counts=[
                (first, 1, "COMPLETED", 2),
                (first, 1, "RUNNING", 0),
                (first, 2, "FAILED", 1),
                (first, 2, "CANCELLED", 1),
            ],
        )
    )
    return ids


def test_flow_run_has_the_published_shape(reader: HistoryReader, runs: list[bytes]) -> None:
    run = reader.find_flow_run(str(FIRST))
    assert " ".join(run).startswith(FLOW_RUN_KEYS)
    assert run["id"] == str(FIRST)
    assert run["state"] == {"type": "CRASHED", "name": "Crashed", "message": "lost"}
    assert run["parameters"] == {"n": "3"}
    assert run["tags"] == ["red", "blue"]
    assert run["created_at"] == "2023-11-14T22:13:20.000000+00:00"
    assert run["duration"] == pytest.approx(2.0, abs=1e-3)
    assert run["counts"] == {"COMPLETED": 2, "FAILED": 1, "CANCELLED": 1}
    assert run["stale"] is False
    assert json.loads(json.dumps(run)) == run


def test_task_run_has_the_published_shape(reader: HistoryReader, runs: list[bytes]) -> None:
    run = reader.find_task_run(f"{FIRST}:clean:0")
    assert " ".join(run).startswith(TASK_RUN_KEYS)
    assert run["id"] == str(UUID(bytes=runs[2]))
    assert (run["name"], run["task"], run["flow_run_id"]) == ("clean-0", "clean", str(FIRST))
    assert run["state"]["type"] == "FAILED"
    assert (run["attempt"], run["worker"], run["error"]) == (1, "w1", ERROR)
    assert run["duration"] == 0.5
    assert run["upstream"] == [str(UUID(bytes=id)) for id in runs[:2]]
    assert run["subflow_run_id"] == str(CHILD)
    assert json.loads(json.dumps(run)) == run


def test_log_line_has_the_published_shape(reader: HistoryReader, runs: list[bytes]) -> None:
    lines = list(reader.logs(str(FIRST)))
    assert " ".join(lines[0]).startswith(LOG_KEYS)
    assert [line["level"] for line in lines] == ["INFO", "WARNING", "Level 25"]
    assert lines[1]["task_run_id"] == str(UUID(bytes=runs[0]))
    assert lines[1]["flow_run_id"] == str(FIRST)


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        (str(FIRST), FIRST),
        (str(FIRST).upper(), FIRST),
        (FIRST.hex, FIRST),
        ("11112222", FIRST),
        ("1111-2", FIRST),
        ("1111b", SECOND),
        ("3333", CHILD),
        ("brave-otter", FIRST),
        (" brave-otter\n", FIRST),
        ("@last", SECOND),
        ("@last-failed", FIRST),
    ],
)
def test_flow_run_is_found(
    reader: HistoryReader, runs: list[bytes], reference: str, found: UUID
) -> None:
    assert reader.find_flow_run(reference)["id"] == str(found)


@pytest.mark.parametrize("reference", ["4444", "111", "", "nobody", "@next", "%", str(UUID(int=5))])
def test_unknown_flow_run_is_told(reader: HistoryReader, runs: list[bytes], reference: str) -> None:
    with pytest.raises(RunNotFound, match="There is no flow run"):
        reader.find_flow_run(reference)


@pytest.mark.parametrize("reference", ["1111", "calm-heron"])
def test_ambiguous_reference_names_the_candidates(
    reader: HistoryReader, runs: list[bytes], reference: str
) -> None:
    with pytest.raises(AmbiguousRun, match="more than one flow run") as caught:
        reader.find_flow_run(reference)
    assert f"{SECOND}  calm-heron" in str(caught.value)


def test_name_goes_before_the_beginning_of_an_id(store: SQLiteStore, path: Path) -> None:
    named, other = new_id(), bytes.fromhex("cafe" + "0" * 28)
    store.write(Group(flow_runs=[flow_run_row(named, name="cafe"), flow_run_row(other)]))
    with closing(SQLiteReader(path)) as reader:
        assert reader.find_flow_run("cafe")["id"] == str(UUID(bytes=named))


def test_task_run_is_found_by_id_and_prefix(reader: HistoryReader, runs: list[bytes]) -> None:
    for reference in (runs[1].hex(), str(UUID(bytes=runs[1])), runs[1].hex()[:24]):
        assert reader.find_task_run(reference)["name"] == "special"
    assert reader.find_task_run("@last-failed:load:1")["name"] == "special"


@pytest.mark.parametrize(
    "reference", ["load", "@last:load:0", "brave-otter:load:7", "brave-otter:nope:0", "ffff", "::"]
)
def test_unknown_task_run_is_told(reader: HistoryReader, runs: list[bytes], reference: str) -> None:
    with pytest.raises(RunNotFound):
        reader.find_task_run(reference)


def test_ambiguous_task_run_is_told(reader: HistoryReader, runs: list[bytes]) -> None:
    with pytest.raises(AmbiguousRun, match="more than one task run"):
        reader.find_task_run("0000")


def names(runs: Iterator[dict[str, Any]]) -> list[str]:
    return [run["name"] for run in runs]


def test_task_runs_come_in_order_and_filtered(reader: HistoryReader, runs: list[bytes]) -> None:
    first = str(FIRST)
    assert names(reader.task_runs(first)) == ["load-0", "special", "clean-0", "clean-1"]
    assert names(reader.task_runs(first, state="failed")) == ["clean-0"]
    assert names(reader.task_runs(first, state="COMPLETED")) == ["load-0", "special"]
    assert names(reader.task_runs(first, name="clean")) == ["clean-0", "clean-1"]
    assert names(reader.task_runs(first, name="special")) == ["special"]
    assert names(reader.task_runs(first, state="failed", name="load")) == []
    assert names(reader.task_runs(first, limit=2)) == ["load-0", "special"]
    assert names(reader.task_runs(first, limit=0)) == []
    assert names(reader.task_runs(str(SECOND))) == []


def test_pages_cover_every_row_once(
    store: SQLiteStore, reader: HistoryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PAGE", 7)
    id = new_id()
    store.write(
        Group(
            tasks=[(id, 1, "m.load", "load", None)],
            task_runs=[task_run_row(id, number=number) for number in range(50)],
            logs=[log_row(id, str(number)) for number in range(49)],
        )
    )
    text = str(UUID(bytes=id))
    assert names(reader.task_runs(text)) == [f"load-{number}" for number in range(50)]
    assert names(reader.task_runs(text, limit=20)) == [f"load-{number}" for number in range(20)]
    assert [line["message"] for line in reader.logs(text)] == [str(n) for n in range(49)]


def test_flow_runs_come_newest_first_and_filtered(reader: HistoryReader, runs: list[bytes]) -> None:
    def ids(**filters: Any) -> list[str]:
        return [run["id"] for run in reader.flow_runs(**filters)]

    first, second, child = str(FIRST), str(SECOND), str(CHILD)
    assert ids() == [child, second, first]
    assert ids(limit=1) == [child]
    assert ids(before=START + 9) == [second, first]
    assert ids(flow="etl") == [second]
    assert ids(tag="blue") == [first]
    assert ids(tag="green") == []
    assert ids(state="crashed") == [first]
    assert ids(state="running", flow="etl") == [second]


def test_log_lines_are_filtered_and_taken_up_again(
    reader: HistoryReader, runs: list[bytes]
) -> None:
    def messages(**filters: Any) -> list[str]:
        return [line["message"] for line in reader.logs(str(FIRST), **filters)]

    position = next(reader.logs(str(FIRST)))["position"]
    assert messages(after=position) == ["two", "three"]
    assert messages(level=25) == ["two", "three"]
    assert messages(task_run_id=str(UUID(bytes=runs[0]))) == ["two"]
    assert messages(limit=1) == ["one"]


def test_counts_are_given_by_task(reader: HistoryReader, runs: list[bytes]) -> None:
    assert reader.counts(str(FIRST)) == {
        "load": {"COMPLETED": 2},
        "clean": {"CANCELLED": 1, "FAILED": 1},
    }
    assert reader.counts(str(SECOND)) == {}


def test_id_that_is_none_is_told(reader: HistoryReader) -> None:
    for ask in (reader.counts, reader.task_runs, reader.logs):
        with pytest.raises(RunNotFound, match="'brave' is no id"):
            ask("brave")


def state_types(run: dict[str, Any]) -> list[str]:
    return [state["type"] for state in run["states"]]


def test_states_follow_from_the_times(reader: HistoryReader, runs: list[bytes]) -> None:
    run = reader.find_flow_run(str(FIRST))
    assert state_types(run) == ["PENDING", "RUNNING", "CRASHED"]
    assert [state["at"] for state in run["states"]] == [
        run["created_at"],
        run["started_at"],
        run["ended_at"],
    ]
    assert run["states"][-1]["message"] == "lost"
    assert state_types(reader.find_flow_run(str(SECOND))) == ["PENDING", "RUNNING"]


def test_kept_states_are_given_and_end_with_the_present_one(
    store: SQLiteStore, reader: HistoryReader
) -> None:
    id = new_id()
    passed = [["PENDING", None, START, None], ["RUNNING", "Retrying", START + 1_000, "again"]]
    rows = [
        task_run_row(id, number=0, states=json.dumps(passed), state_name="Cached"),
        task_run_row(
            id, number=1, states=json.dumps(passed), state="RUNNING", state_name="Retrying"
        ),
        task_run_row(id, number=2, state="PENDING", state_name="NotReady", started_at=None),
    ]
    store.write(Group(tasks=[(id, 1, "m.load", "load", None)], task_runs=rows))
    found = [
        [state["name"] for state in run["states"]] for run in reader.task_runs(str(UUID(bytes=id)))
    ]
    assert found == [["Pending", "Retrying", "Cached"], ["Pending", "Retrying"], ["NotReady"]]


def test_duration_of_a_running_run_goes_up_to_now(
    store: SQLiteStore, reader: HistoryReader
) -> None:
    now = int(datetime.now(UTC).timestamp()) * 1_000_000_000
    id = new_id()
    store.write(
        Group(
            flow_runs=[flow_run_row(id, started_at=now - 60_000_000_000)],
            task_runs=[
                task_run_row(id, state="PENDING", started_at=None, ended_at=None),
                task_run_row(id, state="PENDING", state_name="NotReady", started_at=None),
            ],
        )
    )
    assert 59 <= reader.find_flow_run("@last")["duration"] < 120
    for run in reader.task_runs(str(UUID(bytes=id))):
        assert run["duration"] is None


@pytest.mark.parametrize(
    ("values", "stale"),
    [
        ({}, False),
        ({"pid_started_at": 1}, True),
        ({"pid": 2**22 + 1}, True),
        ({"pid": 2**22 + 1, "host": "elsewhere"}, False),
        ({"pid_started_at": 1, "state": "FAILED"}, False),
        ({"pid": None}, False),
    ],
)
def test_run_of_a_dead_process_is_stale(
    store: SQLiteStore, reader: HistoryReader, values: dict[str, Any], stale: bool
) -> None:
    store.write(Group(flow_runs=[flow_run_row(**values)]))
    run = reader.find_flow_run("@last")
    assert run["stale"] is stale
    assert run["host"] in (host_name(), "elsewhere")
    assert run["pid"] == values.get("pid", os.getpid())


def test_odd_json_counts_as_missing(store: SQLiteStore, reader: HistoryReader) -> None:
    store.write(Group(flow_runs=[flow_run_row(parameters="{", tags="nope", states="[1")]))
    run = reader.find_flow_run("@last")
    assert (run["parameters"], run["tags"]) == ({}, [])


def test_reader_cannot_write(reader: SQLiteReader) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM flow_runs")


def test_reader_sees_what_was_committed_meanwhile(
    store: SQLiteStore, reader: HistoryReader
) -> None:
    assert reader.flow_runs() == []
    store.write(Group(flow_runs=[flow_run_row()]))
    assert len(reader.flow_runs()) == 1


@pytest.mark.parametrize("query", ["task_runs_page", "task_runs_in_trouble"])
def test_pages_of_task_runs_need_no_sort(
    reader: SQLiteReader, runs: list[bytes], query: str
) -> None:
    text = load_query("select_task_runs") + load_query(query)
    values = dict.fromkeys(("flow_run_id", "after", "state", "name", "limit"))
    plan = " ".join(
        row["detail"] for row in reader._connection.execute("EXPLAIN QUERY PLAN " + text, values)
    )
    assert "USING INDEX task_runs" in plan
    assert "TEMP B-TREE" not in plan
