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
    return Order(Bundle(None, ()), b"", [], is_short)


def busy(crew: Crew, name: str, is_short: bool = False) -> Member:
    member = crew.add(worker(name))
    member.is_ready = True
    crew.give(member, order(is_short))
    return member


def test_workers_that_are_there_come_first() -> None:
    crew = Crew(2)
    assert crew.free(order()) is None
    assert crew.has_room()
    starting, ready = crew.add(worker("a")), crew.add(worker("b"))
    ready.is_ready = True
    assert crew.free(order()) is ready
    crew.give(ready, order())
    assert crew.free(order()) is starting
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


@pytest.mark.parametrize("way", ["dies", "gives back", "ends before it gives back"])
def test_what_was_sent_ahead_comes_back_as_the_first(way: str) -> None:
    crew = Crew(1)
    member, ahead, later = busy(crew, "a", is_short=True), order(is_short=True), order()
    crew.give(member, ahead)
    crew.waiting.append(later)
    if way == "dies":
        assert crew.remove(member.worker) is member
        assert len(crew) == 0
        assert list(crew.waiting) == [ahead, later]
        assert member.now is not None
        return
    first = member.now
    assert first is not None
    if way == "ends before it gives back":
        # Another thread of the worker had taken it out by then, and says so only now.
        crew.done(member, first.bundle.id)
        assert member.now is ahead
    crew.returned(member, ahead.bundle.id)
    assert list(crew.waiting) == [ahead, later]
    assert member.now is (None if way == "ends before it gives back" else first)
    assert member.ahead is None


def starting_with_two() -> tuple[Crew, Member, list[Order]]:
    crew, orders = Crew(1), [order(is_short=True), order(is_short=True)]
    member = crew.add(worker("a"))
    for each in orders:
        crew.give(member, each)
    return crew, member, orders


def test_what_is_meant_for_a_worker_that_never_was_ready_waits_again() -> None:
    crew, member, orders = starting_with_two()
    later = order()
    crew.waiting.append(later)
    crew.remove(member.worker)
    assert list(crew.waiting) == [*orders, later]


def test_what_is_meant_for_a_worker_can_be_withdrawn_until_it_is_ready() -> None:
    crew, member, (first, second) = starting_with_two()
    assert crew.withdraw(first.bundle) is first
    assert member.orders == [second]
    member.is_ready = True
    assert crew.withdraw(second.bundle) is None
    assert member.orders == [second]


def test_bundles_are_found_wherever_they_are() -> None:
    crew = Crew(1)
    member, ahead, later = busy(crew, "a", is_short=True), order(is_short=True), order()
    crew.give(member, ahead)
    crew.waiting.append(later)
    assert crew.holder(ahead.bundle) is member
    assert crew.named("a") is member
    assert crew.named("b") is None
    assert crew.withdraw(ahead.bundle) is None
    assert crew.withdraw(later.bundle) is later
    assert crew.holder(later.bundle) is None
    with pytest.raises(ValueError, match="does not have bundle"):
        crew.done(member, "another")


def test_a_worker_that_leaves_gets_nothing() -> None:
    crew = Crew(1)
    member: Any = crew.add(worker("a"))
    member.is_leaving = True
    assert crew.free(order()) is None
    assert crew.has_room()
    assert not crew.is_surplus(member)
