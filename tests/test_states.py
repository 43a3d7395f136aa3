"""States as values: types, texts, results, copies."""

from __future__ import annotations

import asyncio
import pickle
from datetime import UTC

import pytest

from penstock import State, StateType, flow
from penstock.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    InvalidOptionError,
    TerminationSignal,
    UnfinishedRun,
)
from penstock.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    describe_exception,
    exception_to_crashed_state,
)


def test_type_may_be_given_as_text() -> None:
    assert State("COMPLETED", data=3).result() == 3  # type: ignore[arg-type]


def test_unknown_type_is_refused() -> None:
    with pytest.raises(
        InvalidOptionError, match="The type of a state is 'DONE'; it must be one of"
    ):
        State("DONE")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (Completed(), "Completed()"),
        (Failed("why"), 'Failed("why")'),
        (Completed(name="Cached"), "Cached(type=COMPLETED)"),
        (Failed("slow", name="TimedOut"), 'TimedOut("slow", type=FAILED)'),
    ],
)
def test_text(state: State, text: str) -> None:
    assert str(state) == text


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (Failed("why"), FailedRun),
        (Crashed("why"), CrashedRun),
        (Cancelled("why"), CancelledRun),
        (Pending("why"), UnfinishedRun),
        (Running("why"), UnfinishedRun),
    ],
)
def test_result_of_what_did_not_complete(state: State, error: type[Exception]) -> None:
    with pytest.raises(error, match="why"):
        state.result()


def test_result_without_raising_gives_what_the_run_ended_with() -> None:
    problem = ValueError("x")
    assert Failed(data=problem).result(raise_on_failure=False) is problem
    assert Crashed(data=problem).result(raise_on_failure=False) is problem
    with pytest.raises(CrashedRun) as caught:
        Crashed(data=problem).result()
    assert caught.value.__cause__ is problem


def test_first_failure_in_a_collection_is_raised() -> None:
    states = [Completed(), Failed(data=ValueError("first")), Failed(data=KeyError("second"))]
    with pytest.raises(ValueError, match="^first$"):
        Failed(data=states).result()


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        (KeyboardInterrupt(), "Execution was aborted by an interrupt signal."),
        (TerminationSignal(15), "Execution was aborted by a termination signal."),
        (SystemExit(3), "Execution was aborted by Python system exit call."),
        (
            asyncio.CancelledError(),
            "Execution was cancelled by the runtime environment.",
        ),
        (
            ValueError("text"),
            "Execution was interrupted by an unexpected exception: ValueError: text",
        ),
    ],
)
def test_crash_messages(exc: BaseException, message: str) -> None:
    state = exception_to_crashed_state(exc)
    assert (state.type, state.message) == (StateType.CRASHED, message)


def test_exception_whose_text_cannot_be_made_is_described() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert describe_exception(Mute()) == "Mute: <its text cannot be shown>"


def test_state_survives_pickle() -> None:
    state = Completed("done", data=[1])
    copy = pickle.loads(pickle.dumps(state))
    assert (copy.type, copy.message, copy.data, copy.at) == (
        state.type,
        state.message,
        state.data,
        state.at,
    )
    assert copy.timestamp.tzinfo is UTC


@pytest.mark.parametrize("state", [Failed(5), Completed(name=5), Completed(message=["a"])])  # type: ignore[arg-type]
def test_odd_texts_of_a_users_state_are_recorded_as_texts(state: State) -> None:
    ended = flow(lambda: state)(return_state=True)
    assert isinstance(ended, State)
    assert isinstance(ended.message, str | None)
    assert isinstance(ended.name, str)
