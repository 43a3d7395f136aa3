"""The door for text: what passes it is safe and short enough."""

from __future__ import annotations

import sqlite3
import unicodedata
from contextlib import closing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.history.text import LONGEST_NAME, clean_text

ANY_TEXT = st.text(st.characters(codec=None, categories=None))
LIMITS = st.integers(0, 300)


def is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"


@given(ANY_TEXT, LIMITS)
@example("\x00" * 50, 20)
@example("\ud800" * 50, 20)
def test_nothing_unsafe_passes_and_nothing_too_long(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert len(cleaned) <= limit
    assert not any(map(is_unsafe, cleaned))
    with closing(sqlite3.connect(":memory:")) as connection:
        assert connection.execute("SELECT ?", (cleaned,)).fetchone() == (cleaned,)


@given(ANY_TEXT, LIMITS)
def test_cleaning_twice_changes_nothing(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert clean_text(cleaned, limit) == cleaned


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=LONGEST_NAME))
def test_safe_text_passes_as_it_is(text: str) -> None:
    assert clean_text(text) is text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("brave-otter", "brave-otter"),
        ("a\tb\nc", "a\tb\nc"),
        ("a\x00b", "a\u2400b"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\r", "\\x0d"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\udc80", "\\udc80"),
        ("👩‍🚀 e\u0301 \u202e", "👩‍🚀 e\u0301 \u202e"),
    ],
)
def test_examples(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_long_text_keeps_head_and_tail() -> None:
    cleaned = clean_text("head" + "." * 40_000 + "tail", 1_000)
    assert cleaned.startswith("head")
    assert cleaned.endswith("tail")
    assert "[39008 more]" in cleaned
    assert len(cleaned) == 1_000


def test_default_limit_is_that_of_names() -> None:
    assert len(clean_text("x" * 1_000)) == LONGEST_NAME
