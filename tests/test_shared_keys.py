from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

from penstock.shared_keys import share_keys

ROOT = Path(__file__).resolve().parent.parent


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


SCRIPT = """
from penstock import flow, task
from tests.test_shared_keys import dicts_with

@task
def same(number):
    return number

@flow
def example():
    futures = same.map(range(100))
    assert futures.result() == list(range(100))
    print(dicts_with("created_at"))

example()
"""


def test_no_task_run_has_a_dict(penstock_home: Path) -> None:
    # In a process of its own: the names that a class knows are those of all runs so far.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, timeout=50
    )
    assert done.returncode == 0, done.stderr
    # What every run has been given by now, and what one that failed has besides.
    assert int(done.stdout) < 10
