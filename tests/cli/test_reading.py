"""`ls`, `show`, `tasks`, `task` and `logs` on a made-up history."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock.history.base import Group
from tests.cli.histories import (
    OTHER_ID,
    RUN_ID,
    SECOND,
    START,
    flow_run,
    penstock,
    sample_group,
    task_run,
    typed,
    write_history,
)
from tests.cli.terminals import on_terminal

CONSOLE = ["-c", "from penstock.cli import main; main()"]
ALL_READING = [
    ["ls"],
    ["show", "7f3a"],
    ["tasks", "7f3a"],
    ["task", "7f3a:clean:17"],
    ["logs", "7f3a"],
]
Captured = pytest.CaptureFixture[str]


def out_of(capsys: Captured, *arguments: str, code: int = 0) -> str:
    assert typed(arguments) == code
    return capsys.readouterr().out


def json_of(capsys: Captured, *arguments: str, code: int = 0) -> Any:
    return json.loads(out_of(capsys, *arguments, "--json", code=code))


def test_ls(history: Path, capsys: Captured) -> None:
    lines = out_of(capsys, "ls").splitlines()
    titles = ["RUN", "NAME", "FLOW", "STATE", "STARTED", "TOOK", "TASKS", "TAGS", "MESSAGE"]
    assert lines[0].split() == titles
    assert lines[1].startswith("c0ffee00  calm-heron   census     completed")
    assert "7f3a01bc  brave-otter  sales-etl  failed" in lines[2]
    assert "17/24, 3 failed  nightly eu  3/24 task runs failed." in lines[2]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["calm-heron", "brave-otter"]),
        (["--state", "failed"], ["brave-otter"]),
        (["--flow", "census"], ["calm-heron"]),
        (["--tag", "eu"], ["brave-otter"]),
        (["--tag", "us"], []),
        (["--limit", "1"], ["calm-heron"]),
    ],
)
def test_ls_filters(history: Path, capsys: Captured, options: list[str], names: list[str]) -> None:
    found = json_of(capsys, "ls", *options)
    assert found["schema"] == 1
    assert [run["name"] for run in found["flow_runs"]] == names


def test_ls_says_that_there_are_more(history: Path, capsys: Captured) -> None:
    typed(["ls", "--limit", "1"])
    assert "There are more: penstock ls --limit 5" in capsys.readouterr().err


def test_ls_without_a_history(capsys: Captured) -> None:
    assert typed(["ls"]) == 0
    assert capsys.readouterr().err == "No runs yet. Try: penstock demo\n"
    assert json_of(capsys, "ls")["flow_runs"] == []


def test_wide_shows_full_ids(history: Path, capsys: Captured) -> None:
    assert str(RUN_ID) in out_of(capsys, "ls", "--wide")
    assert "01980000-0000-7000-8000-" in out_of(capsys, "tasks", "7f3a", "--wide")


def test_show(history: Path, capsys: Captured) -> None:
    text = out_of(capsys, "show", "7f3a")
    assert "sales-etl · brave-otter" in text
    assert "state       failed: 3/24 task runs failed." in text
    assert "parameters  path='sales.csv'" in text
    assert "clean  █████████████████░░░  17/20  3 failed" in text
    assert "load   ░░░░░░░░░░░░░░░░░░░░    0/4  4 not ready" in text
    assert "TaskFailed: 2 task runs failed: ValueError: bad date" in text
    assert "    /home/me/etl.py:88 in parse   return date.fromisoformat(s)" in text
    assert "TaskFailed: clean-19 failed after 3 attempts: ValueError: other" in text
    assert "Look: penstock task 7f3a01bc:clean:17" in text
    assert "drivers.py" not in text


def test_verbose_show_has_the_whole_traceback(history: Path, capsys: Captured) -> None:
    assert "drivers.py" in out_of(capsys, "show", "7f3a", "-v")


def test_show_names_what_to_look_at_by_a_command_that_works(
    history: Path, capsys: Captured
) -> None:
    assert "ValueError: bad date" in out_of(capsys, "task", "7f3a01bc:clean:17")
    assert "clean-18" in out_of(capsys, "tasks", "7f3a01bc", "--state", "failed")


def test_show_json(history: Path, capsys: Captured) -> None:
    shown = json_of(capsys, "show", "brave-otter")
    assert shown["flow_run"]["id"] == str(RUN_ID)
    assert shown["flow_run"]["state"] == {
        "type": "FAILED",
        "name": "Failed",
        "message": "3/24 task runs failed.",
    }
    assert [failure["count"] for failure in shown["failures"]] == [2, 1]
    assert len(shown["failures"][0]["task_run_ids"]) == 2


def test_last_is_the_default(history: Path, capsys: Captured) -> None:
    assert json_of(capsys, "show")["flow_run"]["id"] == str(OTHER_ID)
    assert json_of(capsys, "show", "@last")["flow_run"]["id"] == str(OTHER_ID)
    assert json_of(capsys, "show", "@last-failed")["flow_run"]["id"] == str(RUN_ID)


def test_show_of_a_run_whose_process_is_gone(penstock_home: Path, capsys: Captured) -> None:
    import socket

    row = flow_run(
        RUN_ID,
        state="RUNNING",
        ended_at=None,
        host=socket.gethostname(),
        pid=2**22 + 1,
        pid_started_at=1,
    )
    write_history(penstock_home, Group(flow_runs=[row]))
    if not json_of(capsys, "show")["flow_run"]["stale"]:
        pytest.skip("the history cannot tell on this machine")
    assert typed(["show"]) == 0
    seen = capsys.readouterr()
    assert "stale: it was running, but its process 4194305 is gone" in seen.out
    assert "Follow its log" not in seen.err  # nothing more will come
    assert "Continue it: penstock resume 7f3a01bc" in seen.err
    assert "stale" in out_of(capsys, "ls")


def test_show_of_a_run_that_gives_no_sign_of_life(penstock_home: Path, capsys: Captured) -> None:
    row = flow_run(RUN_ID, state="RUNNING", ended_at=None, host="node7", pid=1)
    write_history(penstock_home, Group(flow_runs=[row]))
    with closing(sqlite3.connect(penstock_home / "history.db")) as connection, connection:
        lease = (RUN_ID.bytes, 1, 7, START + SECOND, "node\x1b[31m7", 1, 1)
        connection.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)", lease)
    assert json_of(capsys, "ls")["flow_runs"][0]["stale_since"].startswith("2026-09-21T14:13:21")
    text = out_of(capsys, "show", "--wide")
    assert "stale: it was running, but no sign of life from node7 for " in text
    assert " ago)" in text
    assert "\x1b" not in text
    assert "no sign of life from node7" in out_of(capsys, "ls", "--wide")


def test_error_of_the_flow_itself(penstock_home: Path, capsys: Captured) -> None:
    error = {"type": "KeyError", "message": "'x'", "traceback": ""}
    write_history(
        penstock_home, Group(flow_runs=[flow_run(RUN_ID, state="FAILED", error=json.dumps(error))])
    )
    assert "FlowFailed: KeyError: 'x'" in out_of(capsys, "show")


def test_tasks(history: Path, capsys: Captured) -> None:
    lines = out_of(capsys, "tasks", "7f3a", "--state", "failed").splitlines()
    assert lines[0].split() == ["TASK", "RUN", "STATE", "TRIES", "STARTED", "TOOK", "ERROR"]
    assert lines[1].startswith("clean-17  failed      3")
    assert lines[1].endswith("1.8 s  ValueError: bad date")
    assert len(lines) == 4
    assert out_of(capsys, "tasks", "7f3a", "--name", "load").count("not ready") == 4


def test_tasks_limit(history: Path, capsys: Captured) -> None:
    assert typed(["tasks", "7f3a", "--limit", "3"]) == 0
    written = capsys.readouterr()
    assert len(written.out.splitlines()) == 4
    assert "There are more: penstock tasks 7f3a01bc --limit 30" in written.err
    assert len(json_of(capsys, "tasks", "7f3a", "--limit", "3")["task_runs"]) == 3
    assert len(json_of(capsys, "tasks", "7f3a")["task_runs"]) == 24


def test_task(history: Path, capsys: Captured) -> None:
    text = out_of(capsys, "task", "@last-failed:clean:19")
    assert text.startswith("clean-19\n")
    assert "attempts    3" in text
    assert "ValueError: other" in text
    shown = json_of(capsys, "task", "7f3a:clean:19")["task_run"]
    assert shown["error"]["message"] == "other"
    assert json_of(capsys, "task", shown["id"])["task_run"] == shown


def test_logs(history: Path, capsys: Captured) -> None:
    lines = out_of(capsys, "logs", "7f3a").splitlines()
    assert [line.split()[1] for line in lines if "two" not in line] == [
        *("INFO", "INFO", "WARN", "ERROR", "DEBUG")
    ]
    assert lines[2].endswith("WARN   clean-0  odd")
    assert lines[3].strip() == "two lines"
    assert lines[3].index("two") == lines[2].index("odd")


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--level", "warn"], ["odd\ntwo lines", "that was bad"]),
        (["--level", "ERROR"], ["that was bad"]),
        (["--task", "clean"], ["cleaning", "odd\ntwo lines"]),
        (["--task", "clean-0"], ["cleaning", "odd\ntwo lines"]),
        (["--task", "7f3a:clean:0", "--level", "warning"], ["odd\ntwo lines"]),
        (["--task", "clean-1"], []),
        (["-f", "--level", "error"], ["that was bad"]),
    ],
)
def test_logs_options(
    history: Path, capsys: Captured, options: list[str], messages: list[str]
) -> None:
    found = json_of(capsys, "logs", "7f3a", *options)
    assert [line["message"] for line in found["logs"]] == messages
    lines = out_of(capsys, "logs", "7f3a", *options, "--jsonl").splitlines()
    assert [json.loads(line)["message"] for line in lines] == messages


def test_logs_follows_until_the_end(penstock_home: Path) -> None:
    import subprocess
    import sys

    group = sample_group()
    running = Group(flow_runs=[flow_run(RUN_ID, state="RUNNING", ended_at=None, seq=1)])
    running.logs = group.logs[:1]
    write_history(penstock_home, running)
    with subprocess.Popen(
        [sys.executable, *CONSOLE, "logs", "-f"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("begin\n")
        ended = Group(flow_runs=[flow_run(RUN_ID, seq=2)], logs=group.logs[3:4])
        write_history(penstock_home, ended)
        assert process.stdout.readline().endswith("that was bad\n")
        assert process.stdout.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("command", ALL_READING, ids=lambda command: command[0])
def test_json_is_one_object_and_jsonl_one_a_line(
    history: Path, capsys: Captured, command: list[str]
) -> None:
    assert json_of(capsys, *command)["schema"] == 1
    for line in out_of(capsys, *command, "--jsonl").splitlines():
        assert json.loads(line)["schema"] == 1
    assert typed([*command, "--json", "--jsonl"]) == 2


@pytest.mark.parametrize("command", ALL_READING, ids=lambda command: command[0])
def test_piped_output_has_no_control_codes(history: Path, command: list[str]) -> None:
    done = penstock(*command)
    assert "\x1b" not in done.stdout + done.stderr
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("command", ALL_READING[:4], ids=lambda command: command[0])
def test_tables_fit_a_terminal(history: Path, command: list[str], columns: int) -> None:
    seen = on_terminal([*CONSOLE, *command], columns=columns)
    assert seen.code == 0
    assert "\x1b[" in seen.raw
    # The hints at the end are commands to copy; they are never cut.
    lines = [line for line in seen.lines if "penstock " not in line]
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "1"}])
def test_plain_terminal(history: Path, environment: dict[str, str]) -> None:
    assert "\x1b" not in on_terminal([*CONSOLE, "show", "7f3a"], environment=environment).raw


def test_c_locale_gets_ascii(history: Path) -> None:
    seen = on_terminal([*CONSOLE, "show", "7f3a"], environment={"LC_ALL": "C"})
    assert seen.raw.isascii()
    assert "##########" in seen.raw


def test_text_from_the_history_cannot_control_the_terminal(penstock_home: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jx\u202ey"
    group = Group(
        flow_runs=[flow_run(RUN_ID, name=evil, flow=evil, message=evil, tags=json.dumps([evil]))]
    )
    group.tasks = [(RUN_ID.bytes, 0, evil, evil, None)]
    group.task_runs = [task_run(RUN_ID, 0, state="FAILED", message=evil)]
    group.counts = [(RUN_ID.bytes, 0, "FAILED", 1)]
    group.logs = [(RUN_ID.bytes, None, 1, 1, 20, evil, evil)]
    write_history(penstock_home, group)
    for command in ("ls", "show", "tasks", "logs"):
        for option in ((), ("--json",)):
            text = penstock(command, *option).stdout
            assert not {"\x1b", "\x07", "\u202e"} & set(text), (command, option)


def test_closed_pipe_is_silent(penstock_home: Path) -> None:
    import subprocess
    import sys

    group = sample_group()
    group.logs = [(RUN_ID.bytes, None, 1, n, 20, "x", "y" * 200) for n in range(5_000)]
    write_history(penstock_home, group)
    with subprocess.Popen(
        [sys.executable, *CONSOLE, "logs", "7f3a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read().decode().splitlines()[1:] == []
    assert process.returncode == 141
