"""Exit codes and summaries for every way in which calling a flow can end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import errors
from penstock.cli.app import app
from penstock.cli.run import call, run_and_tell
from penstock.cli.session import Session
from penstock.cli.stopping import Stopping
from penstock.states import Cancelled, Completed, Crashed, Failed, State, StateType
from tests.cli.histories import RUN_ID

Captured = pytest.CaptureFixture[str]


class FakeFlow:
    """Ends as it is told to."""

    name = "sales-etl"

    def __init__(self, ending: State | BaseException) -> None:
        self._ending = ending

    def __call__(self, **_: Any) -> State:
        if isinstance(self._ending, BaseException):
            raise self._ending
        return self._ending


def tell(ending: State | BaseException, **options: Any) -> int:
    with app.make_context("penstock", ["version"]):
        return run_and_tell(Session(**options), lambda: (FakeFlow(ending), FakeFlow(ending)))


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Completed(), 0),
        (Failed("3/5 task runs failed."), 1),
        (Failed(data=ValueError("x")), 1),
        (Cancelled(), 1),
        (State(StateType.PENDING), 1),
        (Crashed(data=OSError("lost")), 5),
        (Failed(data=errors.ParameterTypeError("n")), 2),
        (Crashed(data=errors.MissingDependencyError("pip install x")), 69),
        (KeyboardInterrupt(), 130),
        (errors.TerminationSignal(15), 143),
        (errors.TerminationSignal(1), 129),
        (SystemExit(7), 7),
        (SystemExit(), 0),
        (SystemExit("text"), 1),
    ],
    ids=str,
)
def test_exit_code(ending: State | BaseException, code: int) -> None:
    flow = FakeFlow(ending)
    assert call(flow, flow, Stopping(print)).exit == code
    assert tell(ending) == code


def test_async_flow_is_run() -> None:
    class FakeAsyncFlow(FakeFlow):
        async def __call__(self, **_: Any) -> State:  # type: ignore[override]
            return Completed()

    flow = FakeAsyncFlow(Completed())
    assert call(flow, flow, Stopping(print)).exit == 0


def test_error_before_a_run_exists_goes_on() -> None:
    with pytest.raises(errors.HistoryUnavailable):
        tell(errors.HistoryUnavailable("disk full"))


def test_failure_without_a_history(capsys: Captured) -> None:
    problem = ValueError("bad\x1b[2J date")
    tell(Failed("Flow run encountered an exception. ValueError: bad\x1b[2J date", data=problem))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "",
        "✗ sales-etl failed",
        "",
        "FlowFailed: sales-etl failed: ValueError: bad date",
    ]


def test_message_of_a_state_without_an_exception(capsys: Captured) -> None:
    tell(Failed("2/3 states failed."))
    assert capsys.readouterr().err.splitlines()[1] == "✗ sales-etl failed: 2/3 states failed."


def test_interrupt_is_told_in_one_line(capsys: Captured) -> None:
    tell(KeyboardInterrupt())
    said = capsys.readouterr().err.splitlines()
    assert said == ["", "✗ sales-etl crashed: Execution was aborted by an interrupt signal."]


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (42, "Result  42"),
        (list(range(10**6)), "Result  [0, 1, 2, 3, 4, 5, ...]"),
        ("x" * 10**6, "…"),
        ("a\x1b[2Jb", "Result  'a\\x1b[2Jb'"),
    ],
)
def test_result(capsys: Captured, result: Any, shown: str) -> None:
    tell(Completed(data=result))
    last = capsys.readouterr().err.splitlines()[-1]
    assert shown in last
    assert len(last) <= 100


def test_result_that_cannot_be_shown(capsys: Captured) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert tell(Completed(data=Odd())) == 0
    assert "RuntimeError" not in capsys.readouterr().err


def test_summary_from_the_history(history: Path, capsys: Captured) -> None:
    state = Failed("3/24 task runs failed.", data=ValueError("bad date"))
    state.run_key = RUN_ID.bytes
    assert tell(state) == 1
    said = capsys.readouterr().err
    assert (
        said.splitlines()[1]
        == "✗ sales-etl · brave-otter · 7f3a01bc failed in 1 m 42 s: 3/24 task runs failed."
    )
    assert "clean  17/20  3 failed     1.1 s" in said
    assert "load     0/4  4 not ready" in said
    assert said.count("ValueError: bad date") == 1
    assert "Slowest\n  clean-19  2.0 s  penstock task 7f3a01bc:clean:19\n" in said
    assert said.endswith(
        "Next: penstock show 7f3a01bc\nFix and continue: penstock resume 7f3a01bc\n"
    )


def test_quiet_summary_is_the_failures(history: Path, capsys: Captured) -> None:
    state = Failed("3/24 task runs failed.")
    state.run_key = RUN_ID.bytes
    tell(state, quiet=True)
    said = capsys.readouterr().err
    assert said.count("TaskFailed") == 2
    assert "Next" not in said
    assert "17/20" not in said


def test_history_that_cannot_be_read_takes_nothing_from_the_outcome(
    penstock_home: Path, capsys: Captured
) -> None:
    penstock_home.mkdir()
    (penstock_home / "history.db").write_bytes(b"nonsense" * 1000)
    state = Completed()
    state.run_key = RUN_ID.bytes
    assert tell(state) == 0
    assert "The history cannot be read now" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("y")])
def test_errors_of_a_file_are_told(
    capsys: Captured, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.cli.loading import LoadingFailed

    def prepare() -> Any:
        raise LoadingFailed("etl.py") from error

    run: Callable[..., int] = run_and_tell
    with app.make_context("penstock", ["version"]):
        assert run(Session(), prepare) == 1
    assert f"etl.py cannot be loaded: {type(error).__name__}" in capsys.readouterr().err
