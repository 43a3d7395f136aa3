"""`penstock run --runner dask` and `dask:ADDRESS`, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.histories import penstock

FLOW = """
from penstock import flow, task

@task
def double(n):
    return 2 * n

@flow
def main(n: int = 21):
    return double.submit(n).result()
"""
WITHOUT_DISTRIBUTED = """
import sys
sys.modules["distributed"] = None
from penstock.cli import main
main()
"""
NOBODY = "dask:tcp://127.0.0.1:1"


@pytest.fixture
def file(tmp_path: Path) -> str:
    file = tmp_path / "doubling.py"
    file.write_text(FLOW)
    return str(file)


def shown() -> Any:
    return json.loads(penstock("show", "--json").stdout)["flow_run"]


def test_dask(file: str) -> None:
    done = penstock("run", file, "--runner", "dask", "--workers", "1")
    assert "Result  42" in done.stderr
    assert done.stdout == ""
    assert "dask" in shown()["runner"].lower()


def test_address_where_nobody_answers(file: str) -> None:
    env = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1"}
    done = penstock("run", file, "--runner", NOBODY, check=69, env=env)
    assert "No Dask scheduler answers at 'tcp://127.0.0.1:1' (tried for 1 seconds)" in done.stderr
    assert "Traceback" not in done.stderr
    assert shown()["state"]["type"] == "FAILED"


def test_distributed_is_missing(file: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DISTRIBUTED, "run", file, "--runner", "dask"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 69
    assert 'requires `distributed`; install it with: pip install "penstock[dask]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runner", "dask:"], "There is no address in 'dask:'."),
        (["--runner", NOBODY, "--workers", "2"], "--workers cannot change what runs already"),
        (
            ["--runner", "slurm"],
            "runners are: sequential, concurrent, process, dask, ray, dask:ADDRESS",
        ),
    ],
)
def test_usage(file: str, options: list[str], said: str) -> None:
    assert said in penstock("run", file, *options, check=2).stderr
