"""What goes wrong on Ray, in one instance that is initialised here: rows of tables B, D and G."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from penstock import StateType, flow, task
from penstock.errors import (
    CrashedRun,
    EngineUnreachable,
    InvalidOptionError,
    RemoteTaskError,
    ResourceError,
)
from penstock.task_runners import RayTaskRunner, remote_options
from penstock.testing.ledger import Gate, Ledger, wait_until
from tests.faults.dask_runs import LARGE, history, wait_for_line
from tests.leaks import lend_sockets
from tests.task_runners.ray.driving import (
    NarrowRayTaskRunner,
    local_ray,
    no_ray_left,
    two_nodes,
)

pytestmark = pytest.mark.timeout(180)
RETRIED = ["PENDING", "RUNNING", "AwaitingRetry", "Retrying", "COMPLETED"]


@pytest.fixture(scope="module", autouse=True)
def lent_sockets() -> Iterator[None]:
    with lend_sockets(), no_ray_left():
        yield


@pytest.fixture(scope="class")
def instance() -> Iterator[None]:
    with local_ray():
        yield


def is_lost(ref: Any) -> bool:
    try:
        ray.get(ref, timeout=1)
    except ray.exceptions.GetTimeoutError:
        return False
    except ray.exceptions.ObjectLostError:
        return True
    return False


@task
def pid_of_worker() -> int:
    return os.getpid()


@pytest.mark.usefixtures("instance")
class TestOneInstance:
    def test_d1_a_killed_worker_costs_what_ran_there_one_attempt(
        self, penstock_home: Path, tmp_path: Path
    ) -> None:
        begun = Ledger(tmp_path / "begun")

        @task
        def count(number: int) -> int:
            begun.add(str(number))
            if number == 60 and begun.lines().count("60") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            return count.map(range(100)).result()

        assert example() == list(range(100))
        assert Counter(row[0] for row in history(penstock_home, "count")) == {"COMPLETED": 100}
        assert max(row[1] for row in history(penstock_home, "count")) <= 2

    def test_d1_what_was_seen_to_run_has_lost_an_attempt(
        self, penstock_home: Path, tmp_path: Path
    ) -> None:
        pids, gate = Ledger(tmp_path / "pids"), Gate(tmp_path / "gate")

        @task
        def doomed() -> int:
            pids.add(str(os.getpid()))
            gate.wait()
            return 7

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            future = doomed.submit()
            pid = int(wait_for_line(pids))
            wait_until(lambda: future.task_run.attempt == 1)
            os.kill(pid, signal.SIGKILL)
            gate.open()
            return future.result()

        assert example() == 7
        assert history(penstock_home, "doomed") == [("COMPLETED", 2, RETRIED)]

    def test_b9_a_task_that_kills_its_workers_crashes_alone(self, penstock_home: Path) -> None:
        @task(worker_loss_retries=1)
        def poison(number: int) -> int:
            if number == 3:
                os._exit(7)
            return number

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            futures = poison.map(range(8))
            states = [future.wait() for future in futures]
            problem = futures[3].exception()
            assert isinstance(problem, CrashedRun)
            assert "died while it had the task run" in str(problem)
            return {"types": [state and state.type for state in states]}

        types = example()["types"]
        assert types.pop(3) is StateType.CRASHED
        assert set(types) == {StateType.COMPLETED}

    def test_b2_a_task_that_exits_crashes_alone(self) -> None:
        @task
        def leave() -> None:
            sys.exit(3)

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            before = pid_of_worker.submit().result()
            state = leave.submit().wait()
            assert state is not None
            assert state.message == "Execution was aborted by Python system exit call."
            return {"type": state.type, "pids": before}

        assert example()["type"] is StateType.CRASHED

    def test_d9_an_exception_that_cannot_be_rebuilt(self) -> None:
        class Odd(Exception):
            def __init__(self, first: int, second: int) -> None:
                super().__init__(f"{first} and {second}")

        @task
        def fail() -> None:
            raise Odd(1, 2)

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            return {"problem": fail.submit().exception()}

        problem = example()["problem"]
        assert isinstance(problem, RemoteTaskError) or type(problem).__name__ == "Odd"
        assert "1 and 2" in str(problem)
        assert "RayTaskError" not in f"{problem!r} {problem}"

    def test_a_user_error_is_no_ray_task_error(self) -> None:
        @task
        def fetch() -> None:
            @ray.remote
            def fail() -> None:
                raise ValueError("inside")

            ray.get(fail.remote())

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            return {"problem": fetch.submit().exception()}

        assert "inside" in str(example()["problem"])

    def test_values_that_died_with_their_worker_are_made_again(self, tmp_path: Path) -> None:
        made = Ledger(tmp_path / "made")

        @task
        def make() -> bytes:
            made.add(str(os.getpid()))
            return bytes(LARGE)

        @task
        def size_of(data: bytes) -> int:
            return len(data)

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            first = make.submit()
            first.wait()
            os.kill(int(wait_for_line(made)), signal.SIGKILL)
            state: Any = first.state
            wait_until(lambda: is_lost(state.fetch.native.ref))
            return size_of.submit(first).result(), len(first.result())

        assert example() == (LARGE, LARGE)
        assert len(made.lines()) == 2

    def test_g3_code_that_cannot_be_stopped_is_killed(
        self, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        begun = Ledger(tmp_path / "begun")

        @task(timeout_seconds=0.2)
        def stick() -> None:
            begun.add(str(os.getpid()))
            try:
                time.sleep(30)
            except BaseException:
                time.sleep(30)

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            began = time.monotonic()
            state = stick.submit().wait()
            assert state is not None
            assert state.name == "TimedOut"
            assert time.monotonic() - began < 5
            pid = int(wait_for_line(begun))
            wait_until(lambda: not Path(f"/proc/{pid}/exe").exists())
            return 1

        assert example() == 1
        assert "the worker is killed" in caplog.text

    @pytest.mark.parametrize("seconds", [0.2, None])
    def test_g3_code_that_holds_the_interpreter_is_killed(
        self, seconds: float | None, penstock_home: Path, tmp_path: Path
    ) -> None:
        begun = Ledger(tmp_path / "begun")

        @task(timeout_seconds=seconds)
        def hold_on() -> None:
            import ctypes

            begun.add(str(os.getpid()))
            ctypes.PyDLL(None).sleep(60)  # keeps the interpreter lock

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            future = hold_on.submit()
            pid = int(wait_for_line(begun))
            if seconds is None:
                assert future.cancel()
            state = future.wait(20)
            wait_until(lambda: not Path(f"/proc/{pid}/exe").exists())
            return {"name": state and state.name, "other": pid_of_worker.submit().result()}

        name, kind = ("TimedOut", "FAILED") if seconds else ("Cancelled", "CANCELLED")
        assert example()["name"] == name
        assert len(begun.lines()) == 1
        assert [row[0] for row in history(penstock_home, "hold-on")] == [kind]

    def test_g1_cancel_of_what_waits_in_rays_queue(self, tmp_path: Path) -> None:
        gate, begun = Gate(tmp_path / "gate"), Ledger(tmp_path / "begun")

        @task(bundle=False)
        def hold(number: int) -> int:
            begun.add(str(number))
            gate.wait()
            return number

        @flow(task_runner=NarrowRayTaskRunner())
        def example() -> Any:
            futures = [hold.submit(number) for number in range(4)]
            first = int(wait_for_line(begun))
            others = [future for number, future in enumerate(futures) if number != first]
            for future in others:
                assert future.cancel()
            states = [future.wait(20) for future in others]
            live: Any = futures[first].task_run.live
            engine = live.runners.running(None).runner.engine
            wait_until(lambda: len(engine._sent) == 1)
            gate.open()
            assert futures[first].result() == first
            return {"types": [state and state.type for state in states]}

        assert set(example()["types"]) == {StateType.CANCELLED}
        assert len(begun.lines()) == 1

    def test_d10_nested_tasks_fill_all_processors(self) -> None:
        @task
        def deeper(depth: int) -> int:
            return 1 if depth == 0 else 1 + sum(deeper.map([depth - 1] * 2).result())

        @flow(task_runner=NarrowRayTaskRunner())
        def example() -> Any:
            return deeper.submit(2).result()

        assert example() == 7

    def test_d8_an_initialised_ray_is_left_running(self, caplog: pytest.LogCaptureFixture) -> None:
        @flow(task_runner=RayTaskRunner())
        def example() -> int:
            return pid_of_worker.submit().result()

        with caplog.at_level("INFO"):
            assert example() != os.getpid()
        assert ray.is_initialized()
        said = "Local Ray instance is already initialized. Using existing local instance."
        assert said in caplog.messages
        assert "Using Ray cluster with 1 nodes." in caplog.messages

    def test_d8_another_address_than_that_of_the_initialised_ray(self) -> None:
        @flow(task_runner=RayTaskRunner(address="127.0.0.1:1"))
        def example() -> Any:
            return pid_of_worker.submit().result()

        with pytest.raises(InvalidOptionError, match="a process has one Ray"):
            example()

    def test_impossible_resources_are_refused(self) -> None:
        @task(resources={"gpu": 99})
        def train() -> None:
            return None

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            train.submit()

        with pytest.raises(ResourceError, match="no node of the Ray cluster has as much"):
            example()

    def test_remote_options_reach_ray_and_merge(self) -> None:
        @task
        def assigned() -> Any:
            context: Any = ray.get_runtime_context()
            return context.get_assigned_resources()

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            plain = assigned.submit()
            with remote_options(num_cpus=2, max_retries=0):
                outer = assigned.submit()
                with remote_options(num_cpus=3):
                    inner = assigned.submit()
            return [one.result()["CPU"] for one in (plain, outer, inner)]

        assert example() == [1.0, 2.0, 3.0]

    def test_remote_options_reach_ray_from_its_workers(self) -> None:
        @task
        def assigned() -> Any:
            context: Any = ray.get_runtime_context()
            return context.get_assigned_resources()["CPU"]

        @task
        def outer() -> list[float]:
            plain = assigned.submit()
            with remote_options(num_cpus=2, max_retries=0):
                wide = assigned.submit()
                with remote_options(num_cpus=3):
                    wider = assigned.submit()
            return [plain.result(), wide.result(), wider.result()]

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            return outer.submit().result()

        assert example() == [1.0, 2.0, 3.0]

    def test_max_retries_given_on_a_worker_reach_ray(self, tmp_path: Path) -> None:
        begun = Ledger(tmp_path / "begun")

        @task(worker_loss_retries=0, bundle=False)
        def die_once() -> int:
            begun.add("begun")
            if len(begun.lines()) == 1:
                os._exit(1)
            return 7

        @task
        def outer() -> int:
            with remote_options(max_retries=1):
                return die_once.submit().result()

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            return outer.submit().result()

        assert example() == 7
        assert len(begun.lines()) == 2

    def test_options_that_ray_refuses_are_told_at_submission(self) -> None:
        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            with remote_options(num_cpu=2):
                return {"problem": pid_of_worker.submit().exception()}

        assert "num_cpu" in str(example()["problem"])

    def test_task_names_are_task_run_names(self) -> None:
        @task(bundle=False)
        def named() -> str:
            return str(ray.get_runtime_context().get_task_name())

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            return named.submit().result()

        assert example().startswith("named-0-")

    def test_a_subflow_in_a_task_uses_the_ray_of_its_worker(self) -> None:
        @task
        def outer() -> int:
            @flow(task_runner=RayTaskRunner())
            def sub() -> int:
                return pid_of_worker.submit().result()

            return sub()

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            return outer.submit().result()

        assert example() != os.getpid()
        assert ray.is_initialized()


def test_d2_a_killed_node_costs_what_ran_there_one_attempt(
    tmp_path: Path, penstock_home: Path
) -> None:
    seen = Ledger(tmp_path / "seen")

    @task
    def where(victim: str) -> int:
        seen.add(ray.get_runtime_context().get_node_id())
        if ray.get_runtime_context().get_node_id() == victim:
            time.sleep(60)
        return 7

    with two_nodes(cpus=(1, 1)) as cluster:
        (second,) = cluster.worker_nodes

        @flow(task_runner=RayTaskRunner())
        def example() -> Any:
            there = NodeAffinitySchedulingStrategy(second.node_id, soft=True)
            with remote_options(scheduling_strategy=there):
                future = where.submit(second.node_id)
            wait_until(lambda: future.task_run.attempt == 1)
            cluster.remove_node(second, allow_graceful=False)
            return future.result()

        assert example() == 7
    assert history(penstock_home, "where") == [("COMPLETED", 2, RETRIED)]
    assert len(set(seen.lines())) == 2


def test_d8_nobody_answers_at_the_address() -> None:
    @flow(task_runner=RayTaskRunner(address="127.0.0.1:1"))
    def example() -> Any:
        return pid_of_worker.submit().result()

    with pytest.raises((EngineUnreachable, CrashedRun), match="127.0.0.1:1"):
        example()
    assert not ray.is_initialized()
