"""Run a program on a pseudo-terminal and see what a person would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Seen:
    """What came out: the raw text, and the lines left on an endless screen."""

    raw: str
    code: int

    @property
    def text(self) -> str:
        """The raw text without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.raw)

    @property
    def lines(self) -> list[str]:
        """The lines as a terminal leaves them, without colours."""
        return rendered(self.raw)


def on_terminal(
    arguments: list[str],
    *,
    columns: int = 100,
    environment: dict[str, str] | None = None,
    stdout: int | None = None,
    watch: Callable[[str, int], None] | None = None,
    seconds: float = 30,
) -> Seen:
    """Run a Python program on a terminal.

    Args:
        stdout: where its stdout goes instead.
        watch: called with all that came so far, and the terminal to write to, whenever
            something came.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color", **(environment or {})}
    for name in ("NO_COLOR", "CI"):
        if name not in (environment or {}):
            variables.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=follower,
        stdout=follower if stdout is None else stdout,
        stderr=follower,
        env=variables,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
    )
    os.close(follower)
    try:
        raw = _read_all(leader, watch, seconds)
        return Seen(raw, process.wait(5))
    finally:
        os.close(leader)
        process.kill()
        process.wait()


def _read_all(
    leader: int,
    watch: Callable[[str, int], None] | None,
    seconds: float,
) -> str:
    data = b""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 0.1)
        if not ready:
            continue
        with contextlib.suppress(OSError):
            if part := os.read(leader, 65536):
                data += part
                if watch is not None:
                    watch(data.decode("utf-8", "replace"), leader)
                continue
        return data.decode("utf-8", "replace")
    raise TimeoutError(data.decode("utf-8", "replace")[-2000:])


_CODE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


def rendered(raw: str) -> list[str]:
    """Play what was written on a screen without end; the codes that Penstock uses are known."""
    lines = [""]
    row = column = position = 0
    while position < len(raw):
        if match := _CODE.match(raw, position):
            position = match.end()
            count = int(match[1]) if match[1].isdigit() else 1
            if match[2] == "A":
                row = max(0, row - count)
            elif match[2] == "K":
                lines[row] = lines[row][:column]
            elif match[2] == "J":
                del lines[row + 1 :]
                lines[row] = lines[row][:column]
            elif match[2] != "m":
                raise ValueError(f"unexpected code {match[0]!r}")
            continue
        letter = raw[position]
        position += 1
        if letter == "\r":
            column = 0
        elif letter == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        else:
            lines[row] = lines[row][:column].ljust(column) + letter + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
