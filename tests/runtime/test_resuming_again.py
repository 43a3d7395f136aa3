"""Flow runs that are continued: tags, arguments, claims that were lost, and what has completed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import flow, tags, task
from penstock.errors import LeaseLost, ResultNotKept, ResumeError

switch: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    switch.clear()
    yield
    switch.clear()


@task
def keep(x: int) -> int:
    return x


@task
def brittle() -> None:
    if not switch.get("mended"):
        raise ValueError("broken")


def select(home: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(home / "history.db")) as connection:
        rows = connection.execute(query).fetchall()
        connection.commit()
        return rows


def test_tags_stay_and_are_given_to_what_runs_again() -> None:
    @flow
    def tagged() -> None:
        brittle()

    with tags("nightly"):
        tagged(return_state=True)
    switch["mended"] = True
    tagged.resume("@last")
    run = penstock.run("@last")
    assert sorted(run.tags) == ["nightly"]
    assert [sorted(each.tags) for each in run.task_runs()] == [["nightly"]] * 2


def test_a_default_does_not_take_the_place_of_what_was_given() -> None:
    @flow
    def located(lock: Any = None, password: str = "none", size: int = 1) -> tuple[Any, str, int]:
        brittle()
        return lock, password, size

    located(return_state=True)
    switch["mended"] = True
    assert located.resume("@last") == (None, "none", 1)
    switch.clear()
    located(threading.Lock(), password="hunter2", size=2, return_state=True)
    switch["mended"] = True
    with pytest.raises(ResumeError, match="argument 'lock' of the run was not kept"):
        located.resume("@last")
    with pytest.raises(ResumeError, match="argument 'password' of the run was not kept"):
        located.resume("@last", parameters={"lock": 1})
    assert located.resume("@last", parameters={"lock": 1, "password": "new"}) == (1, "new", 2)


def test_a_completed_run_of_another_flow_is_refused() -> None:
    @flow
    def one() -> int:
        return 1

    @flow
    def other() -> int:
        return 2

    one()
    with pytest.raises(ResumeError, match="is a run of the flow 'one'"):
        other.resume("@last")


def test_a_completed_run_without_its_result_does_not_give_none() -> None:
    @flow
    def large() -> bytes:
        return b"x" * 100_000

    large()
    with pytest.raises(ResultNotKept, match="has completed already, and its result was not kept"):
        large.resume("@last")
    assert large.resume("@last", return_state=True).is_completed()


def test_a_driver_that_lost_its_claim_may_claim_it_again(penstock_home: Path) -> None:
    @flow
    def robbed() -> int:
        keep(1)
        if not switch.get("mended"):
            while not select(penstock_home, "SELECT count(*) FROM leases")[0][0]:
                pass
            select(penstock_home, "UPDATE leases SET epoch = epoch + 1, pid = 1")
            for number in range(2_000_000):
                keep(number + 10)
        return keep(2)

    with pytest.raises(LeaseLost):
        robbed()
    select(penstock_home, "UPDATE flow_runs SET state = 'FAILED'")
    switch["mended"] = True
    assert robbed.resume("@last") == 2
    assert select(penstock_home, "SELECT state FROM flow_runs") == [("COMPLETED",)]
    assert penstock.run("@last").result() == 2


def test_code_that_swallows_the_interruption_does_not_go_on(penstock_home: Path) -> None:
    @flow
    def stubborn() -> None:
        keep(1)
        while not select(penstock_home, "SELECT count(*) FROM leases")[0][0]:
            pass
        select(penstock_home, "UPDATE leases SET epoch = epoch + 1, pid = 1")
        for number in range(2_000_000):
            try:
                keep(number + 10)
            except LeaseLost:
                raise
            except BaseException:
                switch["swallowed"] = True

    with pytest.raises(LeaseLost):
        stubborn()


def scaled_by(factor: int, lock: Any = None) -> Any:
    @task
    def scale(x: int) -> int:
        return factor * x if lock is None else -x

    return scale


def applied(function: Any) -> Any:
    @task
    def apply(x: int) -> int:
        return int(function(x))

    return apply


def plus_one(x: int) -> int:
    return x + 1


def minus_one(x: int) -> int:
    return x - 1


def test_tasks_of_one_factory_are_not_taken_for_each_other() -> None:
    pairs = [
        (scaled_by(2), scaled_by(3)),
        (scaled_by(2).with_options(name="a"), scaled_by(3).with_options(name="b")),
        (applied(plus_one), applied(minus_one)),
        (applied(lambda x: x + 5), applied(lambda x: x - 5)),
        (task(lambda x: x + 7), task(lambda x: x - 7)),
    ]

    @flow
    def shuffled() -> list[tuple[int, int]]:
        backwards = switch.get("mended")
        found = []
        for one, other in pairs:
            if backwards:
                second = other(10)
                found.append((one(10), second))
            else:
                found.append((one(10), other(10)))
        brittle()
        return found

    shuffled(return_state=True)
    switch["mended"] = True
    expected = [(20, 30), (20, 30), (11, 9), (15, 5), (17, 3)]
    assert shuffled.resume("@last") == expected
    # Nothing but what had failed was run again.
    assert len(list(penstock.run("@last").task_runs())) == 12


def test_a_task_that_closes_over_what_has_no_identity_is_kept() -> None:
    locked = scaled_by(1, threading.Lock())

    @flow
    def locking() -> int:
        value = locked(4)
        brittle()
        return int(value)

    locking(return_state=True)
    switch["mended"] = True
    assert locking.resume("@last") == -4
    assert len(list(penstock.run("@last").task_runs())) == 3
