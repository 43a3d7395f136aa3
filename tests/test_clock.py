"""The clock: calls in order, cancelled timers, errors, closing."""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue

import pytest

from penstock.clock import Clock


def test_calls_come_in_order_of_their_time() -> None:
    clock, came = Clock(), SimpleQueue[str]()
    clock.call_later(0.06, lambda: came.put("late"))
    clock.call_later(0.02, lambda: came.put("soon"))
    clock.call_later(0, lambda: came.put("now"))
    assert [came.get(timeout=5) for _ in range(3)] == ["now", "soon", "late"]
    clock.close()


def test_calls_of_the_same_delay_keep_their_order() -> None:
    clock, came = Clock(), SimpleQueue[int]()
    for number in range(100):
        clock.call_later(0.01, lambda number=number: came.put(number))  # type: ignore[misc]
    assert [came.get(timeout=5) for _ in range(100)] == list(range(100))
    clock.close()


def test_cancelled_call_does_not_come() -> None:
    clock, came = Clock(), SimpleQueue[str]()
    timer = clock.call_later(0.01, lambda: came.put("cancelled"))
    timer.cancel()
    timer.cancel()
    clock.call_later(0.03, lambda: came.put("next"))
    assert came.get(timeout=5) == "next"
    clock.close()


def test_error_is_logged_and_the_next_call_comes(caplog: pytest.LogCaptureFixture) -> None:
    clock, came = Clock(), SimpleQueue[str]()

    def fail() -> None:
        raise ValueError("mine")

    with caplog.at_level(logging.ERROR, "penstock.clock"):
        clock.call_later(0, fail)
        clock.call_later(0.01, lambda: came.put("next"))
        assert came.get(timeout=5) == "next"
    assert "A delayed call failed." in caplog.text
    clock.close()


def test_closed_clock_drops_calls_and_starts_anew() -> None:
    clock, came = Clock(), SimpleQueue[str]()
    clock.call_later(60, lambda: came.put("dropped"))
    clock.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "penstock-clock"]
    clock.call_later(0, lambda: came.put("anew"))
    assert came.get(timeout=5) == "anew"
    clock.close()
    assert came.empty()


def test_endless_delay_does_not_overflow() -> None:
    clock = Clock()
    clock.call_later(1e18, lambda: None)
    clock.close()


def test_sooner_call_wakes_the_thread() -> None:
    clock, came = Clock(), SimpleQueue[float]()
    clock.call_later(60, lambda: None)
    clock.call_later(0.01, lambda: came.put(time.monotonic()))
    assert came.get(timeout=5)
    clock.close()
