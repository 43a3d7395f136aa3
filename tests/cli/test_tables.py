"""Tables fit the terminal."""

from __future__ import annotations

import io

import pytest

from penstock.cli.screen import Screen
from penstock.cli.tables import Cell, Column, Row, fit, write_table
from penstock.cli.text import width_of

COLUMNS = [
    Column("ID", need=9),
    Column("NAME", need=5, least=4),
    Column("NOTE", need=1, least=4),
    Column("N", need=7, right=True),
]
ROWS: list[Row] = [
    ["abc", Cell("日本語の名前", ("cyan",)), "a rather long note", "7"],
    ["def", "x\x1b[2J", "", "1,000"],
]


def table(width: int | None) -> list[str]:
    stream = io.StringIO()
    write_table(Screen(stream, environment={}), COLUMNS, ROWS, width)
    return stream.getvalue().splitlines()


def test_unlimited_table_cuts_nothing() -> None:
    assert table(None) == [
        "ID   NAME          NOTE                    N",
        "abc  日本語の名前  a rather long note      7",
        "def  x                                 1,000",
    ]


@pytest.mark.parametrize("width", range(8, 60))
def test_table_fits(width: int) -> None:
    assert max(map(width_of, table(width))) <= width


def test_least_needed_column_gives_first_and_goes_first() -> None:
    assert fit(COLUMNS, [3, 12, 18, 5], 40) == [3, 12, 14, 5]
    assert fit(COLUMNS, [3, 12, 18, 5], 24) == [3, 6, 4, 5]
    assert fit(COLUMNS, [3, 12, 18, 5], 20) == [3, 8, 0, 5]
    assert fit(COLUMNS, [3, 12, 18, 5], 10) == [3, 0, 0, 5]


def test_column_without_text_is_left_out() -> None:
    stream = io.StringIO()
    write_table(Screen(stream, environment={}), COLUMNS, [["a", "b", "", "1"]], None)
    assert "NOTE" not in stream.getvalue()
