"""`penstock resume` and `penstock run --resume-last`, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PENSTOCK = Path(sys.executable).with_name("penstock")
SOURCE = """
import os
from dataclasses import dataclass
from penstock import flow, task

@dataclass
class Size:
    value: int

@task
def step(size):
    with open(os.environ["LEDGER"], "a") as file:
        file.write(f"step {size.value}\\n")
    return size

@flow
def main(n: int = 3):
    sizes = [step(Size(i)) for i in range(n)]
    if os.environ.get("BROKEN"):
        raise RuntimeError("broken")
    return sum(size.value for size in sizes)
"""


class Shell:
    """Runs commands in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"

    def __call__(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env={**os.environ, "LEDGER": str(self.ledger), **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def steps(self) -> list[str]:
        return self.ledger.read_text("utf-8").split("\n")[:-1]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def script(shell: Shell, end: str = "") -> Path:
    file = shell.folder / "etl.py"
    file.write_text(SOURCE + end, "utf-8")
    return file


@pytest.mark.parametrize("end", ["\nmain()\n", "\nif __name__ == '__main__':\n    main()\n"])
def test_a_script_that_python_ran(shell: Shell, end: str) -> None:
    file = script(shell, end)
    first = shell(sys.executable, file, BROKEN="yes")
    assert first.returncode == 1
    shell.folder = Path("/")
    again = shell(PENSTOCK, "resume", "@last")
    assert again.returncode == 0, again.stderr
    assert "Result  3" in again.stderr
    assert shell.steps() == ["step 0", "step 1", "step 2"]


def test_a_module_of_a_package(shell: Shell) -> None:
    package = shell.folder / "work"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sizes.py").write_text("LARGE = 9\n")
    (package / "etl.py").write_text("from .sizes import LARGE\n" + SOURCE + "\nmain(LARGE)\n")
    assert shell(sys.executable, "-m", "work.etl", BROKEN="yes").returncode == 1
    shell.folder = Path("/")
    again = shell(PENSTOCK, "resume", "@last")
    assert again.returncode == 0, again.stderr
    assert len(shell.steps()) == 9


def test_a_file_that_penstock_ran(shell: Shell) -> None:
    file = script(shell)
    first = shell(PENSTOCK, "run", file, "-p", "n=2", BROKEN="yes")
    assert first.returncode == 1
    assert "Fix and continue: penstock resume " in first.stderr
    id = first.stderr.rpartition("penstock resume ")[2].strip()
    again = shell(PENSTOCK, "resume", id, "--runner", "sequential", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["flow_run"]["state"]["type"] == "COMPLETED"
    assert json.loads(again.stdout)["flow_run"]["counts"] == {"COMPLETED": 2}
    once_more = shell(PENSTOCK, "resume", id)
    assert once_more.returncode == 0
    assert "has completed already. Nothing to do." in once_more.stderr
    assert shell.steps() == ["step 0", "step 1"]


def test_python_and_penstock_take_each_others_runs(shell: Shell) -> None:
    file = script(shell, "\nif __name__ == '__main__':\n    print(main.resume('@last'))\n")
    assert shell(PENSTOCK, "run", file, BROKEN="yes").returncode == 1
    again = shell(sys.executable, file)
    assert again.stdout == "3\n", again.stderr
    assert shell.steps() == ["step 0", "step 1", "step 2"]


def test_resume_last(shell: Shell) -> None:
    file = script(shell)
    nothing = shell(PENSTOCK, "run", file, "--resume-last")
    assert nothing.returncode in (4, 74)
    assert shell(PENSTOCK, "run", file, BROKEN="yes").returncode == 1
    again = shell(PENSTOCK, "run", file, "--resume-last")
    assert again.returncode == 0, again.stderr
    assert shell.steps() == ["step 0", "step 1", "step 2"]


@pytest.mark.parametrize("harm", ["gone", "renamed flow"])
def test_code_that_is_not_there_changes_nothing(shell: Shell, harm: str) -> None:
    file = script(shell)
    assert shell(PENSTOCK, "run", file, BROKEN="yes").returncode == 1
    kept = shell.folder / "kept.py"
    shutil.copy(file, kept)
    if harm == "gone":
        file.unlink()
    else:
        file.write_text(SOURCE.replace("def main", "def other"), "utf-8")
    refused = shell(PENSTOCK, "resume", "@last")
    assert refused.returncode == 69
    assert "Nothing was changed." in refused.stderr
    assert "Traceback" not in refused.stderr
    shutil.copy(kept, file)
    assert shell(PENSTOCK, "resume", "@last").returncode == 0


def test_unknown_runs(shell: Shell) -> None:
    assert shell(PENSTOCK, "run", script(shell)).returncode == 0
    unknown = shell(PENSTOCK, "resume", "no-such-run")
    assert unknown.returncode == 4
    assert "There is no flow run 'no-such-run'" in unknown.stderr
