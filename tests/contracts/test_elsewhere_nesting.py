"""What is the same on worker processes: tasks in tasks, subflows, retries, several engines."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from penstock import TaskFuture, allow_failure, as_completed, flow, task, wait
from penstock.errors import CancelledRun, SerializationError
from penstock.task_runners import (
    BaseTaskRunner,
    ConcurrentTaskRunner,
    SequentialTaskRunner,
    get_dask_client,
)
from penstock.testing.ledger import Gate, Ledger
from penstock.testing.sample_tasks import add, add_async, fail, hold, identity, note
from tests.contracts.recorded import by_name, flow_runs, task_runs

LARGE = 200_000  # bytes: more than travels with a report


@pytest.fixture(params=["dask", "ray"])
def runner(
    request: pytest.FixtureRequest, on_dask: BaseTaskRunner, on_ray: BaseTaskRunner
) -> BaseTaskRunner:
    return on_dask if request.param == "dask" else on_ray


@pytest.fixture(params=["dask", "ray"])
def narrow(
    request: pytest.FixtureRequest, narrow_on_dask: BaseTaskRunner, narrow_on_ray: BaseTaskRunner
) -> BaseTaskRunner:
    """Give a runner that has room for one running task."""
    return narrow_on_dask if request.param == "dask" else narrow_on_ray


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.txt")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def in_flow(runner: BaseTaskRunner, body: Any) -> Any:
    """Run a function as a flow; what it gives is the result as it is."""
    return flow(name="example", task_runner=runner)(lambda: {"found": body()})()["found"]


# --- tasks in tasks ------------------------------------------------------------------------------


@task
def descend(depth: int) -> int:
    """Submit, map and call tasks and a flow, each level again."""
    if depth == 0:
        return 1
    submitted = descend.submit(depth - 1)
    mapped = add.map([1, 2], submitted)
    called: int = descend(0)
    total: int = sum(mapped.result()) + called + below(depth) + submitted.result()
    return total


@flow
def below(depth: int) -> int:
    value: int = add.submit(depth, 1).result()
    return value


@task
async def descend_async(depth: int) -> int:
    if depth == 0:
        return 1
    first = descend_async.submit(depth - 1)
    second = add_async.submit(first, 1)
    called: int = await add_async(1, 1)
    total: int = await first + await second + called
    return total


def test_three_levels_on_one_thread(narrow: BaseTaskRunner) -> None:
    def expected(depth: int) -> int:
        if depth == 0:
            return 1
        inner = expected(depth - 1)
        return (3 + 2 * inner) + 1 + (depth + 1) + inner

    assert in_flow(narrow, lambda: descend.submit(3).result()) == expected(3)


def test_three_levels_of_async_tasks_on_one_thread(narrow: BaseTaskRunner) -> None:
    def expected(depth: int) -> int:
        return 1 if depth == 0 else 2 * expected(depth - 1) + 3

    assert in_flow(narrow, lambda: descend_async.submit(3).result()) == expected(3)


@task
def use_future(held: dict[str, Any]) -> int:
    value: int = held["future"] + 1
    return value


@task
def pass_futures() -> Any:
    child = identity.submit(4)
    return use_future.submit({"future": child})


def test_futures_passed_to_and_returned_from_tasks(narrow: BaseTaskRunner) -> None:
    assert in_flow(narrow, lambda: add.submit(pass_futures.submit(), 1).result()) == 6


@task
def collect() -> tuple[int, list[int]]:
    futures = [identity.submit(number) for number in range(4)]
    done, not_done = wait(futures)
    assert not not_done
    return len(done), sorted(future.result() for future in as_completed(futures))


@task
async def collect_async() -> list[int]:
    futures = [identity.submit(number) for number in range(4)]
    return sorted([await future async for future in as_completed(futures)])


def test_wait_and_as_completed_in_tasks(narrow: BaseTaskRunner) -> None:
    def body() -> None:
        assert collect.submit().result() == (4, [0, 1, 2, 3])
        assert collect_async.submit().result() == [0, 1, 2, 3]

    in_flow(narrow, body)


@task
def wait_with_client() -> tuple[int, int]:
    with get_dask_client() as client:
        first: int = client.submit(sum, [1, 2]).result()
        second: int = add.submit(3, 4).result()
    return first, second + add.submit(0, 1).result()


def test_children_beside_work_for_the_cluster_itself(narrow_on_dask: Any) -> None:
    assert in_flow(narrow_on_dask, lambda: wait_with_client.submit().result()) == (3, 8)


@task
def submit_unpicklable(looks: bool) -> str:
    bad = identity.submit({"lock": threading.Lock()})
    good = add.submit(1, 2)
    if looks:
        assert isinstance(bad.exception(), SerializationError)
        assert "argument 'value' -> ['lock']" in str(bad.exception())
    return f"{bad.name} {good.result()}"


def test_child_whose_argument_cannot_be_pickled(runner: BaseTaskRunner) -> None:
    @flow(task_runner=runner)
    def example(looks: bool) -> str:
        said: str = submit_unpicklable.submit(looks).result()
        return said

    assert example(True) == "identity-0 3"
    run = by_name()["identity-0"]
    assert (run["state"]["type"], run["started_at"]) == ("FAILED", None)
    assert run["parent_task_run_id"] == by_name()["submit-unpicklable-0"]["id"]

    @flow(task_runner=runner)
    def unseen(looks: bool) -> None:
        submit_unpicklable.submit(looks).result()

    unseen(True)
    with pytest.raises(SerializationError):
        unseen(False)


@task
def wait_for_failures(ledger: Ledger) -> str:
    bad = fail.submit()
    state = bad.wait()
    after = [
        note.submit(ledger, "allowed future", wait_for=[allow_failure(bad)]),
        note.submit(ledger, "allowed state", wait_for=[allow_failure(state)]),
        note.submit(ledger, "future", wait_for=[bad]),
        note.submit(ledger, "state", wait_for=[state]),
    ]
    wait(after)
    return " ".join(future.state.name for future in after)


def test_wait_for_in_tasks(runner: BaseTaskRunner, ledger: Ledger) -> None:
    found = in_flow(runner, lambda: wait_for_failures.submit(ledger).result())
    assert found == "Completed Completed NotReady NotReady"
    assert set(ledger.lines()) == {"allowed future", "allowed state"}


def test_cancel_of_a_child(runner: BaseTaskRunner, ledger: Ledger, gate: Gate) -> None:
    @task
    def cancel_child() -> str:
        child = hold.submit(ledger, gate)
        ledger.wait_for("held started")
        assert child.cancel()
        with pytest.raises(CancelledRun):
            child.result()
        return "cancelled" if child.cancelled() else "not"

    assert in_flow(runner, lambda: cancel_child.submit().result()) == "cancelled"
    gate.open()


@task
def forget_failure() -> str:
    fail.submit("nobody looked")
    return "fine"


@task
def look_at_failure() -> str:
    return str(fail.submit("somebody looked").exception())


def test_failure_of_a_child_that_nobody_looked_at_fails_the_flow(runner: BaseTaskRunner) -> None:
    @flow(task_runner=runner)
    def example(seen: bool) -> None:
        (look_at_failure if seen else forget_failure).submit().result()

    with pytest.raises(ValueError, match="nobody looked"):
        example(False)
    assert example(False, return_state=True).message == "1/2 task runs failed."
    example(True)


@task
def family() -> int:
    first = add.submit(1, 2)
    second = add.submit(first, 3)
    called: int = add(second, 4)
    return called


def test_children_are_recorded(runner: BaseTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> None:
        assert family.submit().result() == 10

    example()
    runs = by_name()
    assert set(runs) == {"family-0", "add-0", "add-1", "add-2"}
    parent = runs["family-0"]["id"]
    children = {name: runs[name] for name in ("add-0", "add-1", "add-2")}
    assert {run["parent_task_run_id"] for run in children.values()} == {parent}
    assert {run["state"]["type"] for run in children.values()} == {"COMPLETED"}
    first = next(run for run in children.values() if run["parameters"] == {"x": "1", "y": "2"})
    second = next(run for run in children.values() if run["upstream"] == [first["id"]])
    third = next(run for run in children.values() if run["upstream"] == [second["id"]])
    assert {first["name"], second["name"], third["name"]} == set(children)
    assert third["parameters"]["x"] == f"<TaskFuture {second['name']}>"
    assert sorted(run["number"] for run in children.values()) == [0, 1, 2]


# --- subflows ------------------------------------------------------------------------------------


@flow
def doubled(number: int) -> int:
    value: int = add.submit(number, number).result()
    return value


@flow(task_runner=ConcurrentTaskRunner(max_workers=2))
def summed(count: int) -> int:
    values: list[int] = add.map(range(count), os.getpid()).result()
    assert all(value - number == os.getpid() for number, value in enumerate(values))
    return len(values)


@task
def call_summed() -> int:
    return summed(3)


def test_flows_submitted_to_a_cluster_are_recorded(runner: BaseTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> None:
        assert doubled.submit(2).result() == 4
        assert doubled.map([3, 4]).result() == [6, 8]

    example()
    subflows = [run for run in flow_runs() if run["flow"] == "doubled"]
    stands_for = {run.get("subflow_run_id") for run in task_runs()}
    assert {run["id"] for run in subflows} == stands_for
    assert {run["parent_task_run_id"] for run in subflows} == {run["id"] for run in task_runs()}
    for run in subflows:
        assert (run["state"]["type"], run["counts"]) == ("COMPLETED", {"COMPLETED": 1})


def test_subflow_with_a_runner_of_its_own_in_a_task(runner: BaseTaskRunner) -> None:
    assert in_flow(runner, lambda: call_summed.submit().result()) == 3
    (subflow,) = [run for run in flow_runs() if run["flow"] == "summed"]
    assert (subflow["runner"], subflow["counts"]) == ("ConcurrentTaskRunner", {"COMPLETED": 3})


# --- retries -------------------------------------------------------------------------------------


def test_retries_with_delays_and_conditions(runner: BaseTaskRunner, ledger: Ledger) -> None:
    def only_odd(task: Any, task_run: Any, state: Any) -> bool:
        ledger.add(f"asked {os.getpid()}")
        return "odd" in str(state.data)

    @task(retries=2, retry_delay_seconds=[0.05, 0.0], retry_condition_fn=only_odd)
    def flaky(kind: str) -> str:
        ledger.add(kind)
        if ledger.lines().count(kind) < 3:
            raise ValueError(kind)
        return kind

    def body() -> None:
        assert flaky.submit("odd").result() == "odd"
        with pytest.raises(ValueError, match="even"):
            flaky.submit("even").result()

    in_flow(runner, body)
    assert (ledger.lines().count("odd"), ledger.lines().count("even")) == (3, 1)
    assert f"asked {os.getpid()}" in ledger.lines()
    assert by_name()["flaky-0"]["attempt"] == 3


@task
def large(letter: str, ledger: Ledger) -> str:
    ledger.add(letter)
    return letter * LARGE


@task
def size_of(value: Any) -> int:
    return len(value)


def test_flow_retries_keep_what_is_on_the_cluster(runner: BaseTaskRunner, ledger: Ledger) -> None:
    @flow(task_runner=runner, retries=1)
    def example() -> Any:
        kept = large.submit("a", ledger)
        size = size_of.submit(kept).result()
        ledger.add("tried")
        if ledger.lines().count("tried") == 1:
            raise ValueError("again")
        return {"size": (size, kept.result())}

    assert example()["size"] == (LARGE, "a" * LARGE)
    assert ledger.lines() == ["a", "tried", "tried"]


# --- several engines in one flow -----------------------------------------------------------------


@task
def where(value: Any) -> tuple[int, Any]:
    return os.getpid(), value


@pytest.mark.parametrize("size", [1, LARGE])
def test_futures_cross_engines(runner: BaseTaskRunner, size: int) -> None:
    here = where.with_options(task_runner=SequentialTaskRunner())
    threads = where.with_options(task_runner=ConcurrentTaskRunner())

    @task(task_runner=ConcurrentTaskRunner())
    async def on_loop(found: tuple[int, bytes]) -> int:
        return len(found[1])

    def body() -> None:
        value = b"x" * size
        there = where.submit(value)
        back = threads.submit(there)
        again = where.submit(back)
        last = here.submit(again)
        assert on_loop.submit(there).result() == size
        pids = []
        found: Any = last.result()
        while isinstance(found, tuple):
            pids.append(found[0] == os.getpid())
            found = found[1]
        assert pids == [True, False, True, False]
        assert found == value

    in_flow(runner, body)


def test_tasks_on_a_cluster_and_on_threads_wait_for_each_other(
    runner: BaseTaskRunner, ledger: Ledger
) -> None:
    nearby = note.with_options(task_runner=ConcurrentTaskRunner())

    def body() -> None:
        future: TaskFuture[Any] = nearby.submit(ledger, "0")
        for number in range(1, 10):
            future = (nearby if number % 2 else note).submit(ledger, str(number), after=future)
        future.result()

    in_flow(runner, body)
    assert ledger.lines() == [str(number) for number in range(10)]


def test_placed_tasks_submitted_inside_a_task_on_a_cluster(runner: BaseTaskRunner) -> None:
    threads = where.with_options(task_runner=ConcurrentTaskRunner())

    @task
    def outer() -> tuple[int, Any]:
        found: tuple[int, Any] = threads.submit(5).result()
        return found

    assert in_flow(runner, lambda: outer.submit().result()) == (os.getpid(), 5)


def test_value_of_a_placed_child_that_cannot_travel(runner: BaseTaskRunner) -> None:
    @task(task_runner=ConcurrentTaskRunner())
    def give_lock() -> Any:
        return threading.Lock()

    @task
    def outer() -> str:
        try:
            give_lock.submit().result(timeout=5)
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"
        return "came"

    assert "SerializationError" in in_flow(runner, lambda: outer.submit().result())


def test_async_flow(runner: BaseTaskRunner, ledger: Ledger) -> None:
    @flow(task_runner=runner)
    async def example() -> Any:
        futures = large.map(["a", "b"], [ledger, ledger])
        sizes = size_of.map(futures)
        return {"found": (await asyncio.gather(*sizes), [await future for future in futures])}

    assert asyncio.run(example())["found"] == ([LARGE, LARGE], ["a" * LARGE, "b" * LARGE])
