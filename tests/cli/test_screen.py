"""When a stream is plain, and which signs it can show."""

from __future__ import annotations

import io

import pytest

from penstock.cli.screen import Screen


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


def test_terminal_has_colours() -> None:
    screen = Screen(Terminal(), environment={"TERM": "xterm"})
    assert screen.style("x", "red") == "\x1b[31mx\x1b[0m"


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"CI": "1"}, {"CI": "true"}]
)
def test_environment_makes_plain(environment: dict[str, str]) -> None:
    assert Screen(Terminal(), environment=environment).style("x", "red") == "x"


def test_pipe_and_option_make_plain() -> None:
    assert Screen(io.StringIO(), environment={}).plain
    assert Screen(Terminal(), no_color=True, environment={}).plain


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LANG": "POSIX"}])
def test_c_locale_gets_ascii(environment: dict[str, str]) -> None:
    screen = Screen(Terminal(), environment=environment)
    assert screen.symbol("failed") == "x"
    assert screen.bar(0.55, 10) == "#####....."
    assert screen.encodable("3 µs … é") == "3 us ~ \\xe9"


def test_other_encoding_gets_ascii() -> None:
    assert not Screen(Terminal("latin-1"), environment={}).unicode


def test_bar() -> None:
    screen = Screen(Terminal(), environment={})
    assert screen.bar(0, 4) == "░░░░"
    assert screen.bar(0.5, 4) == "██░░"
    assert screen.bar(0.54, 4) == "██▏░"
    assert screen.bar(7, 4) == "████"
