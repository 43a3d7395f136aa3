"""What tasks on worker processes ask for: never more than there is, and devices of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, task
from penstock.errors import ResourceError
from penstock.task_runners import ConcurrentTaskRunner, ProcessPoolTaskRunner, accounts
from penstock.task_runners.capacity import Machine
from penstock.testing.ledger import Gate, Ledger, wait_until


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretend that this is a machine of three cores and two devices."""
    ledger = accounts.Ledger(Machine(cpu=3, memory=8 * 10**9, gpus=("0", "GPU-b")))
    monkeypatch.setattr(accounts, "_ledger", ledger)
    yield
    assert not ledger.grants


def most_at_once(lines: list[str]) -> int:
    """Give how many were between their "begin" and their "end" at the same time."""
    now = most = 0
    for line in lines:
        now += 1 if line == "begin" else -1
        most = max(most, now)
    return most


def test_never_more_than_there_is(machine: None, tmp_path: Path) -> None:
    log = Ledger(tmp_path / "log")

    @task(resources={"cpu": 1.5})
    def work(number: int) -> int:
        log.add("begin")
        time.sleep(0.05)
        log.add("end")
        return number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=4))
    def example() -> Any:
        return work.map(range(8)).result()

    assert example() == list(range(8))
    assert most_at_once(log.lines()) == 2


def test_more_than_there_ever_is_is_refused(machine: None) -> None:
    @task
    def work() -> None: ...

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1, resources={"licence": 1}))
    def example() -> None:
        for asked, said in [
            ({"cpu": 4}, "Task 'work' asks for cpu=4; there is cpu=3"),
            ({"gpu": 3}, "asks for gpu=3; there is"),
            ({"licence": 2}, "licence=1. Ask for less"),
            ({"other": 1}, "resources={'licence': 1.0, 'other': 1.0}"),
        ]:
            with pytest.raises(ResourceError) as caught:
                work.with_options(resources=asked).submit()
            assert said in str(caught.value)
        work.with_options(resources={"licence": 1}).submit().result()

    example()


def test_each_has_devices_of_its_own(machine: None) -> None:
    @task(resources={"gpu": 1})
    def devices(number: int) -> tuple[int, str | None]:
        time.sleep(0.1)
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")

    @task(resources={"gpu": 2})
    def both() -> tuple[int, str | None]:
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")

    @task
    def none() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> None:
        found = devices.map(range(6)).result()
        assert {seen for _, seen in found} == {"0", "GPU-b"}
        # A process keeps the device that it has begun with.
        assert len(set(found)) == len({pid for pid, _ in found}) == 2
        pid, seen = both.submit().result()
        assert seen == "0,GPU-b"
        assert pid not in {one for one, _ in found}
        assert none.submit().result() is None

    example()


def test_a_waiting_parent_lends_its_processor(machine: None) -> None:
    @task(resources={"cpu": 3})
    def down(depth: int) -> int:
        return 0 if depth == 0 else down.submit(depth - 1).result() + 1

    assert flow(task_runner=ProcessPoolTaskRunner(2))(lambda: down.submit(3).result())() == 3


def test_children_that_need_what_their_parent_keeps_are_named(
    machine: None, caplog: pytest.LogCaptureFixture
) -> None:
    @task(resources={"gpu": 2})
    def down(depth: int) -> int:
        return 0 if depth == 0 else down.submit(depth - 1).result() + 1

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> None:
        parent = down.submit(1)
        wait_until(lambda: "'down-1' waits for gpu=2, which down-0 keep while" in caplog.text)
        assert parent.cancel()

    example()


def test_others_pass_while_one_waits_and_it_can_be_cancelled(machine: None, tmp_path: Path) -> None:
    gate, there = Gate(tmp_path / "gate"), Ledger(tmp_path / "there")

    @task(resources={"cpu": 3})
    def all_of_it(number: int) -> int:
        there.add(str(number))
        gate.wait()
        return number

    @task
    def none(number: int) -> int:
        return number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> None:
        first = all_of_it.submit(1)
        wait_until(lambda: there.lines() == ["1"])
        second = all_of_it.submit(2)
        assert none.map(range(5)).result() == list(range(5))
        assert second.cancel()
        state = second.wait(10)
        assert state is not None
        assert state.is_cancelled()
        gate.open()
        assert first.result() == 1
        assert all_of_it.submit(3).result() == 3

    example()
    assert there.lines() == ["1", "3"]


def test_a_dead_worker_gives_back_what_it_had(machine: None) -> None:
    @task(resources={"cpu": 3}, worker_loss_retries=0)
    def die() -> None:
        os._exit(1)

    @task(resources={"cpu": 3})
    def live() -> int:
        return 1

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> int:
        state = die.submit().wait(20)
        assert state is not None
        assert state.is_crashed()
        found: int = live.submit().result()
        return found

    assert example() == 1


def test_runners_of_one_process_share_the_machine(machine: None, tmp_path: Path) -> None:
    log = Ledger(tmp_path / "log")

    @task(resources={"cpu": 2})
    def work(number: int) -> int:
        log.add("begin")
        time.sleep(0.03)
        log.add("end")
        return number

    elsewhere = work.with_options(task_runner=ConcurrentTaskRunner())

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> int:
        futures = [one.submit(n) for n in range(4) for one in (work, elsewhere)]
        return sum(future.result() for future in futures)

    assert example() == 12
    assert most_at_once(log.lines()) == 1
