from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import errors
from penstock.errors import RemoteTaskError, SerializationError, TerminationSignal
from penstock.remote.failures import (
    DEEPEST_CHAIN,
    MOST_EXCEPTIONS,
    MOST_FRAMES,
    from_record,
    state_from_record,
    state_to_record,
    to_record,
)
from penstock.states import Cancelled, Completed, Crashed, Failed, Pending, State, StateType
from tests.remote import definitions

ROOT = Path(__file__).resolve().parents[2]
BUILT_IN = (type(None), bool, int, float, str, bytes)


def raised(exc: BaseException) -> BaseException:
    """Raise and catch an exception, so that it has a traceback."""
    try:
        raise exc
    except BaseException as caught:
        return caught


def is_built_in(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(is_built_in, value))
    if type(value) is dict:
        return all(map(is_built_in, value)) and all(map(is_built_in, value.values()))
    return type(value) in BUILT_IN


def arrived(exc: BaseException) -> BaseException:
    record = to_record(exc)
    assert is_built_in(record)
    return from_record(pickle.loads(pickle.dumps(record)))


def shown(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc))


# --- round trips -------------------------------------------------------------------------------


class WithSlots(Exception):
    __slots__ = ()


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("text", 3),
        KeyError("k"),
        OSError(2, "No such file", "f.txt"),
        FileNotFoundError(2, "No such file", "f.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ImportError("no", name="m", path="p"),
        SystemExit(3),
        SystemExit("text"),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("stop"),
        concurrent.futures.CancelledError(),
        errors.CrashedRun("lost"),
        errors.RunTimedOut("late"),
        errors.UpstreamFailed("no value"),
        errors.MissingDependencyError("no", name="x"),
        TerminationSignal(15),
        definitions.Needs(3, where="here"),
        definitions.Rephrased("x"),
        definitions.Holder([1]),
        definitions.TwoSided("x"),
        WithSlots("x"),
        RemoteTaskError("from afar"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_exception_comes_back(exc: BaseException) -> None:
    got = arrived(raised(exc))
    assert type(got) is type(exc)
    assert got.args == exc.args
    assert str(got) == str(exc)
    assert vars(got) == vars(exc)
    for name in ("code", "errno", "filename", "name", "path", "reason", "value"):
        assert getattr(got, name, None) == getattr(exc, name, None)


@given(st.lists(st.none() | st.integers() | st.text() | st.binary(), max_size=3))
def test_arguments_come_back(args: list[Any]) -> None:
    assert arrived(RuntimeError(*args)).args == tuple(args)


def test_local_class_comes_back() -> None:
    class Local(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"{a}/{b}")
            self.a = a

    got = arrived(raised(Local(1, 2)))
    assert type(got) is Local
    assert (str(got), got.a) == ("1/2", 1)


SCRIPT = """
import pickle, sys
from penstock.remote.failures import to_record
class Bad(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.b = b
def fail():
    raise Bad(1, 2)
try:
    fail()
except Bad as exc:
    sys.stdout.buffer.write(pickle.dumps(to_record(exc)))
"""


def test_exception_of_a_script_comes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, check=True, cwd=ROOT, timeout=50
    )
    got: Any = from_record(pickle.loads(done.stdout))
    assert (type(got).__name__, got.args, got.b) == ("Bad", (1,), 2)
    assert 'File "<string>", line 9, in fail' in shown(got)


# --- what cannot be rebuilt --------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: definitions.Holder(threading.Lock()),
        lambda: definitions.Holder(bytes(100_000_000)),
        lambda: definitions.Holder(np.zeros(10_000_000)),
        lambda: definitions.Holder([bytes(1000) * 1000 for _ in range(3)]),
    ],
    ids=["lock", "huge", "array", "many"],
)
def test_exception_that_cannot_be_rebuilt_becomes_text(make: Any) -> None:
    exc = raised(make())
    got = arrived(exc)
    assert type(got) is RemoteTaskError
    assert str(got).startswith(
        "tests.remote.definitions.Holder: holds something\n\nOn the worker:\nTraceback"
    )
    assert f'File "{__file__}"' in str(got)
    assert "raise exc" in str(got)
    assert len(pickle.dumps(to_record(exc))) < 20_000


def test_class_that_is_gone_here_becomes_text(monkeypatch: pytest.MonkeyPatch) -> None:
    record = to_record(raised(definitions.Holder(1)))
    monkeypatch.delattr(definitions, "Holder")
    got = from_record(record)
    assert type(got) is RemoteTaskError
    assert "tests.remote.definitions.Holder: holds something" in str(got)
    assert "raise exc" in str(got)


def test_cause_that_cannot_be_rebuilt_becomes_text() -> None:
    try:
        try:
            raise definitions.Holder(threading.Lock())
        except definitions.Holder as exc:
            raise ValueError("outer") from exc
    except ValueError as exc:
        got = arrived(exc)
    assert type(got) is ValueError
    assert type(got.__cause__) is RemoteTaskError
    assert "Holder: holds something" in str(got.__cause__)
    assert "raise definitions.Holder" in str(got.__cause__)


def test_text_that_raises() -> None:
    record = to_record(raised(definitions.Rude()))
    assert record["message"] == "Rude: <its text cannot be shown>"
    assert type(from_record(record)) is definitions.Rude


def test_text_without_end() -> None:
    record = to_record(raised(definitions.Verbose()))
    assert len(record["message"]) <= 4096
    assert len(pickle.dumps(record)) < 200_000
    record["exceptions"][0]["pickled"] = None
    assert len(str(from_record(record))) < 200_000


def test_secrets_are_masked_in_texts() -> None:
    exc = raised(definitions.Holder(threading.Lock()))
    exc.args = ("password=hunter2",)
    record = to_record(exc)
    assert "hunter2" not in repr(record)
    assert "hunter2" not in str(from_record(record))


@pytest.mark.parametrize("broken", [{}, {"exceptions": []}, {"exceptions": [{}]}, None, 3])
def test_damaged_record_gives_an_error(broken: Any) -> None:
    assert type(from_record(broken)) is RemoteTaskError


def test_damaged_pickle_gives_text() -> None:
    record = to_record(raised(ValueError("x")))
    record["exceptions"][0]["pickled"] = b"\x80nonsense"
    got = from_record(record)
    assert type(got) is RemoteTaskError
    assert "builtins.ValueError: x" in str(got)


# --- tracebacks --------------------------------------------------------------------------------


def failed() -> ValueError:
    try:
        definitions.fail()
    except ValueError as exc:
        return exc
    raise AssertionError


def test_remote_traceback_is_shown_as_if_raised_here() -> None:
    exc = failed()
    got = arrived(exc)

    def without_carets(text: str) -> list[str]:
        return [line for line in text.splitlines() if set(line) - set(" ^~")]

    assert without_carets(shown(got)) == without_carets(shown(exc))
    assert not hasattr(got, "__notes__")
    assert got.__cause__ is got.__context__ is None


def test_raised_again_it_shows_both_places() -> None:
    got = raised(arrived(failed()))
    text = shown(got)
    assert "in raised" in text
    assert "in fail" in text
    assert text.index("in raised") < text.index("in fail")


def test_frames_hold_nothing_of_this_process() -> None:
    frame = arrived(failed()).__traceback__.tb_frame  # type: ignore[union-attr]
    assert frame.f_back is None
    assert frame.f_locals == {}


def test_deep_recursion_keeps_both_ends() -> None:
    try:
        definitions.fail(500)
    except ValueError as exc:
        got = arrived(exc)
    frames = list(traceback.walk_tb(got.__traceback__))
    assert len(frames) == MOST_FRAMES
    assert frames[0][0].f_code.co_name == "test_deep_recursion_keeps_both_ends"
    assert frames[-1][0].f_code.co_name == "fail"


# --- causes, contexts, notes, groups -----------------------------------------------------------


def test_cause_context_and_flag() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise ValueError("outer") from exc
    except ValueError as exc:
        got = arrived(exc)
    assert type(got.__cause__) is KeyError
    assert got.__context__ is got.__cause__
    assert got.__suppress_context__
    assert "direct cause" in shown(got)
    assert 'raise KeyError("inner")' in shown(got)


@pytest.mark.parametrize("suppressed", [False, True])
def test_context_alone(suppressed: bool) -> None:
    exc = ValueError("outer")
    exc.__context__ = KeyError("inner")
    exc.__suppress_context__ = suppressed
    got = arrived(exc)
    assert got.__cause__ is None
    assert type(got.__context__) is KeyError
    assert got.__suppress_context__ is suppressed


def test_long_chain_is_cut() -> None:
    first = exc = ValueError(0)
    for number in range(1, 100):
        exc.__cause__ = ValueError(number)
        exc = exc.__cause__
    got: BaseException | None = arrived(first)
    length = 0
    while got is not None:
        got = got.__cause__
        length += 1
    assert length == DEEPEST_CHAIN + 1


def test_cycle_of_causes() -> None:
    exc = ValueError("a")
    exc.__cause__ = KeyError("b")
    exc.__cause__.__cause__ = exc
    got = arrived(exc)
    assert got.__cause__ is not None
    assert got.__cause__.__cause__ is got
    assert "ValueError: a" in shown(got)


def test_notes_come_back() -> None:
    exc = ValueError("x")
    exc.add_note("first")
    exc.add_note("second")
    assert arrived(exc).__notes__ == ["first", "second"]


def test_notes_of_what_cannot_be_rebuilt() -> None:
    exc = definitions.Holder(threading.Lock())
    exc.add_note("look here")
    assert arrived(exc).__notes__ == ["look here"]


def test_group_comes_back_with_its_members() -> None:
    first = failed()
    first.add_note("note")
    second = KeyError("b")
    second.__cause__ = OSError("deep")
    got = arrived(raised(ExceptionGroup("many", [first, ExceptionGroup("inner", [second])])))
    assert type(got) is ExceptionGroup
    one, inner = got.exceptions
    assert one.__notes__ == ["note"]
    assert "in fail" in shown(one)
    assert isinstance(inner, ExceptionGroup)
    assert type(inner.exceptions[0].__cause__) is OSError
    assert "deep" in shown(got)


def test_group_of_a_class_of_its_own() -> None:
    got = arrived(definitions.Crowd("many", [ValueError("x")]))
    assert type(got) is definitions.Crowd
    assert str(got.exceptions[0]) == "x"


def test_group_with_a_member_that_cannot_be_rebuilt() -> None:
    got = arrived(ExceptionGroup("many", [definitions.Holder(threading.Lock()), ValueError("x")]))
    assert type(got) is ExceptionGroup
    assert [type(each) for each in got.exceptions] == [RemoteTaskError, ValueError]


def test_group_of_many_is_bounded() -> None:
    record = to_record(ExceptionGroup("many", [ValueError(i) for i in range(1000)]))
    assert len(record["exceptions"]) == MOST_EXCEPTIONS
    got = from_record(record)
    assert isinstance(got, ExceptionGroup)
    assert len(got.exceptions) == 1000


# --- states ------------------------------------------------------------------------------------

KEY = bytes(range(16))


def state_arrived(state: State, **options: Any) -> State:
    record = state_to_record(state, **options)
    assert is_built_in(record)
    return state_from_record(record, KEY)


@pytest.mark.parametrize(
    "state",
    [
        Failed("no", name="TimedOut"),
        Failed("list", data=[1, {"k": 2}]),
        Failed("text", data="why"),
        Crashed("gone"),
        Cancelled(),
        Pending("later", name="NotReady"),
        Completed("done", name="Cached"),
    ],
    ids=str,
)
def test_state_comes_back(state: State) -> None:
    got = state_arrived(state)
    assert (got.type, got.name, got.message, got.at) == (
        state.type,
        state.name,
        state.message,
        state.at,
    )
    assert got.run_key == KEY
    assert got.data == state.data


def test_exception_of_a_state_comes_back() -> None:
    got = state_arrived(Failed("no", data=failed()))
    with pytest.raises(ValueError, match="too bad"):
        got.result()


def test_value_of_a_completed_state_travels_elsewhere() -> None:
    assert state_arrived(Completed(data=threading.Lock())).data is None
    assert state_arrived(Completed(data=[1]), with_value=True).data == [1]


@pytest.mark.parametrize("kind", [list, tuple, set])
def test_states_in_a_state_come_whole(kind: Any) -> None:
    members = kind([Completed(data=5), State(StateType.FAILED, data=failed(), run_key=KEY)])
    got = state_arrived(Failed("1/2", data=members))
    assert type(got.data) is kind
    by_type = {each.type: each for each in got.data}
    assert by_type[StateType.COMPLETED].data == 5
    assert by_type[StateType.COMPLETED].run_key is None
    assert by_type[StateType.FAILED].run_key == KEY
    assert str(by_type[StateType.FAILED].data) == "too bad"


def test_state_in_a_state() -> None:
    assert state_arrived(Failed(data=Completed(data=1))).data.data == 1


def test_data_of_a_state_that_cannot_travel() -> None:
    with pytest.raises(
        SerializationError, match="the data of the state -> \\['k'\\] : _thread.lock"
    ):
        state_to_record(Failed(data={"k": threading.Lock()}))


def test_data_of_a_state_that_cannot_be_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    record = state_to_record(Failed(data=definitions.Point(1, 2)))
    monkeypatch.delattr(definitions, "Point")
    assert isinstance(state_from_record(record, KEY).data, SerializationError)
