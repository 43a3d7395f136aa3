from __future__ import annotations

import gc
from typing import Any

from penstock import flow, task
from penstock.shared_keys import share_keys


def dicts_with(name: str) -> int:
    gc.collect()
    return sum(type(found) is dict and name in found for found in gc.get_objects())


def test_a_name_that_is_set_late_costs_no_dict() -> None:
    class Point:
        set_late_here: Any = None

    share_keys(Point, "set_late_here")
    points = [Point() for _ in range(100)]
    before = dicts_with("set_late_here")
    for point in points:
        point.set_late_here = 1
    assert dicts_with("set_late_here") == before
    assert points[0].set_late_here == 1


def test_no_task_run_has_a_dict() -> None:
    @task
    def same(number: int) -> int:
        return number

    @flow
    def example() -> int:
        futures = same.map(range(100))
        assert futures.result() == list(range(100))
        # What every run has been given by now, and what one that failed has besides.
        return dicts_with("created_at")

    assert example() < 10
