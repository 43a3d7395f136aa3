"""Who may start: decided with plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidOptionError, ResourceError
from penstock.task_runners.accounts import Account, Grant, Ledger
from penstock.task_runners.admission import MOST_PASSED, Line, Stock, Waiting
from penstock.task_runners.capacity import Machine

MACHINE = Machine(cpu=2, memory=1000, gpus=("0", "3"))


def nothing(grant: Any) -> None:
    pass


class Ward:
    """An account, and what has been started with it, in order."""

    def __init__(self, ledger: Ledger | None = None, **settings: Any) -> None:
        self.account = Account(ledger=ledger or Ledger(MACHINE), **settings)
        self.started: list[str] = []
        self.grants: dict[str, Grant] = {}

    def ask(self, name: str, priority: int = 0, **request: float) -> Waiting:
        waiting = self.account.waiting(request, priority, self._start(name), name)
        self.account.line_up(waiting)
        return waiting

    def _start(self, name: str) -> Callable[[Grant], None]:
        def start(grant: Grant) -> None:
            self.started.append(name)
            self.grants[name] = grant

        return start

    def end(self, name: str) -> None:
        self.account.release(self.grants.pop(name))


def test_stock_adds_up_exactly() -> None:
    stock = Stock({"cpu": 1})
    for _ in range(10):
        assert not stock.lacking({"cpu": 0.1})
        stock.take({"cpu": 0.1})
    assert stock.lacking({"cpu": 0.1}) == ["cpu"]
    for _ in range(10):
        stock.give_back({"cpu": 0.1})
    assert stock.free() == {"cpu": 1}


def test_a_share_of_a_gpu_goes_where_least_is_left_and_a_whole_one_is_alone() -> None:
    stock = Stock({"gpu": 2}, ("0", "3"))
    assert stock.take({"gpu": 0.5}) == ("0",)
    assert stock.take({"gpu": 0.4}) == ("0",)
    assert stock.take({"gpu": 1}) == ("3",)
    # 0.1 is free, but on no device is there more.
    assert stock.lacking({"gpu": 0.2}) == ["gpu"]
    stock.give_back({"gpu": 0.5}, ("0",))
    assert stock.lacking({"gpu": 1}) == ["gpu"]
    stock.give_back({"gpu": 0.4}, ("0",))
    assert stock.take({"gpu": 1}) == ("0",)


def test_larger_priority_first_then_first_come() -> None:
    ward = Ward()
    ward.ask("first", cpu=2)
    ward.ask("a", cpu=2)
    ward.ask("b", priority=3, cpu=2)
    ward.ask("c", priority=3, cpu=2)
    for name in ("first", "b", "c", "a"):
        ward.end(name)
    assert ward.started == ["first", "b", "c", "a"]


def test_who_does_not_fit_is_passed_by_those_that_do() -> None:
    ward = Ward()
    ward.ask("one", cpu=1)
    ward.ask("large", cpu=2)
    ward.ask("small", cpu=1)
    ward.ask("other", memory=1000)
    assert ward.started == ["one", "small", "other"]


def test_who_was_passed_often_enough_has_its_turn() -> None:
    ward = Ward()
    ward.ask("held", cpu=1)
    ward.ask("large", cpu=2)
    for number in range(MOST_PASSED + 5):
        ward.ask(str(number), cpu=1)
    ward.ask("other", memory=10)
    for number in range(MOST_PASSED):
        ward.end(str(number))
    assert ward.started[-1] == str(MOST_PASSED - 1)
    assert "other" in ward.started, "it asks for nothing that is reserved"
    assert ward.account.acquire({"cpu": 1}) is None, "nor may it be taken outside the line"
    ward.end("held")
    assert ward.started[-1] == "large"
    ward.end("large")
    assert ward.started[-2:] == [str(MOST_PASSED), str(MOST_PASSED + 1)]


def test_a_withdrawn_request_is_never_started_and_holds_nobody_up() -> None:
    ward = Ward()
    ward.ask("held", cpu=1)
    large = ward.ask("large", cpu=2)
    large.passed = MOST_PASSED
    ward.ask("small", cpu=1)
    assert ward.started == ["held"]
    assert ward.account.withdraw(large)
    assert not ward.account.withdraw(large)
    assert ward.started == ["held", "small"]


def test_the_machine_is_shared_and_own_names_are_not() -> None:
    ledger = Ledger(MACHINE)
    one, two = Ward(ledger, own={"Licence": 1}), Ward(ledger, own={"licence": 1})
    one.ask("a", cpu=2, licence=1)
    two.ask("b", licence=1)
    two.ask("c", cpu=1)
    assert (one.started, two.started) == (["a"], ["b"])
    one.end("a")
    assert two.started == ["b", "c"]


def test_no_more_run_than_there_are_workers_and_those_that_wait_do_not_count() -> None:
    ward = Ward(limit=1)
    ward.ask("parent", cpu=1)
    ward.ask("child", cpu=1)
    assert ward.started == ["parent"]
    ward.account.leave(ward.grants["parent"])
    assert ward.started == ["parent", "child"]


def test_cpu_is_given_back_during_waits_and_taken_again_before_others() -> None:
    ward = Ward()
    ward.ask("parent", cpu=2, memory=600)
    parent = ward.grants["parent"]
    ward.account.leave(parent)
    ward.account.leave(parent)
    assert ward.account.free() == {"cpu": 2, "gpu": 2, "memory": 400}
    ward.ask("child", cpu=1)
    ward.ask("next", cpu=2)
    assert ward.account.come_back(parent, lambda: None), "another of its waits goes on"
    assert not ward.account.come_back(parent, lambda: ward.started.append("parent back"))
    ward.end("child")
    assert ward.started == ["parent", "child", "parent back"]
    ward.end("parent")
    assert ward.started[-1] == "next"


def test_a_wait_that_begins_while_another_one_comes_back() -> None:
    ward = Ward()
    ward.ask("parent", cpu=2)
    parent = ward.grants["parent"]
    ward.account.leave(parent)
    ward.ask("child", cpu=1)
    assert not ward.account.come_back(parent, lambda: ward.started.append("first wait over"))
    ward.account.leave(parent)
    assert ward.started[-1] == "first wait over", "it goes on without cpu, as its task waits"
    ward.ask("second child", cpu=1)
    assert ward.started[-1] == "second child"
    assert not ward.account.come_back(parent, lambda: ward.started.append("parent back"))
    ward.end("child")
    ward.end("second child")
    assert ward.started[-1] == "parent back"


def test_release_while_its_owner_was_on_its_way_back() -> None:
    ward = Ward()
    ward.ask("parent", cpu=2)
    parent = ward.grants["parent"]
    ward.account.leave(parent)
    ward.ask("child", cpu=2)
    assert not ward.account.come_back(parent, lambda: None)
    ward.end("parent")
    ward.account.release(parent)
    ward.end("child")
    assert ward.account.free()["cpu"] == 2


def test_acquire_at_once_or_not_at_all_and_word_when_something_is_free() -> None:
    ward = Ward()
    freed: list[None] = []
    ward.account.on_free(lambda: freed.append(None))
    grant = ward.account.acquire({"gpu": 2})
    assert grant is not None
    assert grant.gpus == ("0", "3")
    assert ward.account.acquire({"gpu": 1}) is None
    ward.account.release(grant)
    assert freed == [None]
    ward.account.close()
    again = ward.account.acquire({"gpu": 1})
    assert again is not None
    ward.account.release(again)
    assert freed == [None]


def test_a_start_that_fails_gives_back_what_it_was_granted(caplog: Any) -> None:
    ward = Ward()

    def fail(grant: Grant) -> None:
        raise RuntimeError("no thread")

    ward.account.line_up(ward.account.waiting({"cpu": 2}, 0, fail))
    assert "could not be started" in caplog.text
    assert ward.account.free()["cpu"] == 2


@pytest.mark.parametrize(
    ("request_", "own", "text"),
    [
        ({"cpu": 3}, {}, r"^Task 'train' asks for cpu=3; there is cpu=2, gpu=2, memory=1000 bytes"),
        ({"memory": 4e9}, {}, r"asks for memory=3\.73 GiB; there is"),
        ({"gpu": 1.5}, {}, "above 1, gpu must be a whole number"),
        ({"Licence": 1}, {}, r"given by the task runner: resources=\{'licence': 1\}"),
        ({"licence": 3}, {"Licence": 2}, "there is .*Licence=2. Ask for less"),
    ],
)
def test_what_can_never_be_met_is_refused(
    request_: dict[str, float], own: dict[str, float], text: str
) -> None:
    account = Account(own, ledger=Ledger(MACHINE))
    with pytest.raises(ResourceError, match=text):
        account.check("train", request_)


def test_own_resources_are_names_of_the_users_own() -> None:
    from penstock.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

    for kind in (ConcurrentTaskRunner, SequentialTaskRunner):
        with pytest.raises(InvalidOptionError, match="'cpu' is the machine's own"):
            kind(resources={"CPU": 4})
        runner = kind(resources={"licence": 2})
        assert runner == runner.duplicate() != kind()
        assert "resources={'licence': 2.0}" in repr(runner)
        assert "resources" not in repr(kind())


def test_a_line_of_nobody() -> None:
    line = Line()
    line.push(Waiting({"cpu": 1}, 0, None, nothing))
    line.drop(None)
    assert line.take(lambda waiting: ()) is None


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.sampled_from([0.5, 1, 2]),
        "gpu": st.sampled_from([0.25, 1, 2]),
        "memory": st.sampled_from([100, 600, 1000]),
    },
).filter(bool)
STEPS = st.lists(st.tuples(REQUESTS, st.integers(-1, 1), st.sampled_from(["end", "leave", "", ""])))


@given(STEPS, st.randoms(use_true_random=False))
def test_never_more_than_there_is_and_everybody_has_a_turn(steps: Any, random: Any) -> None:
    ward = Ward()
    for number, (request, priority, then) in enumerate(steps):
        ward.ask(str(number), priority, **request)
        assert all(amount >= 0 for amount in ward.account.free().values())
        if ward.grants and then == "end":
            ward.end(random.choice(sorted(ward.grants)))
        elif ward.grants and then == "leave":
            grant = ward.grants[random.choice(sorted(ward.grants))]
            ward.account.leave(grant)
            ward.account.come_back(grant, lambda: None)
    while ward.grants:
        assert all(amount >= 0 for amount in ward.account.free().values())
        ward.end(random.choice(sorted(ward.grants)))
    assert sorted(ward.started) == sorted(map(str, range(len(steps))))
    assert ward.account.free() == {"cpu": 2, "gpu": 2, "memory": 1000}
