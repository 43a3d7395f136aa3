"""The relay without Ray: what it holds for whom, and for how long."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from penstock.task_runners.ray import relay as module
from penstock.task_runners.ray.relay import ASKED, REPORT, Channel, Relay


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "DEAD_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(module, name, 0.02)


def test_what_overtakes_everything_else_of_its_driver_is_kept() -> None:
    async def example() -> Any:
        relay = Relay("driver")
        await relay.call("driver", "report", "worker", 0, b"data", {})
        return await relay.call("driver", "take")

    assert asyncio.run(example()) == [(REPORT, "worker", 0, b"data", {})]


def test_who_has_left_is_told_so() -> None:
    async def example() -> Any:
        relay = Relay("driver")
        return await relay.call("other", "take"), await relay.call("other", "join", "worker")

    assert asyncio.run(example()) == (None, None)


def test_a_driver_that_asks_for_nothing_is_let_go_and_then_the_process(
    hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def example() -> Any:
        relay, ended = Relay("driver"), asyncio.Event()
        monkeypatch.setattr(os, "_exit", lambda code: ended.set())
        listening = asyncio.ensure_future(relay.call("driver", "listen", "worker"))
        await asyncio.wait_for(ended.wait(), 10)
        await asyncio.wait_for(listening, 10)
        return relay._channels, await relay.call("driver", "take")

    assert asyncio.run(example()) == ({}, None)


def test_an_answer_that_comes_late_is_nobody_elses(hurried: None) -> None:
    async def example() -> Any:
        channel = Channel()
        assert await channel.ask("first") is None
        asking = asyncio.ensure_future(channel.ask("second"))
        numbers = [number for kind, _, number in await channel.take() if kind == ASKED]
        if len(numbers) == 1:
            numbers += [number for kind, _, number in await channel.take() if kind == ASKED]
        await channel.give(numbers[0], ["of the first"])
        return await asking

    assert asyncio.run(example()) is None
