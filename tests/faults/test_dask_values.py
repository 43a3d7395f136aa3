"""Values that were kept on Dask workers which are gone."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dask import annotate  # type: ignore[attr-defined]

from penstock import StateType, flow, quote, task
from penstock.errors import CrashedRun, SerializationError
from penstock.task_runners import DaskTaskRunner
from penstock.testing.ledger import Gate, Ledger, wait_until
from tests.faults.dask_runs import LARGE, history, wait_for_line
from tests.task_runners.dask.external import ExternalCluster, external_cluster

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("lasting_of_dask")]
CRASHED = StateType.CRASHED


def test_a_lost_value_is_made_again_when_somebody_asks(
    two_workers: ExternalCluster, penstock_home: Path, tmp_path: Path
) -> None:
    begun, places = Ledger(tmp_path / "begun"), Ledger(tmp_path / "places")

    @task
    def make(seed: int) -> bytes:
        begun.add(f"make {seed}")
        places.add(str(os.getpid()))
        return bytes([seed]) * LARGE

    @task
    def extend(data: bytes) -> bytes:
        begun.add("extend")
        places.add(str(os.getpid()))
        return data + b"!"

    @task
    def measure(data: bytes) -> int:
        begun.add("measure")
        return len(data)

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example() -> Any:
        first, unwanted = make.submit(1), make.submit(2)
        second = extend.submit(first)
        for future in (first, unwanted, second):
            future.wait()
        for process in two_workers.workers:
            process.kill()
        two_workers.add_worker()
        assert sorted(begun.lines()) == ["extend", "make 1", "make 2"]
        # As an argument, whose own input is lost as well.
        assert measure.submit(second).result() == LARGE + 1
        # By asking for it.
        assert first.result() == b"\1" * LARGE
        assert second.result() == b"\1" * LARGE + b"!"
        assert {first.task_run.attempt, second.task_run.attempt} == {1}
        return None

    example()
    counted = Counter(begun.lines())
    assert counted == {"make 1": 2, "make 2": 1, "extend": 2, "measure": 1}
    for name in ("make", "extend", "measure"):
        assert {row[:2] for row in history(penstock_home, name)} == {("COMPLETED", 1)}


def test_a_task_run_that_was_sent_survives_the_loss_of_its_argument(
    penstock_home: Path, tmp_path: Path
) -> None:
    pids, gate = Ledger(tmp_path / "pids"), Gate(tmp_path / "gate")

    @task
    def make() -> bytes:
        pids.add(str(os.getpid()))
        return b"x" * LARGE

    @task
    def block() -> None:
        gate.wait()

    @task
    def measure(data: bytes) -> int:
        return len(data)

    with external_cluster(workers=1) as cluster:
        # One by one they are sent ahead of what the worker is busy with.
        @flow(task_runner=DaskTaskRunner(address=cluster.address, bundle=False))
        def example() -> Any:
            data = make.submit()
            data.wait()
            blocker = block.submit()
            size = measure.submit(data)
            wait_until(lambda: size.task_run.live.call_of(size.task_run).cargo.bundle is not None)
            os.kill(int(pids.lines()[0]), signal.SIGKILL)
            cluster.add_worker()
            gate.open()
            assert size.result() == LARGE
            assert size.task_run.attempt == 1
            assert blocker.result() is None
            return None

        example()
    assert len(pids.lines()) == 2
    assert [row[:2] for row in history(penstock_home, "measure")] == [("COMPLETED", 1)]


def test_a_value_that_cannot_be_made_again_says_so(two_workers: ExternalCluster) -> None:
    @task(worker_loss_retries=0)
    def make() -> bytes:
        return b"x" * LARGE

    @task
    def measure(data: bytes) -> int:
        return len(data)

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example() -> Any:
        future = make.submit()
        future.wait()
        for process in two_workers.workers:
            process.kill()
        two_workers.add_worker()
        with pytest.raises(CrashedRun, match="'make-0' is lost.*`worker_loss_retries`"):
            future.result()
        state = measure.submit(future).wait()
        assert state is not None
        assert state.type is CRASHED
        return 1

    assert example() == 1


def test_a_lost_value_that_a_task_run_asks_for_is_made_again(
    two_workers: ExternalCluster, tmp_path: Path
) -> None:
    begun = Ledger(tmp_path / "begun")

    @task
    def make() -> bytes:
        begun.add("make")
        return b"x" * LARGE

    @task
    def ask(future: Any) -> int:
        return len(future.result())

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example() -> Any:
        future = make.submit()
        future.wait()
        for process in two_workers.workers:
            process.kill()
        two_workers.add_worker()
        return ask.submit(quote(future)).result()

    assert example() == LARGE
    assert len(begun.lines()) == 2


def test_kept_values_go_from_one_cluster_to_another(two_workers: ExternalCluster) -> None:
    @task
    def make() -> bytes:
        return b"x" * LARGE

    @task
    def measure(data: bytes) -> int:
        return len(data)

    with external_cluster(workers=1) as cluster:
        there = measure.with_options(task_runner=DaskTaskRunner(address=cluster.address))

        @flow(task_runner=DaskTaskRunner(address=two_workers.address))
        def example() -> Any:
            return there.submit(make.submit()).result()

        assert example() == LARGE


def test_a_worker_that_is_retired_gives_its_work_away(penstock_home: Path, tmp_path: Path) -> None:
    import distributed

    begun, gate = Ledger(tmp_path / "begun"), Gate(tmp_path / "gate")

    @task
    def make() -> bytes:
        begun.add("make")
        return b"x" * LARGE

    @task
    def wait() -> int:
        begun.add("wait")
        gate.wait()
        return 5

    @task
    def count(number: int) -> int:
        begun.add(f"count {number}")
        return number

    with external_cluster(workers=1) as cluster:

        @flow(task_runner=DaskTaskRunner(address=cluster.address, bundle=False))
        def example() -> Any:
            data = make.submit()
            data.wait()
            running = wait.submit()
            wait_for_line(begun, 1)
            waiting = count.map(range(10))
            with distributed.Client(cluster.address, set_as_default=False) as client:
                old = list(client.scheduler_info()["workers"])
                cluster.add_worker()
                client.retire_workers(old)
            gate.open()
            assert running.result() == 5
            assert waiting.result() == list(range(10))
            return len(data.result())

        assert example() == LARGE
    assert Counter(begun.lines()) == {
        "make": 1,
        "wait": 2,
        **{f"count {number}": 1 for number in range(10)},
    }
    assert {row[:2] for row in history(penstock_home, "wait")} == {("COMPLETED", 2)}


def test_a_value_that_cannot_be_rebuilt_fails_who_wants_it(two_workers: ExternalCluster) -> None:
    """It moves to another worker all the same, and nobody waits for it for ever."""

    class Stubborn:
        def __init__(self) -> None:
            self.data, self.home = b"." * LARGE, os.getpid()

        def __setstate__(self, state: dict[str, Any]) -> None:
            if os.getpid() != state["home"]:
                raise ValueError("far from home")
            vars(self).update(state)

    @task
    def make() -> Any:
        return Stubborn()

    @task
    def measure(value: Any) -> int:
        return len(value.data)

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example() -> Any:
        with annotate(workers=["worker-0"]):
            made = make.submit()
            there = measure.submit(made)
        with annotate(workers=["worker-1"]):
            elsewhere = measure.submit(made)
        return quote((there.result(), elsewhere.exception(), made.exception(), here(made)))

    def here(made: Any) -> str:
        with pytest.raises(SerializationError) as caught:
            made.result()
        return str(caught.value)

    there, elsewhere, nothing, told = example().unquote()
    assert (there, nothing) == (LARGE, None)
    assert repr(elsewhere) == "ValueError('far from home')"
    assert "cannot be rebuilt in this process: ValueError: far from home" in told


@pytest.mark.parametrize("padding", [0, LARGE], ids=["small", "kept"])
def test_futures_inside_a_value_come_to_life_everywhere(
    two_workers: ExternalCluster, padding: int
) -> None:
    @task
    def child(number: int) -> int:
        return number

    @task
    def make() -> Any:
        return {"children": [child.submit(1), child.submit(2)], "padding": b"." * padding}

    @task
    def total(value: Any) -> int:
        return sum(future.result() for future in value["children"])

    @flow(task_runner=DaskTaskRunner(address=two_workers.address))
    def example() -> Any:
        made = make.submit()
        totals = []
        for name in ("worker-0", "worker-1"):
            with annotate(workers=[name]):
                totals.append(total.submit(made))
        return [total.fn(made.result()), *[future.result() for future in totals]]

    assert example() == [3, 3, 3]
