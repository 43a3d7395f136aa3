"""How many task runs travel together, for measured durations and backlogs."""

from __future__ import annotations

import pytest

from penstock.core.bundling import (
    LEAST_SECONDS,
    MOST_TOGETHER,
    TARGET_SECONDS,
    Pace,
    bundle_size,
)


def pace_of(seconds: float) -> Pace:
    pace = Pace()
    pace.note(seconds, 1)
    return pace


def test_unknown_durations_travel_alone() -> None:
    assert bundle_size(Pace(), 10_000, 2) == 1


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.0, MOST_TOGETHER), (0.001, 98), (0.01, 9), (0.1, 1), (10.0, 1)],
)
def test_a_bundle_holds_about_the_target_of_work(seconds: float, size: int) -> None:
    assert bundle_size(pace_of(seconds), 100_000, 2) == size
    assert size == 1 or size * seconds <= TARGET_SECONDS


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("backlog", [1, 2, 3, 10, 100, 1000])
def test_no_worker_is_left_without_work(backlog: int, workers: int) -> None:
    size = bundle_size(pace_of(0.004), backlog, workers)
    assert 1 <= size <= max(1, -(-backlog // workers))


@pytest.mark.parametrize("backlog", [1, 10, 100])
def test_work_not_worth_a_message_is_not_divided(backlog: int) -> None:
    assert bundle_size(pace_of(0.00001), backlog, 2) == backlog


def test_bundles_get_smaller_towards_the_end() -> None:
    pace, backlog, sizes = pace_of(0.001), 1000, []
    while backlog:
        sizes.append(min(backlog, bundle_size(pace, backlog, 2)))
        backlog -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] * 0.001 < 2 * LEAST_SECONDS


def test_pace_follows_a_change() -> None:
    pace = pace_of(0.001)
    pace.note(1.0, 1)
    assert 0.2 < pace.seconds < 0.5
    for _ in range(20):
        pace.note(1.0, 1)
    assert pace.seconds == pytest.approx(1.0, rel=0.01)


def test_many_runs_weigh_more_than_one() -> None:
    one, many = pace_of(0.0), pace_of(0.0)
    one.note(1.0, 1)
    many.note(8.0, 8)
    assert many.seconds > one.seconds


def test_a_run_that_goes_on_is_no_short_one() -> None:
    pace = Pace()
    pace.note_long()
    assert bundle_size(pace, 1000, 2) == 1
    known = pace_of(0.001)
    known.note_long()
    assert known.seconds == 0.001
