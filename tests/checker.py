"""The history checker: what must hold of every history, whatever happened to who wrote it.

It reads the tables themselves, in one snapshot, so that it also holds for a history that is being
written and for one that a killed process left behind.

    closed     what a task run depends on is there; a completed one's upstreams ended before it;
               a flow run's end stands behind everything that happened in it
    settled    nothing goes on in a flow run that has ended, but what is not ready
    counted    the counts are those of a recount
    timed      times ascend; the states lead from PENDING to the present one
    attributed every task run, log line and count belongs to something that is there
    numbered   changes, task runs and log lines have numbers of their own
    epochs     nothing was written by a driver whose time was over
    shaped     every column holds what its kind of run has (tests/shapes.py)

What takes a witness beside the history, such as values, is judged by tests/faults/judge.py.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from penstock.history.base import EPOCH_BITS, OUTSIDE_FLOWS
from penstock.history.locations import sqlite_uri
from tests.shapes import FINAL, Row, contradictory, misshapen

TABLES = ("flow_runs", "task_runs", "tasks", "counts", "logs", "leases")


@dataclass(frozen=True)
class History:
    """All rows of a history, runs by their ids."""

    flow_runs: dict[bytes, Row]
    task_runs: dict[bytes, Row]
    tasks: dict[tuple[bytes, int], Row]
    counts: dict[tuple[bytes, int, str], int]
    logs: list[Row]
    leases: dict[bytes, Row]

    @classmethod
    def read(cls, path: Path | str) -> History:
        """Read a history in one snapshot."""
        uri = sqlite_uri(str(path), "mode=ro")
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")

            def rows(table: str) -> list[Row]:
                return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]

            return cls.of({table: rows(table) for table in TABLES})

    @classmethod
    def of(cls, tables: Mapping[str, list[Row]]) -> History:
        """Make a history of the rows of its tables."""
        return cls(
            {row["id"]: row for row in tables["flow_runs"]},
            {row["id"]: row for row in tables["task_runs"]},
            {(row["flow_run_id"], row["number"]): row for row in tables["tasks"]},
            {
                (row["flow_run_id"], row["task"], row["state"]): row["number"]
                for row in tables["counts"]
                if row["number"]
            },
            tables["logs"],
            {row["flow_run_id"]: row for row in tables["leases"]},
        )

    def was_lost(self, row: Row) -> bool:
        """Tell whether a driver of the flow run of a row may have died, or may still write.

        Then a line or a dependency may tell of a task run of which nothing else was recorded: the
        end of a short one may have been in the next group.
        """
        flow_run = self.flow_runs.get(row["flow_run_id"])
        return flow_run is None or flow_run["state"] not in FINAL or epoch_of(flow_run) > 0

    def outermost(self, flow_run: Row) -> Row:
        """Give the flow run that a flow run is a part of, however deep; itself if it is none."""
        for _ in self.flow_runs:
            parent = self.task_runs.get(flow_run["parent_task_run_id"])
            above = None if parent is None else self.flow_runs.get(parent["flow_run_id"])
            if above is None:
                break
            flow_run = above
        return flow_run


def problems_of(path: Path | str, *, allow_failure: bool = False) -> list[str]:
    """Give all that is wrong with a history; empty when nothing is.

    Args:
        allow_failure: the flows let failures through, so that what completed may depend on them.
    """
    return [*problems_in(History.read(path), allow_failure), *_damaged(path)]


def problems_in(history: History, allow_failure: bool = False) -> list[str]:
    """Give all that is wrong with the rows of a history.

    Args:
        allow_failure: the flows let failures through, so that what completed may depend on them.
    """
    if problems := list(misshapen(history)):
        return problems  # the other checks would stumble
    return [
        *_unclosed(history, allow_failure),
        *_unsettled(history),
        *_miscounted(history),
        *_mistimed(history),
        *_unattributed(history),
        *_unnumbered(history),
        *_out_of_epoch(history),
        *(each for row in history.task_runs.values() for each in contradictory(row)),
        *(each for row in history.flow_runs.values() for each in contradictory(row)),
    ]


def epoch_of(row: Row) -> int:
    """Give which driver of its flow run wrote a row, counted from the first."""
    return int(row["seq"]) >> EPOCH_BITS


def upstreams_of(row: Row) -> list[bytes]:
    """Give the ids of the task runs that a task run depends on."""
    ids = row["upstream"] or b""
    return [ids[start : start + 16] for start in range(0, len(ids), 16)]


def told(row: Row) -> str:
    """Name a run in a complaint."""
    return f"{row['id'].hex()[-8:]} ({row['state']} {row['state_name'] or ''})"


def _unclosed(history: History, allow_failure: bool) -> Iterator[str]:
    for row in history.task_runs.values():
        for key in upstreams_of(row):
            upstream = history.task_runs.get(key)
            if upstream is None and not (row["state"] != "COMPLETED" and history.was_lost(row)):
                yield f"closed: {told(row)} depends on {key.hex()}, which is not there"
            elif upstream is not None and row["state"] == "COMPLETED":
                yield from _before(upstream, row, allow_failure)
        flow_run = history.flow_runs.get(row["flow_run_id"])
        if flow_run and flow_run["state"] in FINAL and row["seq"] >= flow_run["seq"]:
            yield f"closed: {told(row)} was recorded behind the end of its flow run"


def _before(upstream: Row, row: Row, allow_failure: bool) -> Iterator[str]:
    over = upstream["state"] in FINAL or upstream["state_name"] == "NotReady"
    if upstream["state"] != "COMPLETED" and not (allow_failure and over):
        yield f"closed: {told(row)} depends on {told(upstream)}"
    elif upstream["flow_run_id"] == row["flow_run_id"] and upstream["seq"] >= row["seq"]:
        yield f"closed: {told(row)} was recorded before {told(upstream)}"


def _unsettled(history: History) -> Iterator[str]:
    for row in history.task_runs.values():
        flow_run = history.flow_runs.get(row["flow_run_id"])
        if flow_run is None or flow_run["state"] not in FINAL:
            continue
        if row["state"] not in FINAL and row["state_name"] != "NotReady":
            yield f"settled: {told(row)} goes on in a flow run that is {flow_run['state']}"


def _miscounted(history: History) -> Iterator[str]:
    recount = Counter(
        (row["flow_run_id"], row["task"], row["state"])
        for row in history.task_runs.values()
        if row["flow_run_id"] is not None
    )
    for key in recount.keys() | history.counts.keys():
        if recount[key] != history.counts.get(key, 0):
            yield f"counted: {key[1:]} are {recount[key]}, not {history.counts.get(key, 0)}"


def _mistimed(history: History) -> Iterator[str]:
    for row in [*history.flow_runs.values(), *history.task_runs.values()]:
        times = [row[name] for name in ("created_at", "started_at", "ended_at") if row[name]]
        if times != sorted(times):
            yield f"timed: {told(row)} has the times {times}"
        if (row["state"] in FINAL) != (row["ended_at"] is not None):
            yield f"timed: {told(row)} ended at {row['ended_at']}"
        if row["state"] in ("COMPLETED", "RUNNING") and not (row["attempt"] and row["started_at"]):
            yield f"timed: {told(row)} never started"
        yield from _misled(row)
    for row in history.task_runs.values():
        yield from _outlived(row, history.flow_runs.get(row["flow_run_id"]))


def _outlived(row: Row, flow_run: Row | None) -> Iterator[str]:
    """Check that a task run lies within the time of its flow run, and its id in its own."""
    # On a worker the id is made some time before the driver makes the run.
    if abs(int.from_bytes(row["id"][:6], "big") - row["created_at"] // 1_000_000) > 60_000:
        yield f"timed: {told(row)} was not made at {row['created_at']}"
    if flow_run is None:
        return
    is_early = row["created_at"] < flow_run["created_at"] or (
        epoch_of(row) == epoch_of(flow_run) and row["created_at"] < (flow_run["started_at"] or 0)
    )
    if is_early or (row["ended_at"] or 0) > (flow_run["ended_at"] or 1 << 62):
        yield f"timed: {told(row)} lies outside the time of its flow run"


def _misled(row: Row) -> Iterator[str]:
    """Check the states of a run that had unusual ones: complete and in order."""
    if row["states"] is None:
        if (row["attempt"] or 0) > 1:
            yield f"timed: {told(row)} had {row['attempt']} attempts, but no states"
        return
    states = json.loads(row["states"])
    times = [at for _, _, at, _ in states]
    if times != sorted(times) or states[0][:3] != ["PENDING", None, row["created_at"]]:
        yield f"timed: {told(row)} had the states {states}"
    if states[-1][:2] != [row["state"], row["state_name"]]:
        yield f"timed: {told(row)} had {states[-1]} as its last state"
    attempts = sum(kind == "RUNNING" for kind, *_ in states)
    if row["state"] in FINAL and attempts != row["attempt"]:
        yield f"timed: {told(row)} had {row['attempt']} attempts, of which {attempts} are told"


def _unattributed(history: History) -> Iterator[str]:
    for row in history.task_runs.values():
        flow_run_id = row["flow_run_id"]
        if (flow_run_id or OUTSIDE_FLOWS, row["task"]) not in history.tasks:
            yield f"attributed: {told(row)} is of the unknown task {row['task']}"
        if flow_run_id is not None and flow_run_id not in history.flow_runs:
            yield f"attributed: {told(row)} is of an unknown flow run"
        subflow = json.loads(row["detail"] or "{}").get("subflow_run_id")
        subflow_run = history.flow_runs.get(bytes.fromhex(subflow or ""))
        # What did not complete may have been continued, and stands below a later task run then.
        is_left = row["state"] in FINAL - {"COMPLETED"}
        if subflow_run is None or is_left:
            continue
        if subflow_run["parent_task_run_id"] != row["id"]:
            yield f"attributed: {told(row)} does not stand for {told(subflow_run)}"
    for row in history.flow_runs.values():
        parent = history.task_runs.get(row["parent_task_run_id"])
        if parent is not None:
            yield from _ill_matched(row, parent)
        elif row["parent_task_run_id"] is not None:
            yield f"attributed: subflow run {told(row)} has no task run in its parent"
    for line in history.logs:
        runs = (history.task_runs, line["task_run_id"]), (history.flow_runs, line["flow_run_id"])
        for known, key in runs:
            is_lost = known is history.task_runs and history.was_lost(line)
            if key is not None and key not in known and not is_lost:
                yield f"attributed: {line['message']!r} is a line of an unknown run"
        run = history.task_runs.get(line["task_run_id"])
        if run is not None and run["flow_run_id"] != line["flow_run_id"]:
            yield f"attributed: {line['message']!r} is a line of another flow run"
        if run is not None and line["at"] < run["created_at"]:
            yield f"attributed: {line['message']!r} was written before {told(run)} was made"
    names = Counter(
        (row["flow_run_id"], row["key"], row["name"], row["source"])
        for row in history.tasks.values()
    )
    yield from (f"attributed: task {key[2]} is told twice" for key, n in names.items() if n > 1)


def _ill_matched(subflow_run: Row, stand_in: Row) -> Iterator[str]:
    """Check the task run that stands for a subflow run, once it has ended."""
    is_over = stand_in["state"] in FINAL
    named = json.loads(stand_in["detail"] or "{}").get("subflow_run_id")
    is_alike = subflow_run["state"] == stand_in["state"] and (
        (subflow_run["ended_at"] or 0) <= (stand_in["ended_at"] or 0)
    )
    if is_over and not (is_alike and named == subflow_run["id"].hex()):
        yield f"attributed: {told(stand_in)} does not stand for {told(subflow_run)}"


def _unnumbered(history: History) -> Iterator[str]:
    runs = [*history.flow_runs.values(), *history.task_runs.values()]
    inside = [row for row in runs if row.get("flow_run_id", row["id"]) is not None]
    changes = Counter((row.get("flow_run_id", row["id"]), row["seq"]) for row in inside)
    yield from (f"numbered: change {seq} is told twice" for (_, seq), n in changes.items() if n > 1)
    for row in inside:
        if not row["seq"] & ((1 << EPOCH_BITS) - 1):
            yield f"numbered: {told(row)} has the change {row['seq']}"
    ordinals = Counter(
        (row["flow_run_id"], row["task"], row["number"]) for row in inside if "task" in row
    )
    for (_, task, number), times in ordinals.items():
        if times > 1 or number < 0:
            yield f"numbered: {times} runs of task {task} have the number {number}"


def _out_of_epoch(history: History) -> Iterator[str]:
    """Check that the drivers of each outermost flow run wrote one after another."""
    lives: dict[bytes, list[tuple[int, int, Row]]] = {}
    for row in [*history.flow_runs.values(), *history.task_runs.values()]:
        own = history.flow_runs.get(row.get("flow_run_id", row["id"]))
        if own is None:
            continue
        outermost = history.outermost(own)
        lease = history.leases.get(outermost["id"])
        if lease is not None and epoch_of(row) > lease["epoch"]:
            yield f"epochs: {told(row)} is of epoch {epoch_of(row)}, the lease of {lease['epoch']}"
        if row["ended_at"] is not None:
            life = lives.setdefault(outermost["id"], [])
            life.append((row["ended_at"], epoch_of(row), row))
    for life in lives.values():
        newest = 0
        for _, epoch, row in sorted(life, key=lambda end: end[:2]):
            if epoch < newest:
                yield f"epochs: {told(row)} ended in epoch {epoch}, after one of {newest}"
            newest = max(newest, epoch)


def _damaged(path: Path | str) -> Iterator[str]:
    with closing(sqlite3.connect(sqlite_uri(str(path), "mode=ro"), uri=True)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            yield f"sound: {verdict}"
