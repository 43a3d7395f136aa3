"""Run a script that uses Penstock in a process of its own, send it signals, read its history."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LIMIT = 40.0


@dataclass
class Ended:
    """How a script ended.

    Attributes:
        code: its exit code; negative for a signal that killed it.
        output: what it wrote, errors included.
        seconds: from the first signal (or the start) to the end.
        flow_runs: (state, message) of each flow run in the history.
        task_runs: the state of each task run in the history, sorted.
    """

    code: int
    output: str
    seconds: float
    flow_runs: list[tuple[str, str | None]]
    task_runs: list[str]


def run_script(home: Path, script: str, *signals: signal.Signals, pause: float = 0.2) -> Ended:
    """Run a script; send the signals, the first one when it has written its first line."""
    home.mkdir(exist_ok=True)
    path = home / "script.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline() if signals else ""
        began = time.monotonic()
        _send(process, signals, pause)
        said += process.stdout.read()
    code = process.wait(LIMIT)
    return Ended(code, said, time.monotonic() - began, *_history(home / "history.db"))


def _send(
    process: subprocess.Popen[str], signals: tuple[signal.Signals, ...], pause: float
) -> None:
    for index, number in enumerate(signals):
        if index:
            # Signals of one kind that wait together are one; apart they count.
            time.sleep(pause)
        if process.poll() is None:
            process.send_signal(number)


def _history(path: Path) -> tuple[list[tuple[str, str | None]], list[str]]:
    if not path.exists():
        return [], []
    connection = sqlite3.connect(path)
    try:
        flows = list(connection.execute("SELECT state, message FROM flow_runs ORDER BY rowid"))
        tasks = sorted(row[0] for row in connection.execute("SELECT state FROM task_runs"))
    finally:
        connection.close()
    return flows, tasks
