"""Flow loops: the caller's, one of their own, one in passing; and alarms."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any

import pytest

from penstock.runtime import loops
from penstock.runtime.loops import FlowLoop, LoopAlarm, PassingLoop, is_loop_thread, running_loop

word: ContextVar[str] = ContextVar("word", default="none")


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_own_loop_runs_in_its_thread() -> None:
    loop = FlowLoop()

    async def where() -> tuple[bool, bool, str]:
        return loop.runs_here(), is_loop_thread(), word.get()

    assert not loop.is_open
    token = word.set("carried")
    assert loop.run(where) == (True, True, "carried")
    word.reset(token)
    assert not loop.runs_here()
    loop.close()
    assert not loop.is_open
    loop.close()


def test_error_of_the_coroutine_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("mine")

    loop = FlowLoop()
    with pytest.raises(ValueError, match="mine"):
        loop.run(fail)
    loop.close()


def test_run_on_its_own_thread_takes_another_loop() -> None:
    loop = FlowLoop()

    async def outer() -> Any:
        # What synchronous code inside an async task would do.
        return loop.run(lambda: double(4))

    assert loop.run(outer) == 8
    loop.close()


def test_passing_loop_spawns_in_a_thread_that_ends() -> None:
    came = SimpleQueue[int]()

    async def note(number: int) -> None:
        came.put(await double(number))

    PassingLoop().spawn(note, 3)
    assert came.get(timeout=5) == 6
    assert PassingLoop().run(lambda: double(1)) == 2


def test_spawn_from_many_threads() -> None:
    loop, came = FlowLoop(), SimpleQueue[int]()

    async def note(number: int) -> None:
        came.put(number)

    def spawn(first: int) -> None:
        for number in range(first, first + 200):
            loop.spawn(note, number)

    threads = [threading.Thread(target=spawn, args=(200 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came.get(timeout=5) for _ in range(1600)) == list(range(1600))
    loop.close()


def test_loop_that_is_blocked_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "_JOIN_SECONDS", 0.1)
    loop, begun, released = FlowLoop(), threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        released.wait(30)

    loop.spawn(block)
    begun.wait(5)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "penstock.runtime"):
        loop.close()
    assert time.monotonic() - began < 10
    released.set()
    assert "1 event loop could not be stopped" in caplog.text


def test_alarm_rings_from_other_threads() -> None:
    async def example() -> int:
        alarm = LoopAlarm.of(asyncio.get_running_loop())
        assert LoopAlarm.of(asyncio.get_running_loop()) is alarm
        waiters = [alarm.loop.create_future() for _ in range(500)]

        def ring() -> None:
            for waiter in waiters:
                alarm.ring(waiter)
                alarm.ring(waiter)

        thread = threading.Thread(target=ring)
        thread.start()
        await asyncio.gather(*waiters)
        thread.join()
        return len(waiters)

    assert asyncio.run(example()) == 500


def test_alarm_of_a_closed_loop_is_silent() -> None:
    async def example() -> tuple[LoopAlarm, Any]:
        alarm = LoopAlarm.of(asyncio.get_running_loop())
        return alarm, alarm.loop.create_future()

    alarm, waiter = asyncio.run(example())
    thread = threading.Thread(target=alarm.ring, args=(waiter,))
    thread.start()
    thread.join()


def test_alarm_follows_a_loop_to_another_thread() -> None:
    loop = asyncio.new_event_loop()

    async def wait_for_ring() -> bool:
        alarm = LoopAlarm.of(loop)
        waiter = alarm.loop.create_future()
        here = threading.get_ident()
        assert alarm._thread_id == here
        threading.Thread(target=alarm.ring, args=(waiter,)).start()
        await asyncio.wait_for(waiter, 5)
        return True

    assert loop.run_until_complete(wait_for_ring())
    came: list[bool] = []
    thread = threading.Thread(target=lambda: came.append(loop.run_until_complete(wait_for_ring())))
    thread.start()
    thread.join(10)
    assert came == [True]
    loop.close()


def test_no_loop_runs_here() -> None:
    assert running_loop() is None
