"""One output stream of the command line: is it a terminal, may it have colour, which symbols.

A stream is plain when it is no terminal, or when `TERM=dumb`, `NO_COLOR`, `CI` or `--no-color`
ask for it: then nothing but text and line ends is written to it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import TextIO

_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_SYMBOLS = {
    "ok": ("✓", "+"),
    "failed": ("✗", "x"),
    "dot": ("·", "-"),
    "more": ("…", "..."),
    "times": ("×", "x"),
    "full": ("█", "#"),
    "empty": ("░", "."),
    "inside": ("›", ">"),
}
_PARTS = " ▏▎▍▌▋▊▉"
_ASCII = str.maketrans({"µ": "u", "…": "~", "·": "-"})


class Screen:
    """Where lines go; knows what may be written there."""

    def __init__(
        self,
        stream: TextIO,
        *,
        no_color: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        variables = os.environ if environment is None else environment
        self.stream = stream
        self.is_terminal = _is_terminal(stream)
        self.plain = not self.is_terminal or no_color or _asks_for_plain(variables)
        self.unicode = _speaks_unicode(stream, variables)

    @property
    def width(self) -> int | None:
        """Columns of the terminal now; None where nothing limits a line."""
        return self.size()[0] if self.is_terminal else None

    def size(self) -> tuple[int, int]:
        """Give columns and lines of the terminal now."""
        try:
            columns, lines = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            columns, lines = 0, 0
        # A terminal that says 0 does not know; the environment may.
        if not columns or not lines:
            columns, lines = shutil.get_terminal_size((80, 24))
        return max(columns, 20), max(lines, 5)

    def style(self, text: str, *names: str) -> str:
        """Colour a text, if this screen has colours."""
        if self.plain or not names or not text:
            return text
        return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"

    def symbol(self, name: str) -> str:
        """Give a sign that this screen can show."""
        return _SYMBOLS[name][0 if self.unicode else 1]

    def bar(self, share: float, width: int) -> str:
        """Draw a bar of `width` columns, filled to a share between 0 and 1."""
        eighths = int(max(0.0, min(share, 1.0)) * width * 8)
        if not self.unicode:
            eighths -= eighths % 8
        full, part = divmod(eighths, 8)
        filled = self.symbol("full") * full + (_PARTS[part] if part else "")
        return filled + self.symbol("empty") * (width - len(filled))

    def line(self, text: str = "") -> None:
        """Write one line; what the stream cannot show is escaped."""
        self.stream.write(self.encodable(text) + "\n")

    def encodable(self, text: str) -> str:
        """Replace what this screen cannot show."""
        if self.unicode or text.isascii():
            return text
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")

    def flush(self) -> None:
        self.stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _asks_for_plain(variables: Mapping[str, str]) -> bool:
    if variables.get("TERM", "") in ("dumb", "unknown"):
        return True
    return any(variables.get(name, "") not in ("", "0", "false") for name in ("NO_COLOR", "CI"))


def _speaks_unicode(stream: TextIO, variables: Mapping[str, str]) -> bool:
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    if not encoding.startswith("utf"):
        return False
    # In the C locale Python writes UTF-8 whatever the terminal can show. An unset locale is
    # usual in containers, whose terminals all show UTF-8.
    if variables.get("PYTHONIOENCODING"):
        return True
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((variables[name] for name in names if variables.get(name)), "")
    return locale not in ("C", "POSIX") and "ISO" not in locale.upper()
