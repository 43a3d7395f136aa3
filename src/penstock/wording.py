"""Text for people, wherever they read: made safe to show, and states, errors and times in words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

_WORDS = {
    "AwaitingRetry": "waiting to try again",
    "Retrying": "running again",
    "Cached": "completed from the cache",
    "TimedOut": "timed out",
    "NotReady": "not ready",
}
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


def state_word(state: Mapping[str, Any]) -> str:
    """Give a state's name as people say it: "failed", "timed out", or the user's own name."""
    name = str(state.get("name") or "")
    if name in _WORDS:
        return _WORDS[name]
    kind = str(state["type"])
    return kind.lower() if name.upper() in ("", kind) else name


def error_text(error: Mapping[str, Any]) -> str:
    """Give an error of the history on one line: "ValueError: bad date"."""
    message = str(error.get("message") or "")
    kind = str(error.get("type") or "").rpartition(".")[2]
    # The message may begin with the kind already.
    if not message or not kind or message == kind or message.startswith(f"{kind}:"):
        return message or kind or "Error"
    return f"{kind}: {message}"
