"""Large results of workers: stored there, without a copy, and not brought to the flow (E9, J8)."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy
import pytest

from penstock import flow, task
from penstock.errors import ResultStorageError
from penstock.results.references import out_of_reach
from penstock.task_runners import ProcessPoolTaskRunner
from penstock.testing.kept_results import held

MEGA = 10**6
SIZE = 200 * MEGA
_NEW_MOUNTS = 0x00020000


def peak(reset: bool = False) -> int:
    """Give the most memory of this process since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc"
)


@needs_proc
def test_large_result_costs_the_flow_no_memory_and_the_worker_no_copy() -> None:
    @task(persist_result=True)
    def block() -> Any:
        return numpy.ones(SIZE, dtype="u1")

    @task
    def warm() -> int:
        return peak(reset=True)

    @task
    def highest() -> int:
        return peak()

    @flow(task_runner=ProcessPoolTaskRunner(1))
    def main() -> tuple[int, int]:
        of_worker = warm.submit().result()
        before = peak(reset=True)
        futures.append(block.submit())
        futures[0].wait()
        grown = peak() - before
        return grown, highest.submit().result() - of_worker

    futures: list[Any] = []
    of_driver, of_worker = main()
    assert of_driver < 20 * MEGA
    assert SIZE * 0.9 < of_worker < SIZE + 60 * MEGA
    assert held(futures[0])[1] == "stored"


def test_result_that_only_its_worker_sees_fails_the_task(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()

    @task(persist_result=True, result_storage=folder)
    def elsewhere() -> Any:
        # As on another machine: the same path, another folder.
        if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
            return "not allowed"
        for command in (
            ["mount", "--make-rprivate", "/"],
            ["mount", "-t", "tmpfs", "tmpfs", str(folder)],
        ):
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return "not allowed"
        return b"x" * 100_000

    @flow(task_runner=ProcessPoolTaskRunner(1))
    def main() -> None:
        future = elsewhere.submit()
        state = future.wait()
        assert state is not None
        if state.is_completed():
            pytest.skip("this system does not let a process mount anything")
        with pytest.raises(ResultStorageError, match="is not there for the process that runs the"):
            future.result()

    main()
    assert os.listdir(folder) == []


def test_what_is_there_is_not_out_of_reach(tmp_path: Path) -> None:
    @task(persist_result=True, result_storage=tmp_path)
    def block() -> Any:
        return b"x" * 100_000

    @flow
    def main() -> None:
        futures.append(block.submit())

    futures: list[Any] = []
    main()
    data, _ = held(futures[0])
    assert data is not None
    assert out_of_reach(data) is None
    next(path for path in tmp_path.rglob("*") if path.is_file()).unlink()
    assert isinstance(out_of_reach(data), ResultStorageError)
