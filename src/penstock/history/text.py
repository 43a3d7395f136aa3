"""The one door for text that people or programs made: names, tags, messages, log lines.

Databases and terminals choke on some characters: PostgreSQL refuses NUL, SQLite refuses lone
surrogates, and a terminal obeys escape sequences. What passes this door is safe in all of them.
The recorder cleans text before it builds rows; a store takes rows as they are.
"""

from __future__ import annotations

import re

LONGEST_NAME = 200
"""Characters of the name of a flow, a task, a run, a tag or a logger."""
MOST_TAGS = 64
"""Tags of one run."""
LONGEST_MESSAGE = 4_096
"""Characters of a state's message."""
LONGEST_LOG_LINE = 32_768
"""Characters of a log line; its head and tail are kept."""
LONGEST_PAYLOAD = 65_536
"""Characters of any other text of a run, such as a traceback."""

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_TAIL_SHARE = 4


def clean_text(text: str, limit: int = LONGEST_NAME) -> str:
    """Make a text safe to store and to print, and not longer than `limit` characters.

    NUL becomes the symbol U+2400; other control characters but tab and newline, and lone
    surrogates, become escapes such as `\\x1b` and `\\udc80`. A longer text keeps its head and its
    tail around a marker that says how many characters are gone. Cleaning twice changes nothing.

    Example:
        >>> clean_text("red: \\x1b[31m")
        'red: \\\\x1b[31m'
    """
    if len(text) <= limit and (text.isprintable() or _UNSAFE.search(text) is None):
        return text
    # cut first: no more is cleaned than can be kept; the escapes may make it too long again
    return _cut(_UNSAFE.sub(_escaped, _cut(text, limit)), limit)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code == 0:
        return "\u2400"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"


def _cut(text: str, limit: int) -> str:
    """Keep the head and the tail of a text that is too long."""
    if len(text) <= limit:
        return text
    marker = f"…[{len(text) - limit} more]…"
    room = limit - len(marker)
    if room < _TAIL_SHARE:
        return text[: max(limit - 1, 0)] + "…"[:limit]
    tail = room // _TAIL_SHARE
    return text[: room - tail] + marker + text[-tail:]
