"""A script that starts worker processes without a guard: one clear error, and no processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(90)

SCRIPT = """
import multiprocessing, os, sys
from penstock import flow, task
from penstock.task_runners import DaskTaskRunner
open("loaded", "a").write("x")

@task
def add(x, y):
    return x + y

@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1}))
def example():
    return add.submit(1, 2)
"""
GUARD = 'if __name__ == "__main__":\n    '


def run(folder: Path, last_line: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT + last_line)
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=80, cwd=folder
    )


@pytest.mark.parametrize("line", ["print(example())", "if True:\n    print(example())"])
def test_without_a_guard(tmp_path: Path, line: str) -> None:
    done = run(tmp_path, line)
    assert done.returncode == 1
    [said] = [one for one in done.stderr.splitlines() if one.startswith("penstock.errors")]
    number = len((SCRIPT + line).splitlines())
    assert said.startswith(
        f"penstock.errors.EngineError: {tmp_path / 'script.py'}, line {number}, runs outside of "
        '`if __name__ == "__main__":`.'
    )
    assert 'cluster_kwargs={"processes": False}' in said
    assert done.stderr.count("Traceback") == 1
    assert "nanny" not in done.stderr
    assert (tmp_path / "loaded").read_text() == "x"


def test_with_a_guard(tmp_path: Path) -> None:
    done = run(tmp_path, GUARD + "print(example())")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
