"""Exit codes and error texts."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from penstock import errors
from penstock.cli.exits import problem_of
from tests.cli.histories import penstock, typed

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nosuch"], 2, "There is no command 'nosuch'."),
        (["shwo"], 2, "Did you mean 'show'?"),
        (["show", "--nosuch"], 2, "No such option"),
        (["ls", "--state", "lost"], 2, "'lost' is not one of"),
        (["ls", "--limit", "0"], 2, "--limit"),
        (["show", "nosuch"], 4, "There is no flow run 'nosuch'"),
        (["task", "7f3a:clean:99"], 4, "There is no task run"),
        (["logs", "7f3a", "--task", "nosuch"], 4, "nosuch"),
        (["show", "--database", "mongo://x"], 2, "'mongo' is no kind of history"),
        (["show", "--database", "/no/such/file.db"], 74, "There is no history yet"),
        (["run", "nosuch.py"], 2, "There is no file 'nosuch.py'."),
    ],
)
def test_error(history: Path, capsys: Captured, arguments: list[str], code: int, said: str) -> None:
    assert typed(arguments) == code
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("Error: ")
    assert said in written.err
    assert "Traceback" not in written.err
    assert typed([*arguments, "--json"]) == code
    error = json.loads(capsys.readouterr().out)["error"]
    assert said in error["reason"]
    assert {"code", "reason", "hint"} == set(error)


def test_ambiguous_prefix(history: Path, capsys: Captured) -> None:
    from penstock.history.base import Group
    from tests.cli.histories import RUN_ID, flow_run, write_history

    near = type(RUN_ID)(int=RUN_ID.int + 1)
    write_history(history, Group(flow_runs=[flow_run(near)]))
    assert typed(["show", "7f3a01bc"]) == 4
    said = capsys.readouterr().err
    assert str(RUN_ID) in said
    assert str(near) in said


def test_no_arguments_give_help(capsys: Captured) -> None:
    assert typed([]) == 2
    assert capsys.readouterr().err.startswith("Usage: penstock")
    assert typed(["--help"]) == 0
    assert "Show one flow run" in capsys.readouterr().out


def test_history_of_a_newer_penstock(history: Path, capsys: Captured) -> None:
    with sqlite3.connect(history / "history.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert typed(["ls"]) == 65
    assert "99" in capsys.readouterr().err


def test_damaged_history(history: Path, capsys: Captured) -> None:
    for beside in history.glob("history.db*"):
        beside.unlink()
    (history / "history.db").write_bytes(b"nonsense" * 1000)
    assert typed(["ls"]) == 65


def test_setting_that_cannot_be(history: Path, capsys: Captured) -> None:
    os.environ["PENSTOCK_RECORD"] = "perhaps"
    assert typed(["ls"]) == 2
    assert "PENSTOCK_RECORD is 'perhaps'" in capsys.readouterr().err


def test_missing_dependency() -> None:
    problem = problem_of(errors.MissingDependencyError("install it with: pip install x"))
    assert problem is not None
    assert problem.exit == 69


def test_own_bug(history: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    import penstock.cli.flow_runs as module

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(module, "_write_runs", broken)
    assert typed(["ls"]) == 3
    said = capsys.readouterr().err
    assert "this is a bug: ZeroDivisionError: oops" in said
    assert "Traceback" not in said
    assert typed(["ls", "-v"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_version(capsys: Captured) -> None:
    from penstock.version import __version__

    assert typed(["version"]) == 0
    assert capsys.readouterr().out == f"penstock {__version__}\n"
    assert typed(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert found["penstock"] == __version__
    assert typed(["version", "-v"]) == 0
    assert "python 3." in capsys.readouterr().out


def test_version_starts_fast() -> None:
    def seconds() -> float:
        # Of the processor, as tests share theirs with others: the goal is 120 ms on an idle one.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        penstock("version")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.4


def test_reading_loads_no_runtime_and_no_rich(history: Path) -> None:
    code = (
        "import sys; from penstock.cli.app import run_app; run_app(['show', '7f3a']);"
        "print([m for m in sys.modules if m.startswith(('penstock.runtime', 'penstock.flows', "
        "'rich', 'pickle', 'asyncio'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
