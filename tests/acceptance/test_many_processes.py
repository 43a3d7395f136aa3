"""Many processes run whole flows on one database at once: no lock error, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.checker import problems_of
from tests.history.rows import select

PROCESSES, FLOWS, TASKS = 8, 5, 60

SCRIPT = f"""
import sys
from penstock import flow, get_run_logger, task

@task
def add_one(value):
    return value + 1

@task
def speak(value):
    get_run_logger().info("value %d", value)

@flow
def main(process):
    values = add_one.map(range({TASKS}))
    speak.submit(sum(future.result() for future in add_one.map(values)))

sys.stdin.readline()
for _ in range({FLOWS}):
    main(int(sys.argv[1]))
"""


def test_eight_processes_share_one_history(penstock_home: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(os.environ),
        )
        for number in range(PROCESSES)
    ]
    for child in children:  # all at once, the first time ever: they make the database too
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    said = [child.communicate(timeout=50)[0] for child in children]
    assert [child.returncode for child in children] == [0] * PROCESSES, said
    assert said == [""] * PROCESSES
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    flow_runs = PROCESSES * FLOWS
    assert select(path, "SELECT count(*), count(DISTINCT pid) FROM flow_runs") == [
        (flow_runs, PROCESSES)
    ]
    done = "SELECT count(*) FROM task_runs WHERE state = 'COMPLETED'"
    assert select(path, done) == [(flow_runs * (2 * TASKS + 1),)]
    assert select(path, "SELECT count(*) FROM logs") == [(flow_runs,)]
