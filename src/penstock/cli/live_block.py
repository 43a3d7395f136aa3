"""A block of lines that stays below everything else on a terminal.

    user's print ──► StreamInFront ──► LiveBlock.write_above ──► the terminal's own stdout
    ticker thread ──────────────────► LiveBlock.show ─────────► the terminal's own stderr

Whole lines are written above the block: it is wiped, they are written, and it is drawn again at
once or, when much is printed, with the next tick. A line that has not ended yet (`end=""`, the
bars of tqdm) is shown as a line of the block until it ends. All writing holds one lock.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic
from typing import TextIO

from penstock.cli.screen import Screen
from penstock.cli.text import clean, cut, width_of

_BUSY_SECONDS = 0.03  # prints that follow each other faster than this do not redraw the block


class LiveBlock:
    """Draws a block at the cursor, in place, without hiding the cursor.

    A killed process therefore leaves an ordinary terminal behind.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._lock = threading.RLock()
        self._lines: list[str] = []
        self._tails: dict[tuple[int, int], str] = {}
        self._drawn: list[int] = []  # widths of the lines on the terminal
        self._written_at = 0.0
        self._pauses = 0

    def show(self, lines: Sequence[str]) -> None:
        """Replace the block's lines; styled text whose width is not larger than the terminal."""
        with self._lock:
            self._lines = list(lines)
            self._draw()

    def write_above(self, stream: TextIO, text: str) -> None:
        """Write a user's text; what follows the last line end waits for its end."""
        with self._lock:
            if self._pauses:
                stream.write(text)
                stream.flush()
                return
            key = (id(stream), threading.get_ident())
            whole, tail = _split(self._tails.pop(key, "") + text)
            if tail:
                self._tails[key] = tail
            if whole:
                self._put(stream, whole)

    def say(self, text: str) -> None:
        """Write a line of our own above the block, once and for all."""
        with self._lock:
            self._put(self._screen.stream, self._screen.encodable(text) + "\n")

    def pause(self) -> None:
        """Take the block away, unfinished lines left where they are, until `resume`; nests."""
        with self._lock:
            self._pauses += 1
            self._wipe()
            self._write_tails(end="")

    def resume(self) -> None:
        """Draw the block again, once every `pause` has its `resume`."""
        with self._lock:
            self._pauses -= 1
            self._draw()

    def close(self) -> None:
        """Take the block away for good and end the lines that were never ended."""
        with self._lock:
            self._pauses += 1
            self._wipe()
            self._write_tails(end="\n")

    def _write_tails(self, end: str) -> None:
        for tail in self._tails.values():
            self._screen.stream.write(tail + end)
        self._tails.clear()
        self._screen.flush()

    def _put(self, stream: TextIO, text: str) -> None:
        self._wipe()
        stream.write(text)
        stream.flush()
        now = monotonic()
        if now - self._written_at > _BUSY_SECONDS:
            self._draw()
        self._written_at = now

    def _draw(self) -> None:
        if self._pauses:
            return
        columns, rows = self._screen.size()
        tails = [cut(clean(tail.rstrip("\r")), columns - 1) for tail in self._tails.values()]
        lines = [*tails, *self._lines][-(rows - 1) :]
        parts = [self._to_start(columns)]
        for number, line in enumerate(lines):
            parts.append(("\r\n" if number else "") + line + "\x1b[K")
        self._screen.stream.write("".join(parts) + "\x1b[J")
        self._screen.flush()
        self._drawn = [width_of(_unstyled(line)) for line in lines]

    def _wipe(self) -> None:
        if self._drawn:
            columns, _ = self._screen.size()
            self._screen.stream.write(self._to_start(columns) + "\x1b[J")
            self._screen.flush()
            self._drawn = []

    def _to_start(self, columns: int) -> str:
        """Move to the first row of the block; a terminal made narrower has folded its lines."""
        if not self._drawn:
            return "\r"
        rows = sum(max(1, -(-width // columns)) for width in self._drawn)
        return f"\r\x1b[{rows - 1}A" if rows > 1 else "\r"


def _split(text: str) -> tuple[str, str]:
    """Part a text into its whole lines and the rest; a rest that starts anew replaces itself."""
    whole, end, tail = text.rpartition("\n")
    # Bars begin with a carriage return, or end with one: the last that shows is what counts.
    last = tail.rstrip("\r").rpartition("\r")[2]
    return whole + end, last + "\r" if tail.endswith("\r") else last


def _unstyled(line: str) -> str:
    while "\x1b[" in line:
        before, _, after = line.partition("\x1b[")
        line = before + after.partition("m")[2]
    return line
