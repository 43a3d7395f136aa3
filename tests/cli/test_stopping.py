"""Signals that end a run, also one that does not want to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.histories import penstock

CONSOLE = ["-c", "from penstock.cli import main; main()"]
STUBBORN = """
import asyncio
import time

from penstock import flow, task


@task
def sync_task(name):
    said = False
    while True:
        try:
            said = said or print("started", flush=True) is None
            time.sleep(0.1)
        except BaseException:
            pass


@task
async def async_task(name):
    said = False
    while True:
        try:
            said = said or print("started", flush=True) is None
            await asyncio.sleep(0.1)
        except BaseException:
            pass


@flow
def in_main_thread():
    sync_task("x")


@flow
def in_worker():
    sync_task.submit("x").result()


@flow
async def on_loop():
    await async_task("x")
"""


def stopped(file: Path, flow: str, numbers: list[signal.Signals]) -> tuple[int, str, float]:
    """Run a flow, send it signals once it is at work; give exit code, stderr and seconds."""
    with subprocess.Popen(
        [sys.executable, *CONSOLE, "run", f"{file}:{flow}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        start = time.monotonic()
        for number in numbers:
            # The next one, when this one has been taken in; signals of a kind do not add up.
            process.send_signal(number)
            time.sleep(0.4)
        _, said = process.communicate(timeout=30)
    return process.returncode, said, time.monotonic() - start


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    file = tmp_path / "stubborn.py"
    file.write_text(STUBBORN)
    return file


def last_state() -> Any:
    return json.loads(penstock("show", "--json").stdout)["flow_run"]["state"]


@pytest.mark.parametrize("flow", ["in_main_thread", "in_worker", "on_loop"])
def test_second_interrupt_ends_any_run(stubborn: Path, flow: str) -> None:
    code, said, seconds = stopped(stubborn, flow, [signal.SIGINT] * 2)
    assert code == 130, said
    assert seconds < 15
    assert "Traceback" not in said
    state = last_state()
    assert state["type"] == "CRASHED"
    assert state["message"] == "Execution was aborted by an interrupt signal."


def test_third_interrupt_ends_a_run_at_once(stubborn: Path) -> None:
    code, said, seconds = stopped(stubborn, "in_main_thread", [signal.SIGINT] * 3)
    assert code == 130, said
    assert seconds < 5
    assert "Traceback" not in said


def test_termination_leaves_a_flow_behind_that_does_not_stop(stubborn: Path) -> None:
    code, said, seconds = stopped(stubborn, "in_main_thread", [signal.SIGTERM])
    assert code == 143, said
    assert 6 < seconds < 25
    assert "did not stop and was left behind" in said
    assert last_state()["message"] == "Execution was aborted by a termination signal."


SUBMITTING = """
import time

from penstock import flow, task


@task
def rest(number):
    time.sleep(30)


@flow
def main():
    print("started", flush=True)
    rest.map(range(3000))
    time.sleep(30)
"""


def test_interrupt_while_task_runs_are_being_submitted(tmp_path: Path) -> None:
    file = tmp_path / "submitting.py"
    file.write_text(SUBMITTING)
    code, said, seconds = stopped(file, "main", [signal.SIGINT])
    assert code == 130, said
    assert seconds < 15
    assert "Traceback" not in said
    assert last_state()["type"] == "CRASHED"
