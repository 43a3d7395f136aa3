"""The black box: what a report has not told can still be read, and nothing twice."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.remote.blackbox import ROOM, BlackBox

KEY = bytes(range(16))


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[BlackBox, BlackBox]]:
    """Give a box as the worker has it, and as the driver does."""
    both = BlackBox(str(tmp_path / "box")), BlackBox(str(tmp_path / "box"))
    yield both
    for box in both:
        box.close()


def note(box: BlackBox, *entries: tuple[object, ...]) -> None:
    for entry in entries:
        assert box.note(pickle.dumps(entry))


def test_what_was_noted_is_left_behind(sides: tuple[BlackBox, BlackBox]) -> None:
    worker, driver = sides
    assert list(driver.left_behind(0)) == []
    note(worker, (1, "a"), (2, b"b" * 1_000))
    assert list(driver.left_behind(0)) == [(1, "a"), (2, b"b" * 1_000)]


def test_what_a_report_has_told_is_not(sides: tuple[BlackBox, BlackBox]) -> None:
    worker, driver = sides
    note(worker, (1,), (2,))
    # The report has arrived, and the worker died before it took note of that.
    assert list(driver.left_behind(1)) == []
    worker.sent(0)
    note(worker, (3,))
    assert list(driver.left_behind(1)) == [(3,)]
    # It said that it had sent a second one, which never arrived.
    assert list(driver.left_behind(2)) == []


def test_a_full_box_says_so(sides: tuple[BlackBox, BlackBox]) -> None:
    worker, driver = sides
    note(worker, (1,))
    assert not worker.note(bytes(ROOM))
    assert list(driver.left_behind(0)) == [(1,)]
    worker.sent(0)
    assert worker.note(b"\0" * ROOM)


def test_what_runs(sides: tuple[BlackBox, BlackBox]) -> None:
    worker, driver = sides
    assert driver.running() is None
    worker.begins(KEY, 3)
    running = driver.running()
    assert running is not None
    assert (running.key, running.attempt, running.entered) == (KEY, 3, 0)
    worker.enters()
    running = driver.running()
    assert running is not None
    assert running.entered > 0
    worker.rests()
    assert driver.running() is None
