"""Text on a terminal: measured in columns, cut to fit; beside it the words of `wording`."""

from __future__ import annotations

import unicodedata

from penstock.wording import ago, clean, clean_lines, duration, moment, plural, when

__all__ = [
    "ago",
    "clean",
    "clean_lines",
    "clock",
    "cut",
    "duration",
    "moment",
    "padded",
    "plural",
    "when",
    "width_of",
]


def width_of(text: str) -> int:
    """Count the columns that a clean text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_width_of_letter, text))


def _width_of_letter(letter: str) -> int:
    if letter == "\u200d" or unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def cut(text: str, width: int, mark: str = "…") -> str:
    """Cut a clean text to at most `width` columns, with a mark at its end if it was longer."""
    if width_of(text) <= width:
        return text
    room = width - width_of(mark)
    if room <= 0:
        return mark[: max(width, 0)]
    kept = ""
    for letter in text:
        room -= _width_of_letter(letter)
        if room < 0:
            break
        kept += letter
    return kept + mark


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Fill a clean text up with spaces to `width` columns."""
    space = " " * (width - width_of(text))
    return space + text if right else text + space


def clock(seconds: float) -> str:
    """Say a running time as "00:01:42"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}"
