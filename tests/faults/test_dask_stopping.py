"""Task runs on Dask that are cancelled or run out of time: rows G1 to G3."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from penstock import StateType, flow, task
from penstock.task_runners import DaskTaskRunner
from penstock.testing.ledger import Ledger, wait_until
from tests.faults.dask_runs import history, wait_for_line, worker_here
from tests.task_runners.dask.external import external_cluster

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("lasting_of_dask")]
CANCELLED = StateType.CANCELLED


@pytest.mark.parametrize("is_ours", [True, False])
def test_g3_a_stuck_worker_thread(
    is_ours: bool,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    penstock_home: Path,
) -> None:
    begun = Ledger(tmp_path / "begun")

    @task(timeout_seconds=0.2)
    def stick() -> None:
        from penstock.task_runners.dask.worker import DaskPort

        DaskPort.patience = 0.5
        begun.add("stick")
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            time.sleep(8)

    @task
    def where() -> str:
        return worker_here()

    def said() -> list[str]:
        return [text for r in caplog.records if "cannot be stopped" in (text := r.getMessage())]

    def check(runner: DaskTaskRunner) -> None:
        @flow(task_runner=runner)
        def example() -> Any:
            before = where.submit().result()
            began = time.monotonic()
            state = stick.submit().wait()
            assert state is not None
            assert state.name == "TimedOut"
            assert time.monotonic() - began < 6
            wait_until(lambda: bool(said()))
            if is_ours:
                assert where.submit().result() != before
            return 1

        assert example() == 1

    if is_ours:
        check(DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1}))
    else:
        with external_cluster(workers=1) as cluster:
            check(DaskTaskRunner(address=cluster.address))
    assert len(said()) == 1
    assert ("restarted" in said()[0]) is is_ours
    assert len(begun.lines()) == 1
    assert [row[:2] for row in history(penstock_home, "stick")] == [("FAILED", 1)]


def test_g1_cancel_in_every_phase(penstock_home: Path, tmp_path: Path) -> None:
    begun = Ledger(tmp_path / "begun")

    @task
    def wait(number: int) -> None:
        begun.add(str(number))
        while True:
            time.sleep(0.01)

    with external_cluster(workers=1) as cluster:

        @flow(task_runner=DaskTaskRunner(address=cluster.address, bundle=False))
        def example() -> Any:
            running, *others = [wait.submit(number) for number in range(100)]
            wait_for_line(begun)
            sent = others[0]
            assert sent.task_run.live.call_of(sent.task_run).cargo.bundle is not None
            queued = others[-1]
            assert queued.task_run.live.call_of(queued.task_run).cargo.bundle is None
            for future in (queued, sent, running, *others[1:-1]):
                assert future.cancel() is True
                state = future.wait(5)
                assert state is not None
                assert state.type is CANCELLED
            return 1

        assert example() == 1
    assert begun.lines()[0] == "0"
    assert {row[0] for row in history(penstock_home, "wait")} == {"CANCELLED"}
