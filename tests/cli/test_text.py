"""Text that is safe to show, measured and cut in columns; times in words."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.text import (
    ago,
    clean,
    clean_lines,
    clock,
    cut,
    duration,
    padded,
    plural,
    when,
    width_of,
)

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;aGk=\x1b\\after", "after"),
        ("\x1b]0;never ended", ""),
        ("\x9b2Jx", "x"),
        ("a\x00b\x07", "a\\x00b\\x07"),
        ("a\nb\tc", "a\\nb c"),
        ("abc\u202edef", "abc\\u202edef"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("half \udc80", "half \\udc80"),
        ("été 日本 🙂", "été 日本 🙂"),
    ],
)
def test_clean(given: str, shown: str) -> None:
    assert clean(given) == shown


def test_clean_drops_towers_of_marks() -> None:
    assert len(clean("a" + "\u0301" * 10_000 + "b")) == 6


@given(ANY_TEXT)
def test_clean_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    cleaned = clean(text)
    assert not [c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(cleaned)
    cleaned.encode("utf-8")


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def test_clean_lines_keeps_lines() -> None:
    assert clean_lines("a\r\nb\n\tc\x1b[2J") == ["a", "b", "    c"]


@given(ANY_TEXT, st.integers(0, 40))
def test_cut_text_fits(text: str, width: int) -> None:
    assert width_of(cut(clean(text), width)) <= width


def test_cut_counts_columns() -> None:
    assert cut("日本語タスク", 7) == "日本語…"
    assert cut("abc", 3) == "abc"
    assert cut("abcdef", 2, "...") == ".."
    assert padded("日", 4) == "日  "
    assert padded("7", 3, right=True) == "  7"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0 µs"),
        (0.000_002_5, "2.5 µs"),
        (0.042, "42 ms"),
        (0.9999, "1.0 s"),
        (4.2, "4.2 s"),
        (42.4, "42 s"),
        (59.99, "1 m 0 s"),
        (200, "3 m 20 s"),
        (3_700, "1 h 1 m"),
        (200_000, "2 d 7 h"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_clock_and_plural() -> None:
    assert clock(102.9) == "00:01:42"
    assert plural(1, "run") == "1 run"
    assert plural(2_000, "run") == "2,000 runs"


def test_times_in_words() -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC).astimezone()
    assert when(None) == ""
    assert (
        when((now - timedelta(minutes=5)).isoformat(), now)
        == f"{now - timedelta(minutes=5):%H:%M:%S}"
    )
    assert when("2026-03-04T12:00:00+00:00", now).startswith("04 Mar ")
    assert when("2024-03-04T12:00:00+00:00", now).startswith("2024-03-04 ")
    assert ago((now - timedelta(seconds=3)).isoformat(), now) == "just now"
    assert ago((now - timedelta(minutes=5)).isoformat(), now) == "5 minutes ago"
    assert ago((now - timedelta(hours=1)).isoformat(), now) == "1 hour ago"
    assert ago((now - timedelta(days=3)).isoformat(), now) == "3 days ago"
