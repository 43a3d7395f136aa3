"""Rows to write in tests: short builders in the published column orders."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from penstock.history.base import FLOW_RUN_COLUMNS, TASK_RUN_COLUMNS, Group
from penstock.history.owners import host_name, process_started_at

Row = tuple[Any, ...]

START = 1_700_000_000_000_000_000
_numbers = count(1)


def new_id() -> bytes:
    """Make an id that is larger than those before it."""
    return (next(_numbers) << 64).to_bytes(16, "big")


def flow_run_row(id: bytes | None = None, **values: Any) -> Row:
    """Make the row of a running flow run of this process; `values` replace columns."""
    columns = {
        "id": new_id() if id is None else id,
        "seq": 1,
        "name": "brave-otter",
        "flow": "census",
        "flow_key": "census.census",
        "state": "RUNNING",
        "created_at": START,
        "started_at": START + 1_000,
        "attempt": 1,
        "parameters": '{"n": "3"}',
        "runner": "SequentialTaskRunner",
        "host": host_name(),
        "pid": os.getpid(),
        "pid_started_at": process_started_at(os.getpid()),
        "penstock_version": "0.1.0",
    }
    return _row(FLOW_RUN_COLUMNS, columns, values)


def task_run_row(flow_run_id: bytes | None, **values: Any) -> Row:
    """Make the row of a completed task run; `values` replace columns."""
    columns = {
        "id": new_id(),
        "flow_run_id": flow_run_id,
        "seq": next(_numbers),
        "task": 1,
        "number": 0,
        "state": "COMPLETED",
        "attempt": 1,
        "created_at": START,
        "started_at": START + 1_000_000,
        "ended_at": START + 501_000_000,
        "parameters": '{"x": "1"}',
        "result": b"1",
        "result_codec": "json",
    }
    return _row(TASK_RUN_COLUMNS, columns, values)


def _row(names: tuple[str, ...], columns: dict[str, Any], values: dict[str, Any]) -> Row:
    assert values.keys() <= set(names)
    return tuple((columns | values).get(name) for name in names)


def changed(row: Row, names: tuple[str, ...], **values: Any) -> Row:
    """Give a row with other values in some of its columns."""
    assert values.keys() <= set(names)
    return tuple(values.get(name, old) for name, old in zip(names, row, strict=True))


def log_row(flow_run_id: bytes | None, message: str, **values: Any) -> Row:
    """Make the row of a log line."""
    return (
        flow_run_id,
        values.get("task_run_id"),
        1,
        values.get("at", START),
        values.get("level", 20),
        "penstock",
        message,
    )


def one_flow_run(flow_run_id: bytes, task_runs: int) -> Group:
    """Make a group of a flow run, its one task and its completed task runs."""
    return Group(
        flow_runs=[flow_run_row(flow_run_id)],
        tasks=[(flow_run_id, 1, "census.load", "load", None)],
        task_runs=[task_run_row(flow_run_id, number=number) for number in range(task_runs)],
        counts=[(flow_run_id, 1, "COMPLETED", task_runs)],
    )


def select(path: Path, query: str, *values: Any) -> list[Row]:
    """Ask the database directly."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, values).fetchall()


def is_sound(path: Path) -> bool:
    """Let SQLite check the whole file."""
    return select(path, "PRAGMA integrity_check") == [("ok",)]


_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextmanager
def locked_by_another_program(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the database's lock in a child until a line is sent to it, or to the end."""
    with start_python(_HOLDER, str(path)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        try:
            yield child
        finally:
            let_go(child)


def let_go(child: subprocess.Popen[str]) -> None:
    """Make a child go on that waits for a line; a second call does nothing."""
    assert child.stdin is not None
    if not child.stdin.closed:
        child.stdin.write("\n")
        child.stdin.close()


def start_python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python process that runs a script, with pipes for input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
