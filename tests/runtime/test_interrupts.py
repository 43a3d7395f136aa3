"""Interruptions: main thread and others, inside each other, shielded, late, swallowed."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from penstock.clock import clock
from penstock.runtime.interrupts import Interrupted, Interruption, is_bookkeeping, shielded
from penstock.testing.ledger import wait_until


def in_thread(function: Callable[[], Any]) -> Any:
    """Give what a function gives or raises in another thread."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return outcome[0]


def here(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except BaseException as exc:
        return exc


@pytest.fixture(params=[here, in_thread], ids=["main", "thread"])
def place(request: pytest.FixtureRequest) -> Any:
    return request.param


def spin() -> None:
    wait_until(lambda: False)


def interrupted_after(seconds: float, function: Callable[[], Any]) -> Any:
    interruption = Interruption()
    clock.call_later(seconds, interruption.fire)
    return interruption.call(function, (), {})


def test_value_goes_through(place: Any) -> None:
    assert place(lambda: Interruption().call(max, (1, 2), {})) == 2


def test_error_goes_through(place: Any) -> None:
    def fail() -> None:
        raise ValueError("mine")

    assert isinstance(place(lambda: Interruption().call(fail, (), {})), ValueError)


def test_code_is_interrupted(place: Any) -> None:
    began = time.monotonic()
    assert isinstance(place(lambda: interrupted_after(0.05, spin)), Interrupted)
    assert time.monotonic() - began < 5


def test_sleep_in_the_main_thread_is_interrupted() -> None:
    began = time.monotonic()
    with pytest.raises(Interrupted):
        interrupted_after(0.05, lambda: time.sleep(20))
    assert time.monotonic() - began < 5


def test_fired_before_it_begins(place: Any) -> None:
    interruption = Interruption()
    interruption.fire()
    called: list[int] = []
    assert isinstance(place(lambda: interruption.call(called.append, (1,), {})), Interrupted)
    assert not called


def test_fired_after_its_end_does_nothing(place: Any) -> None:
    def run() -> str:
        interruption = Interruption()
        interruption.call(int, (), {})
        interruption.fire()
        for _ in range(1000):
            pass
        return "whole"

    assert place(run) == "whole"


@pytest.mark.parametrize("ending", ["returns", "raises"])
def test_swallowed_interruption_counts_all_the_same(place: Any, ending: str) -> None:
    def swallow() -> str:
        try:
            spin()
        except BaseException:
            if ending == "raises":
                raise ValueError("mine") from None
        return "went on"

    assert isinstance(place(lambda: interrupted_after(0.05, swallow)), Interrupted)


def test_cleaning_up_is_not_interrupted_again(place: Any) -> None:
    cleaned: list[str] = []

    def run() -> None:
        interruption = Interruption()
        clock.call_later(0.05, interruption.fire)
        clock.call_later(0.1, interruption.fire)

        def work() -> None:
            try:
                spin()
            finally:
                until = time.monotonic() + 0.2
                wait_until(lambda: time.monotonic() > until)
                cleaned.append("up")

        interruption.call(work, (), {})

    assert isinstance(place(run), Interrupted)
    assert cleaned == ["up"]


@pytest.mark.parametrize(("outer", "inner"), [(0.05, 9), (0.1, 0.05), (0.05, 0.05)])
def test_calls_inside_each_other(place: Any, outer: float, inner: float) -> None:
    def work() -> None:
        interruption = Interruption()
        clock.call_later(inner, interruption.fire)
        try:
            interruption.call(spin, (), {})
        except Interrupted:
            if not interruption.fired:
                raise  # it was meant for the call around
        spin()

    began = time.monotonic()
    assert isinstance(place(lambda: interrupted_after(outer, work)), Interrupted)
    assert time.monotonic() - began < 5


def test_shielded_call_is_left_alone(place: Any) -> None:
    seen: list[str] = []

    def other() -> None:
        until = time.monotonic() + 0.2
        wait_until(lambda: time.monotonic() > until)
        seen.append("whole")

    def work() -> None:
        with shielded():
            Interruption().call(other, (), {})
        spin()

    assert isinstance(place(lambda: interrupted_after(0.05, work)), Interrupted)
    assert seen == ["whole"]


def test_alarm_of_the_users_works_inside() -> None:
    rung: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        Interruption().call(wait_until, (lambda: bool(rung),), {})
        with pytest.raises(Interrupted):
            interrupted_after(0.05, spin)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert rung == [signal.SIGALRM]


def test_user_code_is_no_bookkeeping() -> None:
    assert not is_bookkeeping(sys._getframe())
    assert Interruption().call(lambda: is_bookkeeping(sys._getframe()), (), {}) is False
    assert not is_bookkeeping(None)


def test_many_races_between_the_end_and_the_interruption(place: Any) -> None:
    def run() -> int:
        left = 0
        for number in range(300):
            interruption = Interruption()
            firing = threading.Thread(target=interruption.fire)
            firing.start()
            try:
                interruption.call(sum, (range(number * 10),), {})
            except Interrupted:
                left += 1
            firing.join()
        return left

    assert isinstance(place(run), int)
