"""Dask workers that die, and what is left behind on a cluster: rows of tables B and C."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from penstock import StateType, flow, task
from penstock.errors import CrashedRun, WorkerLost
from penstock.task_runners import DaskTaskRunner
from penstock.testing.ledger import Gate, Ledger, wait_until
from tests.faults.dask_runs import LARGE, history, wait_for_line
from tests.task_runners.dask.external import ExternalCluster, external_cluster

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("lasting_of_dask")]
COMPLETED = StateType.COMPLETED
CRASHED = StateType.CRASHED


def test_c1_a_killed_worker_costs_what_ran_there_one_attempt(
    two_workers: ExternalCluster, penstock_home: Path, tmp_path: Path
) -> None:
    pids, done = Ledger(tmp_path / "pids"), Ledger(tmp_path / "done")
    gate = Gate(tmp_path / "gate")

    @task
    def quick(number: int) -> int:
        done.add(f"quick {number}")
        return number

    @task
    def slow(number: int) -> int:
        done.add(f"slow {number}")
        return number

    @task
    def doomed() -> int:
        pids.add(str(os.getpid()))
        gate.wait()
        return 7

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example() -> Any:
        before = quick.map(range(50))
        assert before.result() == list(range(50))
        future = doomed.submit()
        pid = int(wait_for_line(pids))
        others = slow.map(range(20))
        assert others.result() == list(range(20))
        # A death before its worker has told of the start would cost no attempt.
        wait_until(lambda: future.state.is_running())
        os.kill(pid, signal.SIGKILL)
        gate.open()
        assert future.result() == 7
        assert future.task_run.attempt == 2
        return None

    example()
    assert set(Counter(done.lines()).values()) == {1}
    assert len(pids.lines()) == 2
    retried = ["PENDING", "RUNNING", "AwaitingRetry", "Retrying", "COMPLETED"]
    assert history(penstock_home, "doomed") == [("COMPLETED", 2, retried)]
    assert {(row[0], row[1]) for row in history(penstock_home, "quick")} == {("COMPLETED", 1)}


def test_c1_what_was_reported_of_a_lost_bundle_is_not_run_again(
    tmp_path: Path, penstock_home: Path
) -> None:
    begun, pids = Ledger(tmp_path / "begun"), Ledger(tmp_path / "pids")

    @task
    def count(number: int) -> int:
        begun.add(str(number))
        if number == 60 and not pids.lines():
            pids.add(str(os.getpid()))
            time.sleep(0.5)  # until those before it have been reported
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with external_cluster(workers=1, nanny=True) as cluster:

        @flow(task_runner=DaskTaskRunner(address=cluster.address))
        def example() -> Any:
            return count.map(range(100)).result()

        assert example() == list(range(100))
    assert [number for number, times in Counter(begun.lines()).items() if times > 1] == ["60"]
    attempts = Counter(row[1] for row in history(penstock_home, "count"))
    assert attempts == {1: 99, 2: 1}


def test_c1_what_was_called_on_a_killed_worker_crashes(tmp_path: Path, penstock_home: Path) -> None:
    begun = Ledger(tmp_path / "begun")

    @task
    def inner() -> int:
        begun.add("inner")
        if len(begun.lines()) == 1:
            time.sleep(0.3)  # until its beginning has been told
            os.kill(os.getpid(), signal.SIGKILL)
        return 1

    @flow
    def sub() -> int:
        return inner()

    @task
    def outer() -> int:
        return sub()

    with external_cluster(workers=1, nanny=True) as cluster:

        @flow(task_runner=DaskTaskRunner(address=cluster.address))
        def example() -> None:
            outer.submit()

        # Nobody looked at the failures that the next attempt has mended.
        example()
    assert history(penstock_home, "outer")[0][:2] == ("COMPLETED", 2)
    for name in ("inner", "sub"):
        found = sorted(row[0] for row in history(penstock_home, name))
        assert found == ["COMPLETED", "CRASHED"]
    with sqlite3.connect(penstock_home / "history.db") as connection:
        states = connection.execute("SELECT state FROM flow_runs ORDER BY state").fetchall()
    connection.close()
    assert states == [("COMPLETED",), ("COMPLETED",), ("CRASHED",)]


@pytest.mark.parametrize("place", ["local", "external", "threads"])
def test_c4_b9_poison_crashes_alone(place: str, penstock_home: Path, tmp_path: Path) -> None:
    begun = Ledger(tmp_path / "begun")

    @task
    def maybe(number: int) -> int:
        begun.add(str(number))
        if number == 42:
            os._exit(7)
        return number

    def check(runner: DaskTaskRunner) -> None:
        @flow(task_runner=runner)
        def example() -> Any:
            futures = maybe.map(range(100))
            states: list[Any] = [future.wait() for future in futures]
            assert [state.type for state in states].count(COMPLETED) == 99
            poison = states[42]
            assert poison.type is CRASHED
            assert "The worker tcp://" in str(poison.message)
            with pytest.raises(CrashedRun) as caught:
                futures[42].result()
            assert isinstance(caught.value.__cause__, WorkerLost)
            return 1

        assert example() == 1

    if place == "external":
        with external_cluster(workers=2, nanny=True) as cluster:
            check(DaskTaskRunner(address=cluster.address))
    else:
        threads = 4 if place == "threads" else 1
        kwargs = {"n_workers": 5 - threads - 2 * (threads == 1), "threads_per_worker": threads}
        check(DaskTaskRunner(cluster_kwargs=kwargs))
    rows = history(penstock_home, "maybe")
    assert Counter(row[0] for row in rows) == {"COMPLETED": 99, "CRASHED": 1}
    assert [row[1] for row in rows if row[0] == "CRASHED"] == [3]
    assert 3 <= Counter(begun.lines())["42"] <= 4


def test_c5_random_deaths(penstock_home: Path) -> None:
    @task(worker_loss_retries=20)
    def double(number: int) -> int:
        time.sleep(0.001)
        return 2 * number

    with external_cluster(workers=2, nanny=True) as cluster:
        ended = threading.Event()
        killer = threading.Thread(target=kill_now_and_then, args=(cluster.address, ended))

        @flow(task_runner=DaskTaskRunner(address=cluster.address))
        def example() -> Any:
            killer.start()
            return double.map(range(2000)).result()

        try:
            assert example() == [2 * number for number in range(2000)]
        finally:
            ended.set()
            killer.join()
    assert Counter(row[0] for row in history(penstock_home, "double")) == {"COMPLETED": 2000}


def kill_now_and_then(address: str, ended: threading.Event) -> None:
    """Kill one of the workers three times in three seconds."""
    import distributed

    with distributed.Client(address, set_as_default=False) as client:
        for _ in range(3):
            if ended.wait(0.3):
                return
            pids = list(client.run(os.getpid, on_error="ignore").values())
            for pid in pids[:1]:
                os.kill(pid, signal.SIGKILL)


def test_c7_a_worker_that_takes_too_much_memory(penstock_home: Path) -> None:
    @task(worker_loss_retries=0)
    def grow() -> int:
        held = []
        while True:
            held.append(b"x" * 10_000_000)
            time.sleep(0.01)

    @task
    def count(number: int) -> int:
        return number

    kwargs = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": "400MB"}

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=kwargs))
    def example() -> Any:
        state = grow.submit().wait()
        assert state is not None
        assert state.type is CRASHED
        assert "oom_suspected" in str(state.message)
        return count.map(range(10)).result()

    assert example() == list(range(10))


def test_c9_a_task_that_holds_the_interpreter_is_not_dead(two_workers: ExternalCluster) -> None:
    @task
    def hold() -> int:
        import ctypes

        # Unlike `CDLL`, this keeps the interpreter's lock.
        ctypes.PyDLL(None).sleep(4)
        return 1

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example() -> Any:
        future = hold.submit()
        assert future.result() == 1
        assert future.task_run.attempt == 1
        return 1

    assert example() == 1


def test_c14_two_drivers_share_a_cluster(two_workers: ExternalCluster) -> None:
    def example_of(offset: int) -> Any:
        @task
        def work(number: int) -> bytes:
            return (
                bytes([number + offset]) * LARGE if number % 10 == 0 else bytes([number + offset])
            )

        @flow(task_runner=DaskTaskRunner(address=two_workers.address))
        def example() -> Any:
            return [value[:1] for value in work.map(range(100)).result()]

        return example

    found: dict[int, Any] = {}

    def run(offset: int) -> None:
        found[offset] = example_of(offset)()

    threads = [threading.Thread(target=run, args=(offset,)) for offset in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {at: [bytes([number + at]) for number in range(100)] for at in (0, 100)}


def test_nothing_stays_behind_on_the_cluster(two_workers: ExternalCluster) -> None:
    import distributed

    @task
    def nothing(number: int) -> None:
        return None

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example(number: int) -> Any:
        nothing.map(range(number)).wait()
        return left_on_cluster(two_workers.address)

    example(2000)
    with distributed.Client(two_workers.address, set_as_default=False) as client:
        before = rss_of(client)
        for tasks in (example(20_000), left_on_cluster(two_workers.address)):
            assert tasks["tasks"] <= 4
            assert tasks["drivers"] <= 1
        grown = {name: after - before[name] for name, after in rss_of(client).items()}
        on_workers = client.run(left_on_worker)
    assert max(grown.values()) < 40_000_000, grown
    for left in on_workers.values():
        assert left == {"claims": 0, "open": 0, "known": 0, "bundles": 0}


def left_on_worker() -> dict[str, int]:
    from penstock.remote import flow_run

    lives: Any = list(flow_run._flow_runs.values())
    return {
        "claims": sum(len(live.claims) for live in lives),
        "open": sum(len(live._open) for live in lives),
        "known": sum(len(live._known) + len(live._awaited) for live in lives),
        "bundles": sum(len(live.bundles) for live in lives),
    }


def left_on_cluster(address: str) -> dict[str, int]:
    import distributed

    from penstock.task_runners.dask.relay import Relay

    name = Relay.name

    def look(dask_scheduler: Any) -> dict[str, int]:
        relay = dask_scheduler.plugins[name]
        return {"tasks": len(dask_scheduler.tasks), "drivers": len(relay.drivers)}

    with distributed.Client(address, set_as_default=False) as client:
        found: dict[str, int] = client.run_on_scheduler(look)
        return found


def rss_of(client: Any) -> dict[str, int]:
    def rss() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    return {**client.run(rss), "scheduler": client.run_on_scheduler(rss)}
