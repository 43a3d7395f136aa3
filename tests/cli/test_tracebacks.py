"""Exceptions as people read them."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.cli.tracebacks import (
    Frame,
    describe,
    failure_lines,
    frame_lines,
    frames_in,
    same_error,
    where_lines,
)
from penstock.errors import RemoteTaskError


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def parse(text: str) -> int:
    return int(text)


def clean_row(text: str) -> int:
    return parse(text)


def test_users_lines_come_first_and_innermost_first() -> None:
    lines = failure_lines("TaskFailed: x", caught(lambda: clean_row("no")))
    assert lines[0] == "TaskFailed: x"
    assert [line.split(" in ")[1].split()[0] for line in lines[1:4]] == [
        *("parse", "clean_row", "<lambda>")
    ]
    assert lines[1].startswith("  tests/cli/test_tracebacks.py:")
    assert lines[1].endswith("   return int(text)")
    assert "Traceback" not in "".join(lines)


def test_library_frames_are_folded_into_where_it_was_raised() -> None:
    lines = where_lines(caught(lambda: json.loads("{")))
    assert lines[0].endswith('json.loads("{")))')
    assert lines[-1].startswith("raised in json/decoder.py:")
    assert len(lines) == 3


def test_own_frames_are_folded() -> None:
    import penstock.history.text

    inside = Path(penstock.history.text.__file__)
    frames = [
        Frame(str(inside), 1, "run", "x()"),
        Frame("/elsewhere/site-packages/penstock/history/text.py", 1, "run", "x()"),
        Frame("/home/me/etl.py", 5, "clean", "parse()"),
        Frame("/elsewhere/lib/python3.12/site-packages/pandas/core.py", 6, "read", "y()"),
    ]
    assert frame_lines(frames) == [
        "/home/me/etl.py:5 in clean   parse()",
        "raised in pandas/core.py:6 in read",
    ]


def test_file_called_penstock_of_the_users_own_is_theirs() -> None:
    assert Frame("/home/me/penstock/etl.py", 1, "f", "").is_users


def test_causes_and_contexts() -> None:
    def chained() -> None:
        try:
            parse("no")
        except ValueError as exc:
            raise KeyError("row") from exc

    def handled() -> None:
        try:
            parse("no")
        except ValueError:
            raise KeyError("row") from None

    lines = where_lines(caught(chained))
    assert "because of ValueError: invalid literal for int() with base 10: 'no'" in lines
    assert lines[-2].split(" in ")[1].startswith("parse")
    assert not any("ValueError" in line for line in where_lines(caught(handled)))


def test_causes_in_a_circle_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert where_lines(first) == ["because of ValueError: b"]


def test_notes_groups_and_long_texts() -> None:
    problem = ExceptionGroup("several\nof them", [ValueError("a"), KeyError("b")])
    problem.add_note("look here")
    assert where_lines(problem) == [
        "of them (2 sub-exceptions)",
        "note: look here",
        "- ValueError: a",
        "- KeyError: 'b'",
    ]
    many = ExceptionGroup("many", [ValueError(str(n)) for n in range(9)])
    assert where_lines(many)[-1] == "- and 4 more"


def test_syntax_error_names_the_line() -> None:
    exc = caught(lambda: compile("x = (\n", "bad.py", "exec"))
    assert "bad.py:1   x = (" in where_lines(exc)


def test_exception_without_a_text() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert describe(Silent()) == "Silent: <its text cannot be shown>"
    assert describe(ValueError()) == "ValueError"
    assert describe(ValueError("a\nb")) == "ValueError: a"
    assert where_lines(Silent()) == []


def test_remote_traceback_in_the_text() -> None:
    exc = caught(lambda: clean_row("no"))
    text = "".join(traceback.format_exception(exc))
    lines = where_lines(RemoteTaskError(f"ValueError: no\non worker 3\n{text}"))
    assert lines[0] == "on worker 3"
    assert " in parse" in lines[1]
    assert not any("Traceback" in line for line in lines)


def test_frames_in_a_text_are_those_of_the_exception_itself() -> None:
    exc = caught(lambda: clean_row("no"))
    text = "".join(traceback.format_exception(exc))
    frames = frames_in(text)
    assert [frame.function for frame in frames][-2:] == ["clean_row", "parse"]
    assert frames[-1].source == "return int(text)"
    assert frames_in("nothing here") == []
    assert frames_in("") == []


@pytest.mark.parametrize("depth", [3, 50])
def test_deep_recursion_is_cut(depth: int) -> None:
    frames = [Frame("/home/me/etl.py", n, "f", "f()") for n in range(depth)]
    assert len(frame_lines(frames)) <= 7


def test_same_error() -> None:
    one = "".join(traceback.format_exception(caught(lambda: parse("no"))))
    assert same_error({"type": "E", "message": "m", "traceback": one}) == same_error(
        {"type": "E", "message": "m", "traceback": one.replace("Traceback", "Traceback", 1)}
    )
    assert same_error({"type": "E", "message": "m"}) != same_error({"type": "E", "message": "n"})
    assert same_error({"type": "E", "message": "row 7: 'x'"}) == same_error(
        {"type": "E", "message": "row 8: 'y'"}
    )
