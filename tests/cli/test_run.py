"""`penstock run` and `penstock demo` on real flows, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.cli.histories import penstock
from tests.cli.terminals import on_terminal

CONSOLE = ["-c", "from penstock.cli import main; main()"]
ETL = """
import time
from penstock import flow, task

@task
def load(n):
    return n

@task(retries=1)
def clean(n):
    if n % 4 == 3:
        raise ValueError(f"bad date {n % 2}")
    return n

@flow
def etl(number: int = 8, name: str = "x"):
    print("user line", name)
    clean.map(load.map(range(number)))

@flow(name="good-one")
def good(path: str = "x"):
    print("path", repr(path))
    return load(path)
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(source: str) -> str:
        file = tmp_path / "etl.py"
        file.write_text("from penstock import flow, task\n" + dedent(source))
        return str(file)

    return write


@pytest.fixture
def etl(tmp_path: Path) -> str:
    file = tmp_path / "etl.py"
    file.write_text(ETL)
    return str(file)


def shown(run: str = "@last") -> Any:
    return json.loads(penstock("show", run, "--json").stdout)["flow_run"]


def test_completed_run(etl: str) -> None:
    done = penstock("run", f"{etl}:good", "-p", "path=2024")
    assert done.stdout == "path '2024'\n"
    lines = done.stderr.splitlines()
    assert lines[1].startswith("✓ good-one · ")
    assert "completed in" in lines[1]
    assert "load   1/1" in done.stderr
    assert "Result  '2024'" in done.stderr
    run_id = shown()["id"]
    assert lines[-1] == f"Next: penstock show {run_id[:8]}"
    assert penstock(*lines[-1].split()[2:]).stdout


def test_failed_run(etl: str) -> None:
    done = penstock("run", f"{etl}:etl", check=1)
    assert done.stdout == "user line x\n"
    said = done.stderr
    assert "✗ etl · " in said
    assert "clean   6/8  2 failed" in said
    assert "TaskFailed: 2 task runs failed: ValueError: bad date 1" in said
    assert "etl.py:12 in clean   raise ValueError" in said
    assert "Traceback" not in said
    assert "penstock/" not in said
    look = next(line for line in said.splitlines() if "Look:" in line)
    assert "ValueError: bad date" in penstock(*look.split()[2:]).stdout
    assert shown()["state"]["type"] == "FAILED"


def test_flow_that_raises(write: Callable[[str], str]) -> None:
    file = write(
        """
        def parse(text):
            return int(text)

        @flow
        def main():
            parse("no")
        """
    )
    said = penstock("run", file, check=1).stderr
    assert "FlowFailed: main failed: ValueError: invalid literal" in said
    lines = said.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("FlowFailed"))
    assert "in parse   return int(text)" in lines[first + 1]
    assert "in main " in lines[first + 2]
    assert "Traceback (most recent call last)" in penstock("run", file, "-v", check=1).stderr


def test_file_that_cannot_be_loaded(write: Callable[[str], str]) -> None:
    said = penstock("run", write("x = 1 / 0"), check=1).stderr
    assert said.splitlines()[0] == "etl.py cannot be loaded: ZeroDivisionError: division by zero"
    assert "etl.py:2 in <module>   x = 1 / 0" in said.splitlines()[1]


def test_what_was_not_ready_is_told_with_what_it_needs(write: Callable[[str], str]) -> None:
    file = write(
        """
        @task
        def clean(n):
            return 6 // n

        @task
        def use(n):
            return n

        @flow
        def main():
            use.map(use.map(clean.map([3, 0, 2])))
        """
    )
    said = penstock("run", file, check=1).stderr
    assert "2 task runs were not ready because they need clean-1." in said
    assert "2 task runs were not ready because they need clean-1." in penstock("show").stdout


def test_wrong_call_inside_a_flow_is_a_failure_of_the_flow(write: Callable[[str], str]) -> None:
    file = write(
        """
        @task
        def one(n):
            return n

        @flow
        def main(number: int = 3):
            return one(number, 2)
        """
    )
    assert "ParameterBindError" in penstock("run", file, check=1).stderr
    penstock("run", file, "-p", "number=x", check=2)


def test_quiet_run_says_only_errors(etl: str) -> None:
    assert penstock("run", f"{etl}:good", "-q").stderr == ""
    said = penstock("run", f"{etl}:etl", "-q", check=1).stderr
    assert "TaskFailed" in said
    assert "Next:" not in said


def test_json_run(etl: str) -> None:
    done = penstock("run", f"{etl}:good", "--json")
    found = json.loads(done.stdout)
    assert found["schema"] == 1
    assert found["flow_run"]["state"]["type"] == "COMPLETED"
    assert "path 'x'" in done.stderr
    assert json.loads(penstock("run", f"{etl}:etl", "--json", check=1).stdout)["flow_run"]
    assert json.loads(penstock("run", etl, "--json", check=2).stdout)["error"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "etl.py has 2 flows: etl, good."),
        ([":nosuch"], "no flow 'nosuch'"),
        ([":etl", "-p", "nosuch=1"], "nosuch"),
        ([":etl", "-p", "number=many"], "number"),
        ([":etl", "-p", "number"], "name=value"),
        ([":etl", "--runner", "slurm"], "The runners are: sequential, concurrent"),
        ([":etl", "--runner", "sequential", "--workers", "2"], "no number of workers"),
        ([":etl", "--workers", "0"], "--workers"),
    ],
)
def test_usage(etl: str, arguments: list[str], said: str) -> None:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    done = penstock("run", etl + name, *rest, check=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_flow_by_its_own_name_and_main(etl: str, write: Callable[[str], str]) -> None:
    assert "✓ good-one" in penstock("run", f"{etl}:good-one").stderr
    file = write("@flow\ndef other(): ...\n@flow\ndef main(): ...\n")
    assert "✓ main" in penstock("run", file).stderr


def test_file_without_a_flow(write: Callable[[str], str]) -> None:
    assert "has no flow" in penstock("run", write(""), check=2).stderr


@pytest.mark.parametrize("runner", ["sequential", "concurrent"])
def test_runner(etl: str, runner: str) -> None:
    penstock("run", f"{etl}:good", "--runner", runner)
    assert runner in shown()["runner"].lower()


def test_workers(write: Callable[[str], str]) -> None:
    file = write("@flow\ndef main():\n    print(main.task_runner)\n")
    penstock("run", file, "--workers", "3")
    penstock("run", file, "--runner", "concurrent", "--workers", "3")


def test_async_flow(write: Callable[[str], str]) -> None:
    file = write(
        """
        import asyncio

        @task
        async def double(n):
            await asyncio.sleep(0)
            return 2 * n

        @flow
        async def main():
            return await double(21)
        """
    )
    assert "Result  42" in penstock("run", file).stderr


@pytest.mark.parametrize(("argument", "code"), [("3", 3), ("", 0), ("'stop'", 1)])
def test_exit_in_a_flow(write: Callable[[str], str], argument: str, code: int) -> None:
    file = write(f"import sys\n@flow\ndef main():\n    sys.exit({argument})\n")
    done = penstock("run", file, check=code)
    assert ("stop" in done.stderr) == (argument == "'stop'")
    assert shown()["state"]["type"] == "CRASHED"


SLOW = """
import time

@task
def sleep(n):
    print("started", flush=True)
    time.sleep(30)

@flow
def main():
    sleep.map(range(3))
    time.sleep(30)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_ends_a_run(write: Callable[[str], str], number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, *CONSOLE, "run", write(SLOW)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        start = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert time.monotonic() - start < 25
    assert "Traceback" not in said
    assert shown()["state"]["type"] == "CRASHED"


def test_interrupt_on_a_terminal(write: Callable[[str], str]) -> None:
    typed: list[bool] = []

    def interrupt(text: str, leader: int) -> None:
        if "started" in text and "Ctrl-C" in text and not typed:
            typed.append(True)
            os.write(leader, b"\x03")

    seen = on_terminal([*CONSOLE, "run", write(SLOW)], watch=interrupt)
    assert seen.code == 130
    assert "Traceback" not in seen.raw
    assert "Stopped while running: sleep-0" in seen.text
    assert "FlowFailed" not in penstock("show").stdout


def test_live_progress_on_a_terminal(write: Callable[[str], str]) -> None:
    file = write(
        """
        import time

        @task
        def work(n):
            time.sleep(0.1)
            print("worked on", n)

        @flow
        def main():
            work.map(range(20))
        """
    )
    seen = on_terminal([*CONSOLE, "run", file, "--workers", "4"])
    assert seen.code == 0
    assert "Ctrl-C to stop" in seen.text
    printed = [line for line in seen.lines if line.startswith("worked on")]
    assert sorted(printed) == sorted(f"worked on {n}" for n in range(20))
    assert "✓ main" in seen.text
    assert not any("Ctrl-C" in line for line in seen.lines)


def test_piped_run_has_no_control_codes(etl: str) -> None:
    done = penstock("run", f"{etl}:etl", check=1)
    assert "\x1b" not in done.stdout + done.stderr


def test_database_option_is_where_the_run_is_recorded(etl: str, tmp_path: Path) -> None:
    file = str(tmp_path / "mine.db")
    penstock("run", f"{etl}:good", "--database", file)
    assert "good-one" in penstock("ls", "--database", f"sqlite:///{file}").stdout
    assert penstock("ls").stdout == ""


def test_run_without_recording(etl: str, penstock_home: Path) -> None:
    done = penstock("run", f"{etl}:etl", check=1, env={**os.environ, "PENSTOCK_RECORD": "off"})
    assert "FlowFailed: etl failed: ValueError: bad date" in done.stderr
    assert "Next:" not in done.stderr
    assert not penstock_home.exists()


def test_demo() -> None:
    done = penstock("demo")
    assert "✓ module-report" in done.stderr
    assert "SyntaxError" in done.stderr
    assert "ConnectionError" not in done.stderr
    run = shown()
    assert run["counts"]["FAILED"] == 1
    commands = [
        line.strip().split("  ")[0]
        for line in done.stderr.splitlines()
        if line.startswith("  penstock ")
    ]
    assert len(commands) == 4
    for command in commands:
        assert penstock(*command.split()[1:]).returncode == 0
    assert "cut, on purpose" in penstock("logs", "--level", "warn").stdout
