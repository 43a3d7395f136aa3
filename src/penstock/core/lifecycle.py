"""The life of a task run and of a flow run, as generators that yield commands.

    attempt ──► final state? ──yes──► return it
       ▲             │ no: FAILED, and another attempt is allowed
       └── Retry ◄── ask the user's condition

Whoever drives a life performs its commands and sends back the answers: `runtime/drivers.py` in
the caller, `runtime/live.py` for submitted task runs. What to do next is decided here only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from penstock.core.retries import RetryPolicy
from penstock.errors import WorkerLost
from penstock.states import State, StateType


class Command:
    """Something a life wants done."""

    __slots__ = ()


class Attempt(Command):
    """Execute the function once; the answer is the state in which that ended."""

    __slots__ = ()


class AskRetry(Command):
    """Ask the user's `retry_condition_fn`.

    The answer is None for yes, else the state to end with (a condition that raises makes one).
    """

    __slots__ = ("state",)

    def __init__(self, state: State) -> None:
        self.state = state


class Retry(Command):
    """Wait, outside any slot, and get ready for the next attempt; the answer does not matter."""

    __slots__ = ("seconds", "state")

    def __init__(self, seconds: float, state: State) -> None:
        self.seconds = seconds
        self.state = state


ATTEMPT = Attempt()
Life = Generator[Command, Any, State]


def one_attempt_is_all(policy: RetryPolicy) -> bool:
    """Tell whether a life would only ever be one attempt: then nobody needs to drive one."""
    return policy.retries == 0


def is_loss(state: State) -> bool:
    """Tell whether an attempt ended because the infrastructure lost it."""
    return isinstance(state.data, WorkerLost) if state.type is StateType.CRASHED else False


def run_life(
    policy: RetryPolicy, has_condition: bool, random: Callable[[], float], losses: int = 0
) -> Life:
    """Decide the life of one run.

    Args:
        policy: how often and after which delays to retry.
        has_condition: the user has a say in whether to retry.
        random: gives a number in [0, 1), for jitter.
        losses: how many further attempts may follow on the loss of a worker: a budget of its
            own.
    """
    attempt = 1
    while True:
        state: State = yield ATTEMPT
        if is_loss(state) and losses > 0:
            losses -= 1
            yield Retry(0.0, state)
            continue
        if state.type is not StateType.FAILED or not policy.allows(attempt):
            return state
        if has_condition:
            verdict: State | None = yield AskRetry(state)
            if verdict is not None:
                return verdict
        yield Retry(policy.delay(attempt, random), state)
        attempt += 1
