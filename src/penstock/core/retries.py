"""How long to wait between the attempts of a run: decided here, waited for elsewhere."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import SupportsFloat

from penstock.errors import InvalidOptionError

MAX_DELAYS = 50
"""The most delays a list may hold, given or made by a callable."""

MAX_DELAY = 10**9
"""The longest delay in seconds, about 32 years."""

Delays = float | Sequence[float] | Callable[[int], Sequence[float]]
"""What `retry_delay_seconds` takes."""


def exponential_backoff(factor: float) -> Callable[[int], list[float]]:
    """Make delays that double: `factor`, `2 * factor`, `4 * factor`, ... seconds.

    Args:
        factor: the first delay in seconds.

    Returns:
        A callable for `retry_delay_seconds`; given the number of retries it gives that many delays.

    Raises:
        InvalidOptionError: the factor is no number, negative or not finite.

    Example:
        >>> exponential_backoff(0.5)(4)
        [0.5, 1.0, 2.0, 4.0]
    """
    first = _number("the factor of `exponential_backoff`", factor)

    def delays(retries: int) -> list[float]:
        # One more than allowed is enough for the policy to refuse the list; 2**5000 is no float.
        return [first * 2**index for index in range(min(retries, MAX_DELAYS + 1))]

    return delays


class RetryPolicy:
    """The retry options of a task or flow, checked once when it is decorated.

    Args:
        retries: how many further attempts may follow the first one.
        retry_delay_seconds: one delay for all, a list (the last one is used again when it is
            too short), or a callable that gives the list for a number of retries.
        retry_jitter_factor: lengthen every delay by a random share of itself: the delay is
            uniform in `[delay, delay * (1 + factor)]`.

    Raises:
        InvalidOptionError: an option cannot be; the text names it and its value.
    """

    __slots__ = ("delays", "jitter_factor", "retries")

    def __init__(
        self,
        retries: int = 0,
        retry_delay_seconds: Delays | None = 0,
        retry_jitter_factor: float | None = None,
    ) -> None:
        self.retries = _count(retries)
        self.delays = _delays(retry_delay_seconds, self.retries)
        self.jitter_factor = (
            0.0
            if retry_jitter_factor is None
            else _number("`retry_jitter_factor`", retry_jitter_factor)
        )

    def allows(self, attempt: int) -> bool:
        """Say whether another attempt may follow attempt number `attempt` (from 1)."""
        return attempt <= self.retries

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Give the seconds to wait after attempt number `attempt` (from 1).

        Args:
            attempt: the attempt that just failed.
            random: gives a number in `[0, 1)`; only called when there is a jitter.
        """
        delays = self.delays
        seconds = delays[min(max(attempt, 1), len(delays)) - 1]
        if self.jitter_factor and seconds:
            seconds = min(seconds * (1 + self.jitter_factor * random()), MAX_DELAY)
        return seconds

    def __repr__(self) -> str:
        delays = ", ".join(f"{delay:g}" for delay in self.delays)
        return f"RetryPolicy({self.retries}, [{delays}], {self.jitter_factor:g})"


def _count(retries: object) -> int:
    try:
        count = operator.index(retries)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if count < 0 or isinstance(retries, bool):
        raise InvalidOptionError(f"`retries` must be a whole number from 0 on, not {retries!r}.")
    return count


def _delays(option: object, retries: int) -> tuple[float, ...]:
    if callable(option):
        option = _called(option, retries)
    if option is None:
        return (0.0,)
    if not isinstance(option, (list, tuple)):
        return (_number("`retry_delay_seconds`", option),)
    if len(option) > MAX_DELAYS:
        raise InvalidOptionError(
            f"`retry_delay_seconds` gives {len(option)} delays; at most {MAX_DELAYS} are allowed "
            "(the last one is used for all later retries)."
        )
    return tuple(_number("`retry_delay_seconds`", delay) for delay in option) or (0.0,)


def _called(option: Callable[[int], object], retries: int) -> object:
    try:
        return option(retries)
    except Exception as exc:
        raise InvalidOptionError(
            f"`retry_delay_seconds` is {option!r}, which failed for {retries} retries: {exc!r}."
        ) from exc


def _number(option: str, value: object) -> float:
    problem = f"{option} must be a number from 0 to {MAX_DELAY}, not {value!r}."
    if isinstance(value, (bool, str, bytes)) or not isinstance(value, SupportsFloat):
        raise InvalidOptionError(problem)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidOptionError(problem) from exc
    if math.isnan(number) or not 0 <= number <= MAX_DELAY:
        raise InvalidOptionError(problem)
    return number
