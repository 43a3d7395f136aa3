"""Text for people: made safe for a terminal, measured in columns, cut to fit; times in words."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timedelta

# Whole escape sequences go, so that no title is set and no clipboard written: CSI, then OSC and
# its kin up to their end, then what is left of a broken one.
_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?"
)
# Controls, bidi marks and overrides, zero-width characters (the joiner of emoji excepted), and
# line separators, tags, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_MARKS_IN_A_ROW = 4
_EVERYDAY = re.compile(r"[ -~]*")


def clean(text: str) -> str:
    """Make one line of a text that came from somewhere: no escape, control or hidden character.

    Escape sequences are dropped; other unsafe characters are shown as `\\x07` or `\\u202e`,
    line ends as `\\n`. Tabs become a space.
    """
    if _EVERYDAY.fullmatch(text):
        return text
    return _safe(text).replace("\n", "\\n").replace("\t", " ")


def clean_lines(text: str) -> list[str]:
    """Do as `clean` does, but keep the lines."""
    return [_safe(line).replace("\t", "    ") for line in text.replace("\r\n", "\n").split("\n")]


def _safe(text: str) -> str:
    text = _UNSAFE.sub(_escaped, _ESCAPE.sub("", text))
    return text if text.isascii() else _without_towers(text)


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _without_towers(text: str) -> str:
    """Drop combining marks above a few on one letter: thousands of them freeze a terminal."""
    kept = []
    marks = 0
    for letter in text:
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks <= _MARKS_IN_A_ROW:
            kept.append(letter)
    return "".join(kept)


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


def plural(number: int, word: str) -> str:
    """Say how many: "1 run", "2,000 runs"."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def duration(seconds: float | None) -> str:
    """Say how long, in two figures: "2.1 ms", "42 s", "3 m 20 s"; nothing for None."""
    if seconds is None:
        return ""
    for limit, factor, unit in ((0.001, 1e6, "µs"), (1, 1e3, "ms"), (60, 1.0, "s")):
        if seconds < limit * 0.9995:
            return f"{_figure(seconds * factor)} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes} m" if hours else f"{minutes} m {rest} s"


def _figure(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:.0f}"


def clock(seconds: float) -> str:
    """Say a running time as "00:01:42"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}"


def moment(text: str | None) -> datetime | None:
    """Read a time of the history (ISO 8601, UTC) as local time."""
    return datetime.fromisoformat(text).astimezone() if text else None


def when(text: str | None, now: datetime | None = None) -> str:
    """Say a time as short as it is clear: "14:13:20" today, "21 Sep 14:13", "2025-09-21 14:13"."""
    at = moment(text)
    if at is None:
        return ""
    today = (now or datetime.now().astimezone()).date()
    if at.date() == today:
        return f"{at:%H:%M:%S}"
    return f"{at:%d %b %H:%M}" if at.year == today.year else f"{at:%Y-%m-%d %H:%M}"


def ago(text: str | None, now: datetime | None = None) -> str:
    """Say how long a time is past: "just now", "5 min ago", "3 days ago"."""
    at = moment(text)
    if at is None:
        return ""
    past = (now or datetime.now().astimezone()) - at
    if past < timedelta(seconds=10):
        return "just now"
    for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        number = int(past.total_seconds() // seconds)
        if number:
            return f"{plural(number, unit)} ago"
    return "just now"
