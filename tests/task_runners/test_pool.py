"""The pool: bounds, barriers, order, slots left and taken again, and nothing lost under stress."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any

import pytest

from penstock import flow, task
from penstock.clock import clock
from penstock.runtime.context import current_run
from penstock.task_runners import ConcurrentTaskRunner
from penstock.task_runners.pool import PoolSlot, WorkerPool
from penstock.task_runners.queues import CallQueue
from penstock.testing.ledger import wait_until

pytestmark = pytest.mark.timeout(90)


class Meter:
    """Counts how many are inside at a time."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def pool_here() -> Any:
    """Give the pool of the flow run whose code calls."""
    run: Any = current_run.get()
    return run.live.runners.running(None).runner._pool


def assert_at_rest(pool: Any) -> None:
    assert (pool.running, pool.left, pool.awake, len(pool._returning)) == (0, 0, 0, 0)


@pytest.mark.parametrize("parties", [2, 9, 64])
def test_calls_that_wait_for_each_other_all_start(parties: int) -> None:
    barrier = threading.Barrier(parties)

    @task
    def meet(number: int) -> int:
        barrier.wait(20)
        return number

    @flow(task_runner=ConcurrentTaskRunner(max_workers=parties))
    def example() -> Any:
        return meet.map(range(parties))

    assert example() == list(range(parties))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_limit_holds_for_both_kinds_while_parents_wait(limit: int) -> None:
    meter = Meter()
    pools: list[Any] = []

    @task
    def leaf(number: int) -> int:
        with meter:
            time.sleep(0.001)
        return number

    @task
    async def leaf_async(number: int) -> int:
        with meter:
            time.sleep(0.001)
        return number

    @task
    def parent(number: int) -> int:
        children = [leaf.submit(1), leaf_async.submit(2)]
        with meter:
            pass
        total = sum(child.result() for child in children)
        with meter:
            return total + number

    @task
    async def parent_async(number: int) -> int:
        children = [leaf.submit(1), leaf_async.submit(2)]
        total = sum(await asyncio.gather(*children))
        with meter:
            return total + number

    @flow(task_runner=ConcurrentTaskRunner(max_workers=limit))
    def example() -> Any:
        futures = [(parent, parent_async)[n % 2].submit(n) for n in range(30)]
        pools.append(pool_here())
        return futures

    assert example() == [n + 3 for n in range(30)]
    assert meter.most <= limit
    assert_at_rest(pools[0])


def test_async_calls_are_bounded_across_awaits() -> None:
    meter = Meter()

    @task
    async def hold() -> None:
        with meter:
            await asyncio.sleep(0.002)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=3))
    async def example() -> None:
        for future in [hold.submit() for _ in range(30)]:
            await future

    asyncio.run(example())
    assert meter.most == 3


def test_larger_priority_first_then_first_come() -> None:
    ran: list[int] = []
    gate = threading.Event()

    @task
    def hold() -> None:
        gate.wait(10)

    @task
    def note(number: int) -> None:
        ran.append(number)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def example() -> None:
        first = hold.submit()
        wait_until(lambda: first.state.is_running())
        for number in range(6):
            note.with_options(priority=number % 3).submit(number)
        gate.set()

    example()
    assert ran == [2, 5, 1, 4, 0, 3]


def test_lanes_opened_by_many_threads_lose_nothing() -> None:
    class FakeCall:
        def __init__(self, priority: int) -> None:
            self.priority = priority
            self.number = 0
            self.ticket: list[None] = []

    for _ in range(50):
        queue = CallQueue(iter(range(1, 10**6)))
        begin = threading.Barrier(8)

        def push(first: int, queue: Any = queue, begin: Any = begin) -> None:
            begin.wait(5)
            for priority in range(first, first + 5):
                queue.push(FakeCall(priority))

        threads = [threading.Thread(target=push, args=(5 * n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        order = [call.priority for call in iter(queue.pop, None)]
        assert order == sorted(range(40), reverse=True)


def test_abandoned_slot_is_given_away_once() -> None:
    pool = WorkerPool(1)
    pool.running = 1
    slot = PoolSlot(pool)
    slot.abandon()
    slot.abandon()
    slot.leave()
    slot.come_back()
    assert (pool.running, pool.left) == (0, 1)
    assert slot.end()
    pool.rejoin()
    assert (pool.running, pool.left) == (1, 0)


def test_slot_of_a_call_that_ended_is_not_given_away() -> None:
    pool = WorkerPool(1)
    pool.running = 1
    slot = PoolSlot(pool)
    assert not slot.end()
    slot.abandon()
    assert (pool.running, pool.left) == (1, 0)


def test_lent_slot_that_was_given_away_is_taken_again() -> None:
    pool = WorkerPool(2)
    pool.running = 1
    slot = PoolSlot(pool)
    lent = slot.lend()
    assert lent is not None
    slot.abandon()
    lent.abandon()
    assert (pool.running, pool.left) == (0, 1)
    slot.take_home(lent)
    assert (pool.running, pool.left) == (1, 0)


def test_call_cancelled_while_it_comes_back_loses_no_slot() -> None:
    async def example() -> None:
        pool = WorkerPool(1)
        pool.running = 1
        slot = PoolSlot(pool)
        slot.leave()
        pool.running = 1  # somebody else took it
        coming = asyncio.ensure_future(slot.acome_back())
        await asyncio.sleep(0)
        coming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await coming
        assert (pool.running, pool.left, len(pool._returning)) == (2, 0, 0)

    asyncio.run(example())


def test_system_without_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.task_runners.pool import Worker

    start = Worker.start
    started: list[Worker] = []

    def start_two(worker: Worker) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(worker)
        start(worker)

    monkeypatch.setattr(Worker, "start", start_two)

    @task
    def slow(number: int) -> int:
        time.sleep(0.005)
        return number

    @flow
    def example() -> Any:
        return slow.map(range(40))

    assert example() == list(range(40))


def test_closed_pool_leaves_no_thread() -> None:
    @task
    def nothing(number: int) -> None:
        time.sleep(0.001)

    @flow
    def example() -> None:
        nothing.map(range(100))

    example()
    clock.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("penstock-worker")]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("limit", [1, 2, 8])
def test_random_graphs_against_plain_python(seed: int, limit: int) -> None:
    """Sync, async, failures, retries, children, cancels: all end, with the right values."""
    graph = random_graph(random.Random(seed))
    tries: dict[int, int] = {}
    pools: list[Any] = []

    @task
    def leaf(value: int) -> int:
        return value

    @task
    async def leaf_async(value: int) -> int:
        return value

    def begin(number: int) -> list[Any]:
        tries[number] = tries.get(number, 0) + 1
        if graph[number]["fails"] or (graph[number]["retries"] and tries[number] == 1):
            raise ValueError(number)
        return [(leaf, leaf_async)[kid % 2].submit(kid) for kid in graph[number]["kids"]]

    @task(retries=1, retry_delay_seconds=0.001)
    def node(number: int, values: list[int]) -> int:
        kids: int = sum(kid.result() for kid in begin(number))
        return number + sum(values) + kids

    @task(retries=1, retry_delay_seconds=0.001)
    async def node_async(number: int, values: list[int]) -> int:
        kids: int = sum(await asyncio.gather(*begin(number)))
        return number + sum(values) + kids

    @flow(task_runner=ConcurrentTaskRunner(max_workers=limit))
    def example() -> list[Any]:
        futures: list[Any] = []
        for number, one in enumerate(graph):
            chosen: Any = node_async if one["is_async"] else node
            futures.append(chosen.submit(number, [futures[d] for d in one["upstream"]]))
        cancelled = {n for n in range(0, len(futures), 9) if futures[n].cancel()}
        assert {n for n, future in enumerate(futures) if future.wait() and future.cancelled()} == (
            cancelled
        )
        pools.append(pool_here())
        return [
            "cancelled"
            if n in cancelled
            else future.result(raise_on_failure=False)
            if future.exception() is None
            else None
            for n, future in enumerate(futures)
        ]

    outcomes = example()
    assert outcomes == expected(graph, {n for n, o in enumerate(outcomes) if o == "cancelled"})
    assert_at_rest(pools[0])


def random_graph(rng: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "upstream": rng.sample(range(number), min(number, rng.choice([0, 0, 1, 2, 3]))),
            "is_async": rng.random() < 0.4,
            "fails": rng.random() < 0.05,
            "retries": rng.random() < 0.1,
            "kids": [rng.randrange(6) for _ in range(rng.choice([0, 0, 1, 3]))],
        }
        for number in range(60)
    ]


def expected(graph: list[dict[str, Any]], cancelled: set[int]) -> list[Any]:
    values: list[Any] = []
    for number, one in enumerate(graph):
        upstream = [values[d] for d in one["upstream"]]
        if number in cancelled:
            values.append("cancelled")
        elif one["fails"] or any(not isinstance(value, int) for value in upstream):
            values.append(None)
        else:
            values.append(number + sum(upstream) + sum(one["kids"]))
    return values
