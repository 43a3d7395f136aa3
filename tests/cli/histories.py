"""A made-up history for the reading commands, and how they are called."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from penstock.cli.app import run_app
from penstock.history.base import FLOW_RUN_COLUMNS, TASK_RUN_COLUMNS, Group
from penstock.history.sqlite import SQLiteStore

SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
TRACEBACK = """Traceback (most recent call last):
  File "/other/lib/penstock/runtime/drivers.py", line 9, in call
    return function(*args)
  File "/home/me/etl.py", line 88, in parse
    return date.fromisoformat(s)
ValueError: bad date
"""

RUN_ID = UUID("7f3a01bc-0000-4000-8000-000000000001")
OTHER_ID = UUID("c0ffee00-0000-4000-8000-000000000002")


def flow_run(id: UUID, **values: Any) -> tuple[Any, ...]:
    """Make a row of a flow run."""
    row: dict[str, Any] = dict.fromkeys(FLOW_RUN_COLUMNS)
    row |= {
        "id": id.bytes,
        "seq": 9,
        "name": "brave-otter",
        "flow": "sales-etl",
        "flow_key": "etl:sales_etl",
        "state": "COMPLETED",
        "created_at": START,
        "started_at": START,
        "ended_at": START + 102 * SECOND,
        "attempt": 1,
        "parameters": "{}",
        "runner": "ConcurrentTaskRunner",
        "host": "laptop",
        "pid": 1,
        "penstock_version": "0.1.0",
    }
    return tuple((row | values).values())


_keys = itertools.count(1)


def task_run(flow_run_id: UUID | None, number: int, **values: Any) -> tuple[Any, ...]:
    """Make a row of a task run of the flow run's task number 0."""
    row: dict[str, Any] = dict.fromkeys(TASK_RUN_COLUMNS)
    row |= {
        "id": (0x0198_0000_0000_7000_8000 << 48 | next(_keys)).to_bytes(16, "big"),
        "flow_run_id": flow_run_id.bytes if flow_run_id else None,
        "seq": 5,
        "task": 0,
        "number": number,
        "state": "COMPLETED",
        "attempt": 1,
        "created_at": START,
        "started_at": START,
        "ended_at": START + (number + 1) * SECOND // 10,
        "parameters": '{"row": "1"}',
    }
    return tuple((row | values).values())


def failed_task_run(flow_run_id: UUID, number: int, text: str = "bad date") -> tuple[Any, ...]:
    """Make a row of a failed task run."""
    error = {"type": "ValueError", "message": text, "traceback": TRACEBACK}
    return task_run(
        flow_run_id,
        number,
        state="FAILED",
        attempt=3,
        message=f"Task run encountered an exception. ValueError: {text}",
        detail=json.dumps({"error": error}),
    )


def sample_group() -> Group:
    """Make a failed run with 20 task runs and five log lines, and a later completed one."""
    group = Group()
    group.flow_runs = [
        flow_run(
            RUN_ID,
            state="FAILED",
            message="3/24 task runs failed.",
            parameters='{"path": "\'sales.csv\'"}',
            tags='["nightly", "eu"]',
        ),
        flow_run(OTHER_ID, name="calm-heron", flow="census", created_at=START + 500 * SECOND),
    ]
    group.tasks = [
        (RUN_ID.bytes, 0, "etl:clean", "clean", None),
        (RUN_ID.bytes, 1, "etl:load", "load", None),
    ]
    group.task_runs = [task_run(RUN_ID, n) for n in range(17)]
    group.task_runs += [failed_task_run(RUN_ID, n) for n in range(17, 19)]
    group.task_runs += [failed_task_run(RUN_ID, 19, "other")]
    group.task_runs += [
        task_run(
            RUN_ID,
            n,
            task=1,
            state="PENDING",
            state_name="NotReady",
            started_at=None,
            ended_at=None,
        )
        for n in range(4)
    ]
    group.counts = [
        (RUN_ID.bytes, 0, "COMPLETED", 17),
        (RUN_ID.bytes, 0, "FAILED", 3),
        (RUN_ID.bytes, 1, "PENDING", 4),
    ]
    first = group.task_runs[0][0]
    group.logs = [
        (RUN_ID.bytes, None, 1, START, 20, "penstock.flow_runs", "begin"),
        (RUN_ID.bytes, first, 1, START + SECOND, 20, "penstock.task_runs", "cleaning"),
        (RUN_ID.bytes, first, 1, START + 2 * SECOND, 30, "penstock.task_runs", "odd\ntwo lines"),
        (RUN_ID.bytes, None, 1, START + 3 * SECOND, 40, "etl", "that was bad"),
        (RUN_ID.bytes, None, 1, START + 4 * SECOND, 10, "etl", "a detail"),
    ]
    return group


def write_history(home: Path, *groups: Group) -> None:
    """Write groups to the history of a `PENSTOCK_HOME`."""
    home.mkdir(parents=True, exist_ok=True)
    store = SQLiteStore(f"sqlite:///{home}/history.db")
    for group in groups:
        store.write(group)
    store.close()


def penstock(
    *arguments: str, check: int | None = 0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Type a command, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from penstock.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    if check is not None:
        assert done.returncode == check, (done.returncode, done.stdout, done.stderr)
    return done


def typed(arguments: Iterable[str]) -> int:
    """Type a command in this process; give the exit code."""
    return run_app(list(arguments))
