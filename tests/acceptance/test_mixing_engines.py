"""Several engines in one flow: what is true on each of them is true between any two of them.

Every worker process that runs one of these tasks loads this module: it imports little.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from penstock import TaskFuture, allow_failure, flow, quote, task, unmapped
from penstock.errors import CancelledRun, CrashedRun, UpstreamFailed
from penstock.runtime.context import current_run
from penstock.task_runners import (
    BaseTaskRunner,
    ConcurrentTaskRunner,
    DaskTaskRunner,
    ProcessPoolTaskRunner,
    RayTaskRunner,
    SequentialTaskRunner,
)
from penstock.testing.ledger import Gate, Ledger, wait_until
from tests.remote.local_engine import LocalEngine, LocalTaskRunner

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("ray_instance")]

# One line makes a further runner take part in everything here.
RUNNERS: dict[str, Callable[[str], BaseTaskRunner]] = {
    "sequential": lambda address: SequentialTaskRunner(),
    "threads": lambda address: ConcurrentTaskRunner(max_workers=3),
    "engine": lambda address: LocalTaskRunner(threads=2),
    "other engine": lambda address: LocalTaskRunner(threads=3),
    "processes": lambda address: ProcessPoolTaskRunner(max_workers=2),
    "dask": lambda address: DaskTaskRunner(address=address),
    "ray": lambda address: RayTaskRunner(),
}
PAIRS = list(permutations(RUNNERS, 2))
pairs = pytest.mark.parametrize(
    "names", PAIRS, ids=[f"{a}-{b}".replace(" ", "-") for a, b in PAIRS]
)
Pair = tuple[BaseTaskRunner, BaseTaskRunner]


@pytest.fixture
def pair(names: tuple[str, str], address: str) -> Pair:
    first, second = names
    return RUNNERS[first](address), RUNNERS[second](address)


@dataclass
class Box:
    content: Any


@task
def plus(number: int, more: int = 1) -> int:
    return number + more


@task
async def plus_async(number: int, more: int = 1) -> int:
    return number + more


@task
def fail(text: str) -> None:
    raise LookupError(text)


@task
def add_up(*given: Any) -> int:
    """Add up the numbers in nested containers; an exception counts as 1000."""
    total = 0
    for each in given:
        if isinstance(each, Exception):
            total += 1000
        elif isinstance(each, list | tuple | set):
            total += add_up.fn(*each)
        elif isinstance(each, dict):
            total += add_up.fn(*each.keys(), *each.values())
        elif isinstance(each, Box):
            total += add_up.fn(each.content)
        else:
            total += each
    return total


@pairs
def test_values_pass_in_arguments_containers_and_maps(pair: Pair) -> None:
    first, second = pair
    here, there = plus.with_options(task_runner=first), plus.with_options(task_runner=second)
    everything = add_up.with_options(task_runner=second)

    @flow
    def example() -> Any:
        one = here.submit(0)
        two = there.submit(one)
        three: Any = here.submit(two, wait_for=[one])
        nested = everything.submit([one, (two,)], {three: {one}}, Box(two))
        mapped = there.map([one, two, three], unmapped(one))
        again = here.map(mapped, more=10)
        awaited = plus_async.with_options(task_runner=second).submit(three)
        return {
            "chain": [one.result(), two.result(), three.result()],
            "nested": nested.result(),
            "mapped": mapped.result(),
            "again": again.result(),
            "awaited": awaited.result(),
            "called": there(three),
        }

    assert example() == {
        "chain": [1, 2, 3],
        "nested": 1 + 2 + 3 + 1 + 2,
        "mapped": [2, 3, 4],
        "again": [12, 13, 14],
        "awaited": 4,
        "called": 4,
    }


@pairs
def test_failures_pass_as_failures(pair: Pair) -> None:
    first, second = pair
    failing, there = fail.with_options(task_runner=first), plus.with_options(task_runner=second)
    everything = add_up.with_options(task_runner=second)

    @flow
    def example() -> Any:
        failed = failing.submit("no such thing")
        refused = there.submit(failed)
        behind = there.submit(1, wait_for=[refused])
        allowed = everything.submit([allow_failure(failed)], allow_failure(refused))
        states: dict[str, Any] = {
            "failed": failing.submit("as a state", return_state=True),
            "refused": refused.wait(),
            "behind": behind.wait(),
        }
        with pytest.raises(LookupError, match="no such thing"):
            failed.result()
        with pytest.raises(UpstreamFailed) as info:
            refused.result()
        assert isinstance(info.value.__cause__, LookupError)
        names = {name: state.name for name, state in states.items()}
        return {"names": names, "allowed": allowed.result()}

    assert example() == {
        "names": {"failed": "Failed", "refused": "NotReady", "behind": "NotReady"},
        "allowed": 2000,
    }


@task
def type_of(value: Any) -> str:
    return "future" if isinstance(value, TaskFuture) else "other"


@pairs
def test_quoted_futures_are_not_waited_for(pair: Pair, tmp_path: Path) -> None:
    first, second = pair

    @flow
    def example() -> Any:
        one = plus.with_options(task_runner=first).submit(1)
        return {"kind": type_of.with_options(task_runner=second).submit(quote(one)).result()}

    assert example()["kind"] == "future"


@pairs
@pytest.mark.parametrize("is_async", [False, True])
def test_a_task_submits_to_another_engine_and_back(pair: Pair, is_async: bool) -> None:
    @task
    def down(depth: int, runners: list[BaseTaskRunner]) -> int:
        if depth == 0:
            return 0
        below = down.with_options(task_runner=runners[depth % 2])
        return 1 + below.submit(depth - 1, runners).result()

    @task
    async def adown(depth: int, runners: list[BaseTaskRunner]) -> int:
        if depth == 0:
            return 0
        below = adown.with_options(task_runner=runners[depth % 2])
        return 1 + await below.submit(depth - 1, runners)

    chosen: Any = adown if is_async else down

    @flow
    def example() -> Any:
        return chosen.with_options(task_runner=pair[0]).submit(3, list(pair)).result(timeout=30)

    assert example() == 3


@task
def hold(ledger: Ledger, gate: Gate) -> None:
    ledger.add("holding")
    gate.wait()


@task
def cancel(future: Any) -> bool:
    return bool(future.cancel())


# The sequential runner runs a call before `submit` gives its future.
@pytest.mark.parametrize("names", [pair for pair in PAIRS if pair[1] != "sequential"], ids="-".join)
def test_cancelled_from_another_engine(pair: Pair, tmp_path: Path) -> None:
    first, second = pair
    gate, ledger = Gate(tmp_path / "gate"), Ledger(tmp_path / "ledger")

    @flow(task_runner=ConcurrentTaskRunner())
    def example() -> Any:
        holding = hold.submit(ledger, gate)
        waiting = plus.with_options(task_runner=second).submit(1, wait_for=[holding])
        done = cancel.with_options(task_runner=first).submit(quote(waiting)).result(timeout=20)
        problem = waiting.exception(timeout=20)
        gate.open()
        return {"done": done, "problem": problem}

    found = example()
    assert found["done"]
    assert isinstance(found["problem"], CancelledRun)


@pytest.mark.parametrize("name", [name for name in RUNNERS if name != "sequential"])
def test_running_tasks_are_cancelled_on_any_engine(name: str, address: str, tmp_path: Path) -> None:
    gate, ledger = Gate(tmp_path / "gate"), Ledger(tmp_path / "ledger")

    @flow(task_runner=SequentialTaskRunner())
    def example() -> Any:
        holding = hold.with_options(task_runner=RUNNERS[name](address)).submit(ledger, gate)
        ledger.wait_for("holding")
        assert holding.cancel()
        return {"problem": holding.exception(timeout=20)}

    found = example()
    gate.open()
    assert isinstance(found["problem"], CancelledRun)


@task
def blob(size: int) -> Any:
    return bytearray(size)


@task
def look_at(*blobs: Any) -> list[int]:
    return [len(each) for each in blobs]


def check_blobs(pair: Pair, size: int, consumers: int) -> None:
    first, second = pair

    @flow
    def example() -> Any:
        made = blob.with_options(task_runner=first).submit(size)
        looked = look_at.with_options(task_runner=second)
        results = [looked.submit(made) for _ in range(consumers)]
        results.append(look_at.with_options(task_runner=first).submit(made, made))
        return [result.result(timeout=50) for result in results]

    assert example() == [[size]] * consumers + [[size, size]]


@pairs
def test_a_mebibyte_is_handed_over(pair: Pair) -> None:
    check_blobs(pair, 2**20, consumers=3)


@pytest.mark.parametrize(
    "names",
    [
        ("engine", "other engine"),
        ("engine", "dask"),
        ("dask", "threads"),
        ("threads", "engine"),
        ("processes", "engine"),
        ("engine", "processes"),
        ("ray", "dask"),
        ("processes", "ray"),
        ("threads", "ray"),
    ],
    ids="-".join,
)
def test_100_megabytes_are_handed_over(pair: Pair) -> None:
    check_blobs(pair, 100_000_000, consumers=1)


@pairs
def test_children_on_another_engine_return_what_is_large(pair: Pair) -> None:
    @task
    def parent(child: Any) -> int:
        return len(child.submit(300_000).result())

    @flow
    def example() -> Any:
        child = blob.with_options(task_runner=pair[1])
        return parent.with_options(task_runner=pair[0]).submit(child).result(timeout=30)

    assert example() == 300_000


def engine_of(runner: BaseTaskRunner) -> LocalEngine:
    """Give the engine behind a runner in the flow run whose code calls."""
    run: Any = current_run.get()
    engine: LocalEngine = run.live.runners.running(runner).runner.engine
    return engine


def test_handing_over_holds_up_nobody_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = LocalTaskRunner(threads=2), LocalTaskRunner(threads=3)
    go, fetched = threading.Event(), []

    @flow
    def example() -> Any:
        made: Any = blob.with_options(task_runner=first).submit(5_000_000)
        made.wait()
        source, target = engine_of(first), engine_of(second)
        state: Any = made.state
        fetch = type(state.fetch).fetch

        def slow(self: Any) -> Any:
            fetched.append(threading.current_thread().name)
            assert go.wait(20)
            return fetch(self)

        monkeypatch.setattr(type(state.fetch), "fetch", slow)
        looked = [look_at.with_options(task_runner=second).submit(made) for _ in range(3)]
        wait_until(lambda: bool(fetched))
        others = plus.with_options(task_runner=second).map(range(5)).result()
        cancelled = looked[1].cancel()
        go.set()
        results = [looked[0].result(20), looked[2].result(20)]
        assert not state.is_here, "no copy stays in this process"
        del state
        made = None
        wait_until(lambda: not source.kept)
        assert not target.kept
        return {"others": others, "results": results, "cancelled": cancelled}

    found = example()
    assert found["others"] == [1, 2, 3, 4, 5]
    assert found["results"] == [[5_000_000]] * 2
    assert found["cancelled"]
    assert fetched == ["penstock-handover"] * len(fetched)


# Starting.


class Counted(ConcurrentTaskRunner):
    """Counts how often it is started; slowly, if it is told to wait."""

    starts: list[str] = []
    waits = threading.Event()

    async def _start(self, exit_stack: Any) -> None:
        self.starts.append(threading.current_thread().name)
        self.waits.wait(20)
        await super()._start(exit_stack)


class CountedEngine(LocalTaskRunner):
    starts: list[str] = []

    async def _start(self, exit_stack: Any) -> None:
        self.starts.append(threading.current_thread().name)
        await super()._start(exit_stack)


class Broken(LocalTaskRunner):
    """Cannot be started."""

    starts: list[str] = []

    async def _start(self, exit_stack: Any) -> None:
        self.starts.append(threading.current_thread().name)
        raise ConnectionError("there is no engine here")


@pytest.fixture(autouse=True)
def no_starts() -> None:
    for kind in (Counted, CountedEngine, Broken):
        kind.starts.clear()
    Counted.waits.set()


def test_started_once_when_several_threads_use_it_first() -> None:
    Counted.waits.clear()
    there = plus.with_options(task_runner=Counted)

    @task
    def outer(number: int) -> int:
        return there.submit(number).result()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=8))
    def example() -> Any:
        futures = outer.map(range(8))
        wait_until(lambda: bool(Counted.starts))
        # Others can be started and used meanwhile.
        other = plus.with_options(task_runner=LocalTaskRunner()).submit(1).result(timeout=20)
        Counted.waits.set()
        return {"values": futures.result(), "other": other}

    assert example() == {"values": list(range(1, 9)), "other": 2}
    assert len(Counted.starts) == 1


@pytest.mark.parametrize("kind", [Counted, CountedEngine])
@pytest.mark.parametrize("submitter", ["flow", "task", "async task", "engine"])
@pytest.mark.parametrize("flow_is_async", [False, True])
def test_first_use_from_anywhere(kind: Any, submitter: str, flow_is_async: bool) -> None:
    there = plus.with_options(task_runner=kind)

    def outer(number: int) -> int:
        return there.submit(number).result()

    async def outer_async(number: int) -> int:
        return await there.submit(number)

    outers: dict[str, Any] = {
        "flow": there,
        "task": task(outer),
        "async task": task(outer_async),
        "engine": task(task_runner=LocalTaskRunner())(outer),
    }
    chosen = outers[submitter]

    @flow
    def example() -> Any:
        return chosen.map(range(3)).result()

    @flow
    async def example_async() -> Any:
        return [await future for future in chosen.map(range(3))]

    found: Any = asyncio.run(example_async()) if flow_is_async else example()
    assert found == [1, 2, 3]
    assert len(kind.starts) == 1


def test_first_use_from_inside_a_dask_worker(address: str) -> None:
    there = plus.with_options(task_runner=LocalTaskRunner(threads=1))

    @task(task_runner=DaskTaskRunner(address=address))
    def outer(number: int) -> int:
        return there.submit(number).result()

    @flow
    def example() -> Any:
        return outer.map(range(3)).result()

    assert example() == [1, 2, 3]


@pytest.mark.parametrize("flow_is_async", [False, True])
def test_a_runner_that_cannot_be_started_crashes_its_task_runs_only(
    flow_is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broken = plus.with_options(task_runner=Broken(), retries=2)

    def body() -> list[Any]:
        behind = plus.submit(broken.submit(3))
        return [broken.submit(1), *broken.map([1, 2]), behind, plus.submit(4)]

    def told(states: list[Any]) -> list[str]:
        return [state.name for state in states]

    @flow
    def example() -> Any:
        futures = body()
        with pytest.raises(CrashedRun) as info:
            futures[0].result()
        assert isinstance(info.value.__cause__, ConnectionError)
        return {"names": told([future.wait() for future in futures])}

    @flow
    async def example_async() -> Any:
        futures = body()
        for future in futures:
            await asyncio.wait([asyncio.ensure_future(awaited(future))])
        return {"names": told([future.state for future in futures])}

    found: Any = asyncio.run(example_async()) if flow_is_async else example()
    assert found["names"] == ["Crashed", "Crashed", "Crashed", "NotReady", "Completed"]
    assert len(Broken.starts) == 1, "it is tried once"
    assert "could not be started: ConnectionError: there is no engine here" in caplog.text


async def awaited(future: Any) -> Any:
    try:
        return await future
    except Exception as exc:
        return exc


def test_equal_runners_are_one_and_others_are_others() -> None:
    one, same = CountedEngine(threads=1), CountedEngine(threads=1)
    other = CountedEngine(threads=2)

    @flow(task_runner=one)
    def example() -> Any:
        futures = [
            plus.submit(1),
            *(plus.with_options(task_runner=each).submit(1) for each in (one, same, other, same)),
        ]
        return [future.result() for future in futures]

    assert example() == [2] * 5
    assert len(CountedEngine.starts) == 2


@pytest.mark.parametrize("name", RUNNERS)
def test_a_subflow_on_another_engine(name: str, address: str) -> None:
    @flow(task_runner=RUNNERS[name](address))
    def child(numbers: list[int]) -> Any:
        return plus.map(numbers)

    @flow(task_runner=ConcurrentTaskRunner())
    def parent() -> Any:
        first = plus.map(range(3)).result()
        return {"direct": child(first), "submitted": child.submit(first).result()}

    assert parent() == {"direct": [2, 3, 4], "submitted": [2, 3, 4]}


def test_an_async_flow_awaits_what_runs_on_several_engines(address: str) -> None:
    @flow
    async def example() -> Any:
        futures = [
            plus_async.with_options(task_runner=make(address)).submit(number)
            for number, make in enumerate(RUNNERS.values())
        ]
        return [await future for future in futures]

    assert asyncio.run(example()) == list(range(1, len(RUNNERS) + 1))
