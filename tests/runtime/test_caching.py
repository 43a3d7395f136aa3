"""Caching beyond what every task runner has in common."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, task
from penstock.errors import DeadlockError, InvalidOptionError
from penstock.runtime import recording
from penstock.states import State
from penstock.task_runners import ConcurrentTaskRunner
from penstock.tasks import task_input_hash
from tests.history.rows import select

PATIENCE = 10.0
ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    ran.clear()


def by_name(context: Any, parameters: Any) -> str:
    return str(context.task.name)


@task(cache_key_fn=by_name)
def make() -> int:
    ran.append("make")
    return len(ran)


@task(cache_key_fn=by_name)
def make_large() -> bytes:
    ran.append("large")
    return bytes([len(ran)]) * 100_000


def name_of(state: State) -> str:
    state.result()
    return state.name


@pytest.mark.parametrize(
    "options",
    [
        {"cache_key_fn": 3},
        {"cache_expiration": 0},
        {"cache_expiration": -1.0},
        {"cache_expiration": True},
        {"cache_expiration": "1h"},
        {"cache_expiration": timedelta()},
        {"refresh_cache": 1},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        task(**options)(lambda: None)


def test_durations_become_seconds() -> None:
    assert make.with_options(cache_expiration=timedelta(minutes=1)).cache_expiration == 60.0
    assert make.with_options(cache_expiration=2).cache_expiration == 2.0
    assert make.with_options(cache_expiration=timedelta.max).cache_expiration == 9e9


def test_values_outlast_the_process_as_far_as_it_knows(penstock_home: Path) -> None:
    assert name_of(make(return_state=True)) == "Completed"
    recording.close()
    assert name_of(make(return_state=True)) == "Cached"
    recording.close()

    path = penstock_home / "history.db"
    rows = select(path, "SELECT state_name, message, attempt, detail, result FROM task_runs")
    (_, _, first, detail, _), (name, message, second, cached, result) = rows
    assert (name, first, second, result) == ("Cached", 1, 0, b"1")
    assert json.loads(detail) == {"cache": "miss", "cache_key": "make"}
    ((run_id,),) = select(path, "SELECT id FROM task_runs LIMIT 1")
    expected = {"cache": "hit", "cache_key": "make", "cached_from": run_id.hex()}
    assert json.loads(cached) == expected
    assert run_id.hex() in message.replace("-", "")
    assert select(path, "SELECT count(*) FROM cache_claims") == [(0,)]


def test_without_recording_values_last_as_long_as_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_RECORD", "off")

    @flow
    def example() -> list[int]:
        return [future.result() for future in [make.submit(), make.submit(), make.submit()]]

    assert example() == [1, 1, 1]
    assert example() == [1, 1, 1]


def test_the_setting_refreshes_all_that_do_not_object(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make() == 1
    monkeypatch.setenv("PENSTOCK_REFRESH_CACHE", "on")
    assert make() == 2
    assert make.with_options(refresh_cache=False)() == 2


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_stored_value_that_cannot_be_used_is_made_again(
    penstock_home: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert make_large()[:1] == b"\1"
    assert name_of(make_large(return_state=True)) == "Cached"
    folder = penstock_home / "results"
    (stored,) = [path for path in folder.rglob("*") if path.is_file()]
    if damage == "missing":
        shutil.rmtree(folder)
    else:
        stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with caplog.at_level(logging.WARNING, "penstock.caching"):
        assert make_large()[:1] == b"\2"
    assert "cannot be used, so it runs" in caplog.text
    assert name_of(make_large(return_state=True)) == "Cached"
    assert make_large()[:1] == b"\2"


def test_a_value_that_cannot_be_kept_does_not_fail_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @task(cache_key_fn=by_name)
    def lock() -> Any:
        ran.append("lock")
        return threading.Lock()

    with caplog.at_level(logging.WARNING, "penstock.caching"):
        lock()
        lock()
    assert ran == ["lock", "lock"]
    assert "is not cached" in caplog.text


def test_runs_that_wait_for_what_was_not_kept_all_run() -> None:
    gate, begun = threading.Event(), threading.Event()

    @task(cache_key_fn=by_name, persist_result=False)
    def lock() -> Any:
        ran.append("lock")
        begun.set()
        assert gate.wait(PATIENCE)
        return threading.Lock()

    @flow
    def example() -> None:
        futures = [lock.submit() for _ in range(3)]
        assert begun.wait(PATIENCE)
        gate.set()
        assert [future.state.name for future in futures if future.wait()] == ["Completed"] * 3

    example()
    assert ran == ["lock"] * 3


def test_retries_keep_the_lead() -> None:
    begun, gate = threading.Event(), threading.Event()

    @task(cache_key_fn=by_name, retries=2)
    def flaky() -> int:
        ran.append("flaky")
        begun.set()
        assert gate.wait(PATIENCE)
        if len(ran) < 3:
            raise ValueError("again")
        return 3

    @flow
    def example() -> list[str]:
        first = flaky.submit()
        assert begun.wait(PATIENCE)
        second = flaky.submit()
        gate.set()
        return [each.state.name for each in (first, second) if each.wait()]

    assert example() == ["Completed", "Cached"]
    assert ran == ["flaky"] * 3


def test_waiting_is_limited_in_time() -> None:
    begun, gate = threading.Event(), threading.Event()

    @task(cache_key_fn=lambda context, parameters: "same")
    def slow() -> None:
        begun.set()
        assert gate.wait(PATIENCE)

    @flow
    def example() -> None:
        first = slow.submit()
        assert begun.wait(PATIENCE)
        state = slow.with_options(timeout_seconds=0.1).submit(return_state=True)
        gate.set()
        assert (state.name, state.message) == (
            "TimedOut",
            "Task run exceeded timeout of 0.1 seconds",
        )
        first.result()

    example()


def test_waiting_holds_no_slot() -> None:
    begun, gate = threading.Event(), threading.Event()

    @task(cache_key_fn=lambda context, parameters: "same")
    def slow(leads: bool) -> None:
        begun.set()
        assert gate.wait(PATIENCE)

    @task
    def other() -> None:
        gate.set()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def example() -> None:
        futures = [slow.submit(True)]
        assert begun.wait(PATIENCE)
        futures += [slow.submit(False) for _ in range(3)]
        futures.append(other.submit())
        assert [future.wait(PATIENCE) is not None for future in futures] == [True] * 5

    example()


def test_coroutines_wait_without_holding_up_their_loop() -> None:
    @task(cache_key_fn=by_name)
    async def make_async(gate: asyncio.Event) -> int:
        ran.append("async")
        await gate.wait()
        return 7

    @task
    async def other(gate: asyncio.Event) -> None:
        gate.set()

    @flow
    async def example() -> list[Any]:
        gate = asyncio.Event()
        first = make_async.submit(gate)
        while not ran:
            await asyncio.sleep(0)
        called = asyncio.create_task(make_async(gate))
        second = make_async.submit(gate)
        await asyncio.sleep(0.1)
        await other.submit(gate)
        return [await first, await second, await called]

    assert asyncio.run(example()) == [7, 7, 7]
    assert ran == ["async"]


def test_a_coroutine_that_waits_can_be_cancelled() -> None:
    @task(cache_key_fn=by_name)
    async def make_async(gate: asyncio.Event) -> int:
        ran.append("async")
        await gate.wait()
        return 7

    @flow
    async def example() -> list[str]:
        gate = asyncio.Event()
        first = make_async.submit(gate)
        while not ran:
            await asyncio.sleep(0)
        second = make_async.submit(gate)
        await asyncio.sleep(0.1)
        assert second.cancel()
        await asyncio.sleep(0.1)
        gate.set()
        await first
        return [first.state.name, second.state.name]

    assert asyncio.run(example()) == ["Completed", "Cancelled"]


def test_a_leader_that_waits_for_one_that_waits_for_it_does_not_hang() -> None:
    handed_over = threading.Event()
    futures: list[Any] = []

    @task(cache_key_fn=lambda context, parameters: "same")
    def leader(leads: bool) -> str:
        ran.append(leads)
        if leads:
            assert handed_over.wait(PATIENCE)
            assert futures[0].result() == "done"
        return "done"

    @flow
    def example() -> None:
        first = leader.submit(True)
        while not ran:
            pass
        futures.append(leader.submit(False))
        handed_over.set()
        # Whoever waits last is told: the leader by an error, the other one by running.
        problem = first.exception(PATIENCE)
        assert problem is None or isinstance(problem, DeadlockError)
        assert futures[0].result(PATIENCE) == "done"

    example()
    assert ran == [True, False]


def test_hooks_run_for_cached_runs() -> None:
    seen = []

    def hook(task: Any, task_run: Any, state: State) -> None:
        seen.append((task_run.name, state.name))

    @flow
    def example() -> None:
        hooked = make.with_options(on_completion=hook)
        hooked()
        hooked.submit().wait()

    example()
    assert seen == [("make-0", "Completed"), ("make-1", "Cached")]


def test_a_method_is_cached_by_its_instance() -> None:
    class Scale:
        def __init__(self, by: int) -> None:
            self.by = by

        def __reduce__(self) -> Any:
            return int, (self.by,)

        @task(cache_key_fn=task_input_hash)
        def scale(self, x: int) -> int:
            ran.append(x)
            return self.by * x

    assert [Scale(2).scale(3), Scale(2).scale(3), Scale(4).scale(3)] == [6, 6, 12]
    assert ran == [3, 3]


def test_a_forked_child_has_no_part_in_it(penstock_home: Path) -> None:
    assert make() == 1
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if make.fn() == 2 and not _holds_the_gate(penstock_home) else 1)
        except BaseException:
            os._exit(2)

    assert os.waitpid(child, 0)[1] == 0
    assert make() == 1


def _holds_the_gate(home: Path) -> bool:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return any(os.path.realpath(link).startswith(f"{home}/history.db.gate") for link in links)
