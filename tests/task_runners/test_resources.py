"""Resources on the runners that share memory with the flow."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import flow, task
from penstock.errors import CancelledRun, CrashedRun, DeadlockError, ResourceError
from penstock.task_runners import (
    BaseTaskRunner,
    ConcurrentTaskRunner,
    SequentialTaskRunner,
    accounts,
)
from penstock.task_runners.accounts import Account, Ledger
from penstock.task_runners.capacity import Machine
from penstock.testing.ledger import wait_until

pytestmark = pytest.mark.timeout(90)
CPUS = 3


class InUse:
    """How much is in use, and the most that ever was."""

    def __init__(self) -> None:
        self.now = self.most = 0.0
        self._lock = threading.Lock()

    def take(self, amount: float) -> None:
        with self._lock:
            self.now += amount
            self.most = max(self.most, self.now)

    def give(self, amount: float) -> None:
        with self._lock:
            self.now -= amount


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Pretend to a small machine; see that everything was given back."""
    ledger = Ledger(Machine(CPUS, 1000, ("0", "1")))
    monkeypatch.setattr(accounts, "_ledger", ledger)
    account = Account(ledger=ledger)
    yield account
    wait_until(lambda: account.free() == {"cpu": CPUS, "gpu": 2, "memory": 1000})
    assert (ledger.grants, list(ledger.returning), ledger.line._heads()) == (set(), [], [])


RUNNERS = [SequentialTaskRunner(), ConcurrentTaskRunner(), ConcurrentTaskRunner(max_workers=1)]
any_runner = pytest.mark.parametrize(
    "runner", RUNNERS, ids=["sequential", "concurrent", "one-worker"]
)


@any_runner
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("flow_is_async", [False, True])
def test_never_more_than_there_is(
    runner: BaseTaskRunner, is_async: bool, flow_is_async: bool
) -> None:
    use = InUse()

    def plain(cpu: int) -> int:
        use.take(cpu)
        time.sleep(0.002)
        use.give(cpu)
        return cpu

    async def coroutine(cpu: int) -> int:
        use.take(cpu)
        await asyncio.sleep(0.002)
        use.give(cpu)
        return cpu

    work: Any = task(coroutine if is_async else plain)
    asked = [1, 2, 3] * 8

    def submit() -> list[Any]:
        return [work.with_options(resources={"cpu": cpu}).submit(cpu) for cpu in asked]

    @flow(task_runner=runner)
    def example() -> Any:
        return submit()

    @flow(task_runner=runner)
    async def example_async() -> Any:
        return submit()

    found: Any = asyncio.run(example_async()) if flow_is_async else example()
    assert found == asked
    assert use.most <= CPUS
    if runner == ConcurrentTaskRunner():
        assert use.most > 1


@any_runner
def test_what_there_never_is_is_refused_on_submission(runner: BaseTaskRunner) -> None:
    @task(resources={"cpu": CPUS + 1})
    def large(number: int = 1) -> None: ...

    @flow(task_runner=runner)
    def example() -> str:
        with pytest.raises(ResourceError) as info:
            large.submit()
        with pytest.raises(ResourceError):
            large.map([1])
        return str(info.value)

    assert example() == (
        "Task 'large' asks for cpu=4; there is cpu=3, gpu=2, memory=1000 bytes. Ask for less, "
        "or run the task where there is more."
    )


def test_waiting_costs_no_thread_and_others_pass() -> None:
    go = threading.Event()
    ran: list[int] = []

    @task(resources={"cpu": CPUS})
    def large(number: int) -> None:
        go.wait(20)
        ran.append(number)

    @task
    def small() -> int:
        return len(ran)

    @task(resources={"gpu": 1})
    def other() -> int:
        return len(ran)

    @flow
    def example() -> int:
        futures = large.map(range(100))
        assert [small.submit().result(), other.submit().result()] == [0, 0]
        threads = threading.active_count()
        go.set()
        for future in futures:
            future.result()
        return threads

    before = threading.active_count()
    assert example() - before < 12
    assert ran == list(range(100))


@any_runner
@pytest.mark.parametrize("is_async", [False, True])
def test_children_may_have_the_cpu_of_parents_that_wait(
    runner: BaseTaskRunner, is_async: bool
) -> None:
    use = InUse()

    @task(resources={"cpu": 2})
    def down(depth: int) -> int:
        use.take(2)
        use.give(2)
        below = 0 if depth == 0 else down.submit(depth - 1).result()
        use.take(2)
        use.give(2)
        return below + 1

    @task(resources={"cpu": 2})
    async def adown(depth: int) -> int:
        use.take(2)
        use.give(2)
        below = 0 if depth == 0 else await adown.submit(depth - 1)
        use.take(2)
        use.give(2)
        return below + 1

    @flow(task_runner=runner)
    def example() -> Any:
        chosen: Any = adown if is_async else down
        return [chosen.submit(4), chosen.submit(3), chosen.submit(2)]

    assert example() == [5, 4, 3]
    assert use.most <= CPUS


@pytest.mark.parametrize("outer", [SequentialTaskRunner(), ConcurrentTaskRunner(max_workers=1)])
@pytest.mark.parametrize("inner", [SequentialTaskRunner(), ConcurrentTaskRunner(max_workers=1)])
@pytest.mark.parametrize("between", [SequentialTaskRunner(), ConcurrentTaskRunner(max_workers=1)])
def test_children_on_other_runners_with_a_plain_one_between(
    outer: BaseTaskRunner, between: BaseTaskRunner, inner: BaseTaskRunner
) -> None:
    @task(resources={"cpu": CPUS}, task_runner=inner)
    def last() -> int:
        return 3

    @task(task_runner=between)
    def middle() -> int:
        return last.submit().result()

    @task(resources={"cpu": CPUS}, task_runner=outer)
    def first() -> int:
        return middle.submit().result()

    @flow
    def example() -> int:
        return first.submit().result(timeout=20)

    assert example() == 3


@any_runner
def test_children_that_need_what_their_parent_keeps_are_told(runner: BaseTaskRunner) -> None:
    @task(resources={"gpu": 2})
    def parent() -> Any:
        return child.submit().result()

    @task(resources={"gpu": 1})
    def child() -> int:
        return 1

    @flow(task_runner=runner)
    def example() -> Any:
        return parent.submit().exception(timeout=20)

    problem: Any = example()
    if isinstance(problem, CrashedRun):
        problem = problem.__cause__
    assert isinstance(problem, DeadlockError)
    assert "parent-0 -> child-0 -> parent-0" in str(problem)


def test_cancelled_while_waiting_for_resources() -> None:
    go = threading.Event()
    ran: list[int] = []

    @task(resources={"cpu": CPUS})
    def large(number: int) -> int:
        go.wait(20)
        ran.append(number)
        return number

    @flow
    def example() -> Any:
        first, second, third = large.map(range(3))
        assert second.cancel()
        assert isinstance(second.exception(timeout=5), CancelledRun)
        go.set()
        return {"values": [first.result(), third.result()]}

    assert example()["values"] == ran == [0, 2]


def test_cancelled_with_resources_but_without_a_thread() -> None:
    go = threading.Event()

    @task
    def plain() -> None:
        go.wait(20)

    @task(resources={"cpu": CPUS})
    def large() -> int:
        return 1

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def example() -> Any:
        plain.submit()
        granted, waiting = large.submit(), large.submit()
        assert granted.cancel()
        granted.wait(5)
        go.set()
        return waiting.result(timeout=20)

    assert example() == 1


def test_cancelled_on_the_sequential_runner_while_its_thread_waits(machine: Account) -> None:
    grant = machine.acquire({"cpu": CPUS})
    assert grant is not None
    futures: list[Any] = []

    @task(resources={"cpu": 1}, task_runner=SequentialTaskRunner())
    def never() -> None:
        raise AssertionError

    @task
    def submit() -> Any:
        state: Any = never.submit().wait(timeout=20)
        return state.name

    @flow
    def example() -> Any:
        futures.append(submit.submit())
        from penstock.runtime.context import current_run

        live: Any = current_run.get()
        wait_until(lambda: any(name.startswith("never") for name in live.live.open_names()))
        run = next(run for run, _ in live.live.open_calls() if run.name == "never-0")
        wait_until(lambda: live.live.call_of(run).cargo is not None)
        assert live.live.cancel(run)
        return futures[0].result(timeout=20)

    assert example() == "Cancelled"
    machine.release(grant)


def test_one_ledger_for_all_runners_and_flow_runs() -> None:
    use = InUse()

    @task(resources={"cpu": 1})
    def work() -> None:
        use.take(1)
        time.sleep(0.005)
        use.give(1)

    other = work.with_options(task_runner=ConcurrentTaskRunner(max_workers=7))
    here = work.with_options(task_runner=SequentialTaskRunner())

    @flow
    def example() -> Any:
        return [each.submit() for each in [work, other, here] * 6]

    flows = [threading.Thread(target=example) for _ in range(3)]
    for each in flows:
        each.start()
    for each in flows:
        each.join(30)
    assert 1 < use.most <= CPUS


def test_names_of_the_users_own_belong_to_the_runner() -> None:
    use = InUse()

    @task(resources={"Licence": 1})
    def work() -> None:
        use.take(1)
        time.sleep(0.002)
        use.give(1)

    @flow(task_runner=ConcurrentTaskRunner(resources={"licence": 2}))
    def example() -> Any:
        return [work.submit() for _ in range(20)]

    assert example() == [None] * 20
    assert use.most == 2


def test_what_a_thread_holds_is_given_back_when_it_has_really_ended(
    machine: Account, caplog: Any
) -> None:
    go = threading.Event()
    ended: list[float] = []

    @task(resources={"cpu": CPUS}, timeout_seconds=0.05)
    def stuck() -> None:
        while not go.is_set():
            try:
                go.wait(20)
            except BaseException:
                continue
        ended.append(machine.free()["cpu"])

    @task(resources={"cpu": 1})
    def next_one() -> list[float]:
        return ended.copy()

    @flow
    def example() -> Any:
        first = stuck.submit()
        state: Any = first.wait(10)
        assert state.name == "TimedOut"
        then = next_one.submit()
        wait_until(lambda: "its code goes on: it keeps cpu=3" in caplog.text)
        assert not then.done()
        go.set()
        return {"then": then.result(timeout=20)}

    assert example() == {"then": [0.0]}


def test_a_waiting_retry_holds_nothing(machine: Account) -> None:
    free: list[float] = []

    @task(resources={"cpu": CPUS}, retries=1, retry_delay_seconds=0.2)
    def twice() -> int:
        if not free:
            free.append(-1)
            raise ValueError
        return 1

    @task(resources={"cpu": CPUS})
    def meanwhile() -> None:
        free.append(machine.free()["cpu"])

    @flow
    def example() -> Any:
        return [twice.submit(), meanwhile.submit()]

    assert example() == [1, None]
    assert free == [-1, 0]


def test_a_sequential_task_does_not_block_the_loop_that_runs_what_it_waits_for() -> None:
    @task(resources={"cpu": CPUS})
    async def hold(begun: asyncio.Event, go: asyncio.Event) -> None:
        begun.set()
        await go.wait()

    @task(resources={"cpu": 1}, task_runner=SequentialTaskRunner())
    def here() -> int:
        return 1

    @flow
    async def example() -> Any:
        begun, go = asyncio.Event(), asyncio.Event()
        held = hold.submit(begun, go)
        await begun.wait()
        problem = here.submit().exception()
        go.set()
        await held
        return {"problem": problem, "then": here.submit().result()}

    found = asyncio.run(example())
    assert "would have to wait here for a task that runs on the event loop" in str(found["problem"])
    assert found["then"] == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_priority_decides_who_has_resources_next(is_async: bool) -> None:
    go = threading.Event()
    order: list[int] = []

    @task(resources={"cpu": CPUS})
    def hold() -> None:
        go.wait(20)

    def plain(priority: int) -> None:
        order.append(priority)

    async def coroutine(priority: int) -> None:
        order.append(priority)

    note: Any = task(coroutine if is_async else plain)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def example() -> Any:
        first = hold.submit()
        chosen = [1, 3, 2, 3]
        futures = [
            note.with_options(priority=each, resources={"cpu": 3}).submit(each) for each in chosen
        ]
        go.set()
        return [first, *futures]

    example()
    assert order == [3, 3, 2, 1]


@pytest.mark.parametrize("is_async", [False, True])
def test_priority_decides_who_has_a_slot_next(is_async: bool) -> None:
    go = threading.Event()
    order: list[int] = []

    @task
    def hold() -> None:
        go.wait(20)

    def plain(priority: int) -> None:
        order.append(priority)

    async def coroutine(priority: int) -> None:
        order.append(priority)

    note: Any = task(coroutine if is_async else plain)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def example() -> Any:
        first = hold.submit()
        futures = [note.with_options(priority=each).submit(each) for each in [1, 3, 2, 3]]
        go.set()
        return [first, *futures]

    example()
    assert order == [3, 3, 2, 1]


def test_thousands_that_wait_take_their_turn_quickly() -> None:
    @task(resources={"cpu": CPUS})
    def work(number: int) -> int:
        return number

    @flow
    def example() -> Any:
        return work.map(range(3000))

    began = time.monotonic()
    assert example() == list(range(3000))
    assert time.monotonic() - began < 15


def test_parents_that_together_keep_what_their_children_need_are_told() -> None:
    begun: list[int] = []

    @task(resources={"gpu": 1})
    def parent(number: int) -> Any:
        begun.append(number)
        wait_until(lambda: len(begun) == 2)
        return child.submit(number).result()

    @task(resources={"gpu": 1})
    def child(number: int) -> int:
        return number

    @flow
    def example() -> Any:
        return {"problems": [each.exception(timeout=20) for each in parent.map([1, 2])]}

    problems = example()["problems"]
    assert [type(problem) for problem in problems if problem] == [DeadlockError]
    assert "child" in str(next(filter(None, problems)))


def test_who_waits_for_a_holder_that_can_end_is_no_deadlock() -> None:
    begun = threading.Event()

    @task(resources={"gpu": 1})
    def holder() -> None:
        begun.wait(20)

    @task(resources={"gpu": 1})
    def parent() -> int:
        future = child.submit()
        begun.set()
        return future.result()

    @task(resources={"gpu": 1})
    def child() -> int:
        return 1

    @flow
    def example() -> Any:
        return [holder.submit(), parent.submit()]

    assert example() == [None, 1]


def interrupt_when_in_line(machine: Account, ledger: Any) -> threading.Thread:
    def interrupt() -> None:
        wait_until(lambda: bool(ledger.line._heads()))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


@pytest.mark.parametrize("runner", RUNNERS[:2], ids=["sequential", "concurrent"])
def test_ctrl_c_while_something_waits_for_resources(
    runner: BaseTaskRunner, machine: Account
) -> None:
    grant = machine.acquire({"cpu": CPUS})
    assert grant is not None

    @task(resources={"cpu": 1})
    def never() -> None:
        raise AssertionError

    @flow(task_runner=runner)
    def example() -> Any:
        return never.submit().result()

    thread = interrupt_when_in_line(machine, accounts._ledger)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        example()
    thread.join()
    assert time.monotonic() - began < 9
    machine.release(grant)


def test_the_time_limit_of_a_flow_that_waits_for_resources(machine: Account) -> None:
    grant = machine.acquire({"cpu": CPUS})
    assert grant is not None

    @task(resources={"cpu": 1})
    def never() -> None:
        raise AssertionError

    @flow(task_runner=SequentialTaskRunner(), timeout_seconds=0.2)
    def example() -> Any:
        return never.submit().result()

    assert example(return_state=True).name == "TimedOut"
    machine.release(grant)
