"""What is the same on worker processes: results, arguments, code, and values that stay there."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from penstock import TaskFuture, allow_failure, flow, quote, task, unmapped
from penstock.errors import PenstockError, SerializationError
from penstock.states import State
from penstock.task_runners import BaseTaskRunner, DaskTaskRunner
from penstock.testing.ledger import Ledger
from penstock.testing.sample_tasks import add, fail, identity, note
from tests.contracts.recorded import by_name
from tests.task_runners.dask.external import external_cluster

LARGE = 200_000  # bytes: more than travels with a report


@pytest.fixture(params=["dask", "ray"])
def runner(
    request: pytest.FixtureRequest, on_dask: BaseTaskRunner, on_ray: BaseTaskRunner
) -> BaseTaskRunner:
    return on_dask if request.param == "dask" else on_ray


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.txt")


def in_flow(runner: BaseTaskRunner, body: Any) -> Any:
    """Run a function as a flow; what it gives is the result as it is."""
    return flow(name="example", task_runner=runner)(lambda: {"found": body()})()["found"]


# --- results -------------------------------------------------------------------------------------


@task
def large(letter: bytes = b"x", size: int = LARGE) -> bytes:
    return letter * size


@task
def make(what: str) -> Any:
    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    made: dict[str, Any] = {
        "lambda": lambda x: x + 1,
        "local": Local(3),
        "none": None,
        "nan": math.nan,
        "big": -(3**5000),
        "lock": threading.Lock(),
        "large lock": [b"x" * LARGE, threading.Lock()],
        "large list and lock": [*range(100_000), threading.Lock()],
    }
    return made[what]


@task
def generate(count: int) -> Any:
    yield from range(count)


@task
async def generate_async(count: int) -> Any:
    for number in range(count):
        yield number


def test_results_of_many_kinds(runner: BaseTaskRunner) -> None:
    def body() -> None:
        assert make.submit("lambda").result()(1) == 2
        assert make.submit("local").result().value == 3
        assert make.submit("none").result() is None
        assert math.isnan(make.submit("nan").result())
        assert make.submit("big").result() == -(3**5000)
        assert generate.submit(3).result() == [0, 1, 2]
        assert generate_async.submit(3).result() == [0, 1, 2]

    in_flow(runner, body)


@pytest.mark.parametrize("what", ["lock", "large lock", "large list and lock"])
def test_result_that_cannot_be_pickled_fails_that_run_only(
    runner: BaseTaskRunner, what: str
) -> None:
    def body() -> None:
        bad, good = make.submit(what), add.submit(1, 2)
        with pytest.raises(SerializationError, match="^the result .*cannot be pickled.*lock"):
            bad.result(timeout=10)
        assert good.result() == 3

    in_flow(runner, body)


def test_script_with_classes_and_functions_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from penstock import flow, task
            from penstock.task_runners import DaskTaskRunner
            import beside

            @dataclass
            class Point:
                x: int

            def shift(point, by):
                return Point(point.x + by)

            @task
            def move(point, by=1):
                return shift(point, beside.double(by))

            @flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1}))
            def example():
                point = move.submit(move.submit(Point(1))).result()
                assert type(point) is Point, type(point)
                assert task(beside.double).submit(4).result() == 8
                print(point)

            if __name__ == "__main__":
                example()
            """)
    )
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=50, cwd="/"
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "Point(x=5)"), ended.stderr


# --- arguments -----------------------------------------------------------------------------------


def test_argument_that_cannot_be_pickled(runner: BaseTaskRunner, ledger: Ledger) -> None:
    def body() -> None:
        bad = note.submit(ledger, "never", after={"a": [1, threading.Lock()]})
        good = note.submit(ledger, "good")
        with pytest.raises(SerializationError) as caught:
            bad.result()
        assert "argument 'after' -> ['a'] -> [1]" in str(caught.value)
        assert good.result() == "good"

    in_flow(runner, body)
    assert ledger.lines() == ["good"]
    assert by_name()["note-0"]["started_at"] is None


def test_closure_variable_that_cannot_be_pickled(runner: BaseTaskRunner) -> None:
    lock = threading.Lock()

    @task
    def locked() -> bool:
        return lock.locked()

    def body() -> None:
        with pytest.raises(SerializationError, match="closure variable 'lock'"):
            locked.submit().result()
        assert add.submit(1, 2).result() == 3

    in_flow(runner, body)


def test_module_that_an_external_worker_cannot_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting_of_dask: None
) -> None:
    (tmp_path / "only_here_penstock.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("only_here_penstock")
    import socket

    with external_cluster(workers=1) as cluster:
        runner = DaskTaskRunner(address=cluster.address)

        def body() -> None:
            assert add.submit(1, 2).result() == 3
            bad = task(module.double).submit(2)
            with pytest.raises(ImportError) as caught:
                bad.result()
            assert "only_here_penstock" in str(caught.value)
            assert "worker tcp://127.0.0.1:" in str(caught.value)
            assert socket.gethostname() in str(caught.value)

        in_flow(runner, body)


@dataclasses.dataclass
class Box:
    content: Any


@task
def look_at(value: Any, more: Any = None) -> str:
    return f"{type(value).__name__} {value!r} {more!r}"


def test_futures_in_containers_and_annotations(runner: BaseTaskRunner) -> None:
    def body() -> None:
        one, bad = identity.submit(1), fail.submit("bad")
        assert look_at.submit({"a": [one, (one,)]}).result() == "dict {'a': [1, (1,)]} None"
        assert look_at.submit(Box([one])).result() == "Box Box(content=[1]) None"
        assert look_at.submit(allow_failure(bad)).result() == "ValueError ValueError('bad') None"
        assert look_at.submit(one.wait()).result() == "int 1 None"
        assert look_at.map([one, 2], unmapped(one)).result() == ["int 1 1", "int 2 1"]
        quoted = look_at.submit(quote([one])).result()
        assert quoted.startswith("list [<TaskFuture ")

    in_flow(runner, body)


# --- values that stay on the cluster -------------------------------------------------------------


@task
def size_of(value: Any) -> int:
    return len(value)


@pytest.mark.parametrize("shape", ["future", "list", "dict"])
def test_result_of_a_flow_is_brought_before_the_cluster_closes(
    shape: str, lasting_of_dask: None
) -> None:
    @flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "processes": False}))
    def threads() -> Any:
        return returned(shape)

    @flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1}))
    def processes() -> Any:
        return returned(shape)

    for example in (threads, processes):
        found = example()
        if shape == "dict":
            assert (found["a"], found["b"], found["c"]) == (b"x" * LARGE, [b"y" * LARGE], 1)
        elif shape == "list":
            assert found == [b"x" * LARGE, b"y" * LARGE]
        else:
            assert found == b"x" * LARGE


def returned(shape: str) -> Any:
    if shape == "future":
        return large.submit()
    if shape == "list":
        return [large.submit(), large.submit(b"y")]
    return {"a": large.submit(), "b": [large.submit(b"y")], "c": 1}


def test_future_that_outlives_its_flow(runner: BaseTaskRunner) -> None:
    held: list[TaskFuture[bytes]] = []

    def body() -> None:
        held.extend(large.map([b"a", b"b"]))
        assert len(held[0].result()) == LARGE
        held[1].wait()

    in_flow(runner, body)
    assert len(held[0].result()) == LARGE
    with pytest.raises(PenstockError, match="while the flow runs") as caught:
        held[1].result()
    assert "the flow run has left" in str(caught.value) or "cluster" in str(caught.value)


def test_awaiting_a_large_value_does_not_hold_up_the_loop(
    on_dask: BaseTaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.task_runners.dask.engine import DaskEngine

    gather = DaskEngine.gather

    def slowly(self: Any, future: Any) -> Any:
        time.sleep(0.3)
        return gather(self, future)

    monkeypatch.setattr(DaskEngine, "gather", slowly)

    @flow(task_runner=on_dask)
    async def example() -> Any:
        future = large.submit()
        while not future.done():
            await asyncio.sleep(0.01)
        beats, done = 0, asyncio.Event()

        async def beat() -> None:
            nonlocal beats
            while not done.is_set():
                beats += 1
                await asyncio.sleep(0.01)

        beating = asyncio.create_task(beat())
        value = await future
        done.set()
        await beating
        return {"found": (len(value), beats)}

    size, beats = asyncio.run(example())["found"]
    assert size == LARGE
    assert beats > 5


def test_large_values_between_tasks(runner: BaseTaskRunner) -> None:
    def body() -> None:
        futures = large.map([b"a", b"b", b"c"], size=1_000_000)
        assert size_of.map(futures).result() == [1_000_000] * 3
        state = futures[0].wait()
        assert isinstance(state, State)
        assert size_of.submit(state).result() == 1_000_000
        assert futures[1].result() == b"b" * 1_000_000
        assert size_of.submit(os.urandom(3_000_000)).result() == 3_000_000

    in_flow(runner, body)
