"""The crew decides with plain values: no process is started here."""

from __future__ import annotations

from typing import Any, cast

import pytest

from penstock.remote.engine import Bundle
from penstock.task_runners.processes.crew import Crew, Member, Order
from penstock.task_runners.processes.supervisor import WorkerProcess


class Named:
    """Stands for a worker process."""

    def __init__(self, name: str) -> None:
        self.name = name


def worker(name: str) -> WorkerProcess:
    return cast(WorkerProcess, Named(name))


def order(is_short: bool = False) -> Order:
    return Order(Bundle(None, ()), b"", is_short)


def busy(crew: Crew, name: str, is_short: bool = False) -> Member:
    member = crew.add(worker(name))
    member.is_ready = True
    crew.give(member, order(is_short))
    return member


def test_workers_that_are_there_come_first() -> None:
    crew = Crew(2)
    assert crew.free() is None
    assert crew.has_room()
    starting, ready = crew.add(worker("a")), crew.add(worker("b"))
    ready.is_ready = True
    assert crew.free() is ready
    crew.give(ready, order())
    assert crew.free() is starting
    assert not crew.has_room()


def test_a_worker_whose_task_waits_leaves_its_place() -> None:
    crew = Crew(1)
    waiting = busy(crew, "a")
    assert not crew.has_room()
    waiting.is_away = True
    assert crew.has_room()
    stand_in = busy(crew, "b")
    waiting.is_away = False
    assert not crew.is_surplus(stand_in)
    assert stand_in.now is not None
    crew.done(stand_in, stand_in.now.bundle.id)
    assert crew.is_surplus(stand_in)


def test_only_short_work_is_sent_ahead() -> None:
    crew = Crew(2)
    busy(crew, "long")
    short = busy(crew, "short", is_short=True)
    assert crew.soon_free(order()) is None
    ahead = order(is_short=True)
    assert crew.soon_free(ahead) is short
    crew.give(short, ahead)
    assert crew.soon_free(order(is_short=True)) is None
    assert short.now is not None
    crew.done(short, short.now.bundle.id)
    assert (short.now, short.ahead) == (ahead, None)


@pytest.mark.parametrize("way", ["dies", "gives back"])
def test_what_was_sent_ahead_comes_back_as_the_first(way: str) -> None:
    crew = Crew(1)
    member, ahead, later = busy(crew, "a", is_short=True), order(is_short=True), order()
    crew.give(member, ahead)
    crew.waiting.append(later)
    if way == "dies":
        assert crew.remove(member.worker) is member
        assert len(crew) == 0
    else:
        crew.take_back_ahead(member)
    assert list(crew.waiting) == [ahead, later]
    assert member.now is not None


def test_bundles_are_found_wherever_they_are() -> None:
    crew = Crew(1)
    member, ahead, later = busy(crew, "a", is_short=True), order(is_short=True), order()
    crew.give(member, ahead)
    crew.waiting.append(later)
    assert crew.holder(ahead.bundle) is member
    assert crew.named("a") is member
    assert crew.named("b") is None
    assert not crew.withdraw(ahead.bundle)
    assert crew.withdraw(later.bundle)
    assert crew.holder(later.bundle) is None
    with pytest.raises(ValueError, match="was not at bundle"):
        crew.done(member, "another")


def test_a_worker_that_leaves_gets_nothing() -> None:
    crew = Crew(1)
    member: Any = crew.add(worker("a"))
    member.is_leaving = True
    assert crew.free() is None
    assert crew.has_room()
    assert not crew.is_surplus(member)
