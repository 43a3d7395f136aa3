"""Schedulers that die, connections that are cut, drivers that end: rows C2, C3, C8, C15."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from penstock import State, StateType, flow, task
from penstock.errors import EngineLost
from penstock.task_runners import DaskTaskRunner
from penstock.testing.ledger import Gate, Ledger, wait_until
from tests.faults.dask_runs import LARGE, Proxy, history, wait_for_line
from tests.faults.processes import run_script
from tests.task_runners.dask.external import ExternalCluster, external_cluster

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("lasting_of_dask")]
CRASHED = StateType.CRASHED


def test_c3_the_scheduler_is_killed(
    two_workers: ExternalCluster,
    penstock_home: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.task_runners.dask.watch.LOST_SECONDS", 2.0)
    begun = Ledger(tmp_path / "begun")

    @task
    def wait() -> None:
        begun.add("wait")
        time.sleep(60)

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example() -> Any:
        future = wait.submit()
        wait_for_line(begun)
        two_workers.scheduler.kill()
        return future.result()

    began = time.monotonic()
    state: State = example(return_state=True)
    assert time.monotonic() - began < 10
    check_engine_lost(state, penstock_home, caplog)


def check_engine_lost(state: State, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert state.type is CRASHED
    assert "run the flow again" in str(state.message)
    assert isinstance(state.data, EngineLost)
    assert [row[0] for row in history(home, "wait")] == ["CRASHED"]
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    ours = [record for record in said if record.name.startswith("penstock")]
    assert len(ours) == 1, [record.getMessage() for record in said]


def test_c3_the_scheduler_is_killed_under_an_async_flow(
    two_workers: ExternalCluster,
    penstock_home: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.task_runners.dask.watch.LOST_SECONDS", 2.0)
    begun = Ledger(tmp_path / "begun")

    @task
    def wait() -> None:
        begun.add("wait")
        time.sleep(60)

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    async def example() -> Any:
        future = wait.submit()
        while not begun.lines():
            await asyncio.sleep(0.01)
        two_workers.scheduler.kill()
        return await future

    state = asyncio.run(example(return_state=True))
    check_engine_lost(state, penstock_home, caplog)


def test_c8_the_connection_is_cut_for_a_while(
    two_workers: ExternalCluster, penstock_home: Path, tmp_path: Path
) -> None:
    begun, gate = Ledger(tmp_path / "begun"), Gate(tmp_path / "gate")

    @task
    def make() -> bytes:
        return b"x" * LARGE

    @task
    def wait() -> int:
        begun.add("wait")
        gate.wait()
        return 5

    @task
    def count(number: int) -> int:
        return number

    proxy = Proxy(two_workers.address)
    try:

        @flow(task_runner=DaskTaskRunner(address=proxy.address))
        def example() -> Any:
            before, data = count.map(range(50)), make.submit()
            assert before.result() == list(range(50))
            data.wait()
            future = wait.submit()
            wait_for_line(begun)
            others = count.map(range(50, 150))
            proxy.cut()
            later = count.map(range(150, 200))
            time.sleep(1.0)
            proxy.mend()
            gate.open()
            assert others.result() == list(range(50, 150))
            assert later.result() == list(range(150, 200))
            assert future.result() == 5
            assert data.result() == b"x" * LARGE
            return None

        example()
    finally:
        proxy.close()
    assert Counter(row[0] for row in history(penstock_home, "count")) == {"COMPLETED": 200}


def test_c2_no_workers_left_is_said_and_outlived(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("penstock.task_runners.dask.watch.NO_WORKERS_SECONDS", 1.0)
    monkeypatch.setattr("penstock.task_runners.dask.watch.CHECK_SECONDS", 0.1)
    begun = Ledger(tmp_path / "begun")

    @task
    def wait() -> int:
        begun.add("wait")
        if len(begun.lines()) == 1:
            time.sleep(30)
        return 5

    def warnings() -> list[str]:
        return [text for r in caplog.records if "no workers" in (text := r.getMessage())]

    with external_cluster(workers=1) as cluster:

        @flow(task_runner=DaskTaskRunner(address=cluster.address))
        def example() -> Any:
            future = wait.submit()
            wait_for_line(begun)
            cluster.workers[0].kill()
            wait_until(lambda: bool(warnings()))
            cluster.add_worker()
            return future.result()

        assert example() == 5
    assert len(warnings()) == 1


SCRIPT = """
import os, sys, time
from penstock import flow, task
from penstock.task_runners import DaskTaskRunner

@task
def slow():
    pid = os.open({pids!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(pid, b"%d\\n" % os.getpid())
    while True:
        time.sleep(0.01)

@flow(task_runner=DaskTaskRunner({arguments}))
def example():
    futures = [slow.submit() for _ in range(4)]
    while not os.path.exists({pids!r}):
        time.sleep(0.01)
    print("started", flush=True)
    return futures[0].result()

if __name__ == "__main__":
    example()
"""
OURS = "cluster_kwargs={'n_workers': 2, 'threads_per_worker': 1}"


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_ends_leaves_no_worker(
    number: signal.Signals, penstock_home: Path, tmp_path: Path
) -> None:
    pids = Ledger(tmp_path / "pids")
    ended = run_script(penstock_home, SCRIPT.format(pids=pids.path, arguments=OURS), number)
    assert ended.code == -number, ended.output
    assert ended.seconds < 10
    wait_until(lambda: not any(is_alive(int(pid)) for pid in pids.lines()))
    if number is signal.SIGINT:
        assert ended.flow_runs == [("CRASHED", "Execution was aborted by an interrupt signal.")]
        assert set(ended.task_runs) == {"CANCELLED"}
        assert "Traceback" not in ended.output.partition("KeyboardInterrupt")[2]


def test_c15_a_killed_driver_leaves_the_cluster_usable(penstock_home: Path, tmp_path: Path) -> None:
    pids = Ledger(tmp_path / "pids")

    @task
    def count(number: int) -> int:
        return number

    # The thread of the task run that nobody wants any more goes on; another one is free.
    with external_cluster(workers=1, nthreads=2) as cluster:
        given = f"address={cluster.address!r}, bundle=False"
        script = SCRIPT.format(pids=pids.path, arguments=given).replace("range(4)", "range(1)")
        assert run_script(penstock_home, script, signal.SIGKILL).code == -signal.SIGKILL

        @flow(task_runner=DaskTaskRunner(address=cluster.address))
        def example() -> Any:
            return count.map(range(100)).result()

        assert example() == list(range(100))
