"""Flow runs are killed -9 and resumed: what was recorded is not run again, on any engine."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.resumable import EXPECTED
from tests.checker import problems_of

SCRIPT = Path(__file__).with_name("resumable.py")
ROOT = SCRIPT.parents[2]
PENSTOCK = Path(sys.executable).with_name("penstock")
PATIENCE = 100.0


class Driver:
    """Runs the script in processes of its own."""

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "ledger"
        self.environment = {**os.environ, "LEDGER": str(self.ledger)}

    def penstock(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PENSTOCK, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def killed(self, *arguments: str, die_in: str) -> None:
        """Kill the driver of a run -9 once it says that it is where it should be."""
        process = subprocess.Popen(
            [PENSTOCK, *arguments],
            env={**self.environment, "DIE_IN": die_in},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + PATIENCE
        while "ready" not in self.lines():
            assert process.poll() is None, self.lines()
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def lines(self) -> list[str]:
        return self.ledger.read_text("utf-8").split("\n")[:-1] if self.ledger.exists() else []

    def done(self) -> Counter[str]:
        return Counter(line for line in self.lines() if line != "ready")


def completed(path: Path) -> set[str]:
    """Give what the ledger says of the task runs that are recorded as completed."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT t.name, r.parameters FROM task_runs AS r JOIN tasks AS t"
            " ON t.flow_run_id = r.flow_run_id AND t.number = r.task WHERE r.state = 'COMPLETED'"
        ).fetchall()
    named = [(name, json.loads(parameters)) for name, parameters in rows]
    return {f"{name} {values['x']}" for name, values in named if name != "inner"}


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


@pytest.mark.parametrize("die_in", ["end", "nested", "inner"])
@pytest.mark.parametrize("runner", ["concurrent", "sequential", "process", "dask"])
def test_what_was_recorded_is_not_run_again(
    driver: Driver, penstock_home: Path, runner: str, die_in: str
) -> None:
    driver.killed("run", str(SCRIPT) + ":main", "-p", "n=4", "--runner", runner, die_in=die_in)
    recorded = completed(penstock_home / "history.db")
    resumed = driver.penstock("resume", "@last", "--runner", runner)
    assert resumed.returncode == 0, resumed.stderr
    assert f"Result  {EXPECTED}" in resumed.stderr
    done = driver.done()
    assert recorded
    assert {line: done[line] for line in recorded} == dict.fromkeys(recorded, 1)
    assert problems_of(penstock_home / "history.db") == []
