from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.retries import MAX_DELAY, RetryPolicy, exponential_backoff
from penstock.errors import InvalidOptionError


def never() -> float:
    raise AssertionError("no random number is needed")


def test_backoff_doubles() -> None:
    assert exponential_backoff(0.5)(4) == [0.5, 1.0, 2.0, 4.0]
    assert exponential_backoff(10)(0) == []


def test_no_retries_by_default() -> None:
    policy = RetryPolicy()
    assert not policy.allows(1)
    assert policy.delay(1, never) == 0


def test_allows_as_many_attempts_as_retries_and_one() -> None:
    policy = RetryPolicy(2)
    assert [policy.allows(attempt) for attempt in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (0.25, [0.25, 0.25, 0.25]),
        ([1, 2.5], [1, 2.5, 2.5]),
        ((3,), [3, 3, 3]),
        ([], [0, 0, 0]),
        (None, [0, 0, 0]),
        (Fraction(1, 4), [0.25, 0.25, 0.25]),
        (exponential_backoff(2), [2, 4, 8]),
        (lambda retries: [retries] * retries, [3, 3, 3]),
    ],
)
def test_delays(option: Any, expected: list[float]) -> None:
    policy = RetryPolicy(3, option)
    assert [policy.delay(attempt, never) for attempt in (1, 2, 3)] == expected


@pytest.mark.parametrize(
    "delay", [-1, -0.001, math.nan, math.inf, 10**9 + 1, 10**400, "1", b"1", True, [], object()]
)
def test_impossible_delays_are_refused_with_their_value(delay: Any) -> None:
    for option in ([1, delay], lambda retries: [delay]):
        with pytest.raises(InvalidOptionError, match="retry_delay_seconds"):
            RetryPolicy(1, option)


def test_the_refusal_names_the_value() -> None:
    with pytest.raises(ValueError, match=r"must be a number from 0 to 1000000000, not -2\."):
        RetryPolicy(1, -2)


def test_at_most_fifty_delays() -> None:
    assert RetryPolicy(60, [1] * 50).delay(60, never) == 1
    with pytest.raises(ValueError, match="gives 51 delays; at most 50"):
        RetryPolicy(1, [1] * 51)
    with pytest.raises(ValueError, match="at most 50"):
        RetryPolicy(10_000, exponential_backoff(0.001))


@pytest.mark.parametrize("retries", [-1, 1.5, "1", None, True, math.inf])
def test_impossible_retries_are_refused(retries: Any) -> None:
    with pytest.raises(InvalidOptionError, match="`retries` must be a whole number"):
        RetryPolicy(retries)


@pytest.mark.parametrize("factor", [-0.1, math.nan, math.inf, "1"])
def test_impossible_factors_are_refused(factor: Any) -> None:
    with pytest.raises(InvalidOptionError, match="retry_jitter_factor"):
        RetryPolicy(1, 1, factor)
    with pytest.raises(InvalidOptionError, match="exponential_backoff"):
        exponential_backoff(factor)


@given(
    st.floats(0, MAX_DELAY),
    st.floats(0, 100),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 100),
)
def test_jitter_lengthens_a_delay_up_to_its_share(
    delay: float, factor: float, number: float, attempt: int
) -> None:
    seconds = RetryPolicy(100, delay, factor).delay(attempt, lambda: number)
    assert delay <= seconds <= min(delay * (1 + factor), MAX_DELAY)


def test_policy_shows_its_delays() -> None:
    assert repr(RetryPolicy(2, [1, 2], 0.5)) == "RetryPolicy(2, [1, 2], 0.5)"
