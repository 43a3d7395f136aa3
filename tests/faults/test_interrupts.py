"""Ctrl-C, SIGTERM, SIGHUP, exits and forks in a process of its own: rows A7 to A20."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cli.terminals import on_terminal
from tests.faults.processes import run_script

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
INTERRUPTED = ("CRASHED", "Execution was aborted by an interrupt signal.")
TERMINATED = ("CRASHED", "Execution was aborted by a termination signal.")

HEAD = """
import asyncio, os, sys, time
from penstock import flow, task
from penstock.task_runners import SequentialTaskRunner

@task
def slow():
    print("started", flush=True)
    for _ in range(3000):
        time.sleep(0.01)

@task
def stuck():
    print("started", flush=True)
    time.sleep(30)

@task
async def slow_async():
    print("started", flush=True)
    await asyncio.sleep(30)

@task
def quick(number):
    return number
"""

SYNC_FLOWS = {
    "body": "slow.submit(); time.sleep(30)",
    "result": "slow.submit().result()",
    "leaving": "slow_async.submit()",
    "direct": "slow()",
    "direct_async": "slow_async()",
}
ASYNC_FLOWS = {
    "body": "slow_async.submit(); await asyncio.sleep(30)",
    "await": "await slow.submit()",
    "leaving": "slow_async.submit()",
    "direct": "await slow_async()",
}


def sync_script(body: str, decorator: str = "@flow") -> str:
    return f"{HEAD}\n{decorator}\ndef example():\n    {body}\nexample()\n"


def async_script(body: str) -> str:
    return f"{HEAD}\n@flow\nasync def example():\n    {body}\nasyncio.run(example())\n"


SCRIPTS = [
    *(pytest.param(sync_script(body), id=f"sync {name}") for name, body in SYNC_FLOWS.items()),
    *(pytest.param(async_script(body), id=f"async {name}") for name, body in ASYNC_FLOWS.items()),
    pytest.param(
        sync_script("slow.submit()", "@flow(task_runner=SequentialTaskRunner())"), id="sequential"
    ),
    pytest.param(
        sync_script(
            "future = slow.submit()\n"
            "    while not future.state.is_running(): pass\n"
            "    raise ValueError"
        ),
        id="failing",
    ),
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a9_ctrl_c_once(penstock_home: Path, script: str) -> None:
    ended = run_script(penstock_home, script, INT)
    assert ended.code == -INT, ended.output
    assert ended.seconds < 10
    assert ended.flow_runs == [INTERRUPTED]
    assert set(ended.task_runs) <= {"CANCELLED", "CRASHED"}
    assert ended.output.rstrip().endswith("KeyboardInterrupt")


def test_a9_names_what_it_waits_for(penstock_home: Path) -> None:
    ended = run_script(penstock_home, sync_script("slow.submit().result()"), INT)
    assert "Waiting for 1 task run to stop: slow-0" in ended.output


def test_g1_thread_that_cannot_be_stopped_does_not_hold_up_the_exit(penstock_home: Path) -> None:
    ended = run_script(penstock_home, sync_script("stuck.submit()"), INT)
    assert ended.seconds < 15
    assert ended.flow_runs == [INTERRUPTED]
    assert ended.task_runs == ["CANCELLED"]
    assert "1 thread could not be stopped" in ended.output


def test_a10_ctrl_c_twice_ends_sooner(penstock_home: Path) -> None:
    script = HEAD + (
        "@task\nasync def block():\n    print('started', flush=True)\n    time.sleep(20)\n"
        "@flow\ndef example(): block.submit()\n"
        "example()\n"
    )
    ended = run_script(penstock_home, script, INT, INT, pause=0.5)
    assert ended.seconds < 10
    assert ended.code == -INT
    assert ended.flow_runs == [INTERRUPTED]


def test_a10_ctrl_c_thrice_leaves_at_once(penstock_home: Path) -> None:
    ended = run_script(penstock_home, sync_script("stuck.submit()"), INT, INT, INT)
    assert ended.seconds < 4
    assert ended.code == -INT


@pytest.mark.parametrize(
    ("number", "code"), [(TERM, 143), (HUP, 129)], ids=["a7 SIGTERM", "a8 SIGHUP"]
)
@pytest.mark.parametrize(
    "script",
    [sync_script("slow.submit().result()"), async_script("await slow_async.submit()")],
    ids=["sync", "async"],
)
def test_termination(penstock_home: Path, script: str, number: signal.Signals, code: int) -> None:
    ended = run_script(penstock_home, script, number)
    assert ended.code == code, ended.output
    assert ended.seconds < 15
    assert ended.flow_runs == [TERMINATED]
    assert ended.task_runs == ["CANCELLED"]


def test_a8_under_nohup_it_goes_on(penstock_home: Path) -> None:
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + sync_script(
        "print('started', flush=True); time.sleep(0.5); return quick.submit(1).result()"
    )
    ended = run_script(penstock_home, script, HUP)
    assert ended.code == 0, ended.output
    assert ended.flow_runs[0][0] == "COMPLETED"


def test_handler_of_the_users_stays_in_force(penstock_home: Path) -> None:
    script = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n"
        + sync_script("print('started', flush=True); time.sleep(0.5)")
    )
    ended = run_script(penstock_home, script, TERM)
    assert ended.code == 0
    assert "mine" in ended.output


def test_a11_interrupt_amid_submissions_leaves_nothing_open(penstock_home: Path) -> None:
    body = "print('started', flush=True)\n    while True: quick.map(range(20)).wait()"
    ended = run_script(penstock_home, sync_script(body), INT)
    assert ended.code == -INT
    assert ended.flow_runs == [INTERRUPTED]
    assert ended.seconds < 15
    assert set(ended.task_runs) <= {"COMPLETED", "CANCELLED"}


def test_a9_in_a_terminal(penstock_home: Path) -> None:
    penstock_home.mkdir(exist_ok=True)
    path = penstock_home / "script.py"
    path.write_text(sync_script("slow.submit().result()"))
    typed: list[int] = []

    def watch(seen: str, terminal: int) -> None:
        if "started" in seen and not typed:
            typed.append(os.write(terminal, b"\x03"))

    seen = on_terminal([str(path)], watch=watch)
    assert seen.code == -INT
    assert "KeyboardInterrupt" in seen.text


@pytest.mark.parametrize("head", ["", "slow.submit(); "], ids=["alone", "with a running task"])
def test_exit_in_a_flow(penstock_home: Path, head: str) -> None:
    ended = run_script(penstock_home, sync_script(f"{head}time.sleep(0.2); sys.exit(3)"))
    assert ended.code == 3
    assert ended.flow_runs == [("CRASHED", "Execution was aborted by Python system exit call.")]


def test_a17_sudden_exit_leaves_a_consistent_history(penstock_home: Path) -> None:
    body = "quick.submit(1).result(); slow.submit(); time.sleep(1); os._exit(4)"
    ended = run_script(penstock_home, sync_script(body))
    assert ended.code == 4
    assert ended.flow_runs == [("RUNNING", None)]
    assert ended.task_runs == ["COMPLETED", "RUNNING"]


def test_a18_fork_in_a_task(penstock_home: Path) -> None:
    script = HEAD + (
        "@task\n"
        "def fork():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        quick(2)\n"
        "        os._exit(0)\n"
        "    return os.waitpid(child, 0)[1]\n"
        "@flow\n"
        "def example(): return [fork.submit(), quick.submit(1)]\n"
        "assert example() == [0, 1]\n"
    )
    ended = run_script(penstock_home, script)
    assert ended.code == 0, ended.output
    assert ended.task_runs == ["COMPLETED", "COMPLETED"]


def test_a19_limit_of_open_files(penstock_home: Path) -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        + HEAD
        + "held = []\n"
        "try:\n"
        "    while True: held.append(open(os.devnull))\n"
        "except OSError: held.pop().close()\n"
        "@flow\n"
        "def example(): return quick.submit(1).result()\n"
        "try: example()\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    ended = run_script(penstock_home, script)
    assert ended.code == 0, ended.output
    assert "HistoryUnavailable" in ended.output or "HistoryError" in ended.output


def test_a20_sync_flow_inside_a_running_loop(penstock_home: Path) -> None:
    script = HEAD + (
        "@flow\n"
        "def example(): return [quick.submit(1), quick.submit(2)]\n"
        "async def notebook(): return example()\n"
        "print(asyncio.run(notebook()))\n"
    )
    ended = run_script(penstock_home, script)
    assert "[1, 2]" in ended.output
