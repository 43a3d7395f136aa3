"""Exceptions as people read them: what happened first, then the user's own lines, ours folded.

Everything here is a pure function from an exception, or from a traceback's text, to lines.
"""

from __future__ import annotations

import linecache
import os
import re
import site
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
# The demonstration stands for a user's file.
_DEMO = str(Path(__file__).resolve().with_name("demo_flow.py"))
_FRAME = re.compile(
    r'^[\s|+]*File "(?P<file>[^"]*)", line (?P<line>\d+)(?:, in (?P<function>.*))?$'
)
_LIBRARY = re.compile(r"(?:/lib/python3\.\d+)?/(?:site|dist)-packages/|/lib/python3\.\d+/")
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
_MOST_FRAMES = 6
_MOST_CAUSES = 3
_MOST_MEMBERS = 5
_MOST_TEXT_LINES = 40


def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if hasattr(site, "getsitepackages"):
        folders |= {*site.getsitepackages(), site.getusersitepackages()}
    folders |= {os.path.realpath(folder) for folder in folders}
    return tuple(os.path.join(folder, "") for folder in folders)


_LIBRARIES = _library_folders()


@dataclass(frozen=True)
class Frame:
    """One line of code that was being run."""

    file: str
    line: int
    function: str
    source: str

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to Penstock."""
        if self.file.startswith(_PACKAGE):
            return self.file != _DEMO
        # A traceback from another machine, or another environment, has other folders.
        inside = self.file.rpartition("/penstock/")[2]
        return inside != self.file and os.path.exists(_PACKAGE + inside)

    @property
    def is_library(self) -> bool:
        """Whether it belongs to Python, to an installed package, or to no file at all."""
        if self.file == _DEMO or self.file.startswith("<ipython"):
            return False
        return self.file.startswith(("<", *_LIBRARIES)) or bool(_LIBRARY.search(self.file))

    @property
    def is_users(self) -> bool:
        """Whether it is a line of the user's own."""
        return not self.is_ours and not self.is_library


def describe(exc: BaseException) -> str:
    """Give "Type: text" on one line, whatever the exception's own text does."""
    first = _text_of(exc).strip().split("\n", 1)[0]
    return f"{type(exc).__name__}: {first}" if first else type(exc).__name__


def failure_lines(headline: str, exc: BaseException) -> list[str]:
    """Describe a failure: the headline, then where, then the causes."""
    return [headline, *(f"  {line}" for line in where_lines(exc))]


def where_lines(exc: BaseException) -> list[str]:
    """Say where an exception was raised, the innermost of the user's lines first, and why."""
    lines = [*_own_lines(exc)]
    seen = {id(exc)}
    cause, word = _cause_of(exc)
    while cause is not None and id(cause) not in seen and len(seen) <= _MOST_CAUSES:
        seen.add(id(cause))
        lines.append(f"{word} {describe(cause)}")
        lines += [f"  {line}" for line in _own_lines(cause)]
        cause, word = _cause_of(cause)
    return lines


def _cause_of(exc: BaseException) -> tuple[BaseException | None, str]:
    if exc.__cause__ is not None:
        return exc.__cause__, "because of"
    if exc.__context__ is not None and not exc.__suppress_context__:
        return exc.__context__, "while handling"
    return None, ""


def _own_lines(exc: BaseException) -> Iterator[str]:
    """Give the rest of the text, the notes, the members of a group, and the frames."""
    yield from _rest_of_text(exc)
    yield from (f"note: {note}" for note in getattr(exc, "__notes__", ()))
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions[:_MOST_MEMBERS]:
            yield f"- {describe(member)}"
            yield from (f"  {line}" for line in _own_lines(member))
        if len(exc.exceptions) > _MOST_MEMBERS:
            yield f"- and {len(exc.exceptions) - _MOST_MEMBERS} more"
    # An exception that came as text from elsewhere brings its traceback in its text.
    yield from frame_lines(frames_of(exc.__traceback__) + frames_in(_text_of(exc)))


def _rest_of_text(exc: BaseException) -> list[str]:
    if isinstance(exc, SyntaxError) and exc.filename:
        place = f"{shown_path(exc.filename)}:{exc.lineno}"
        return [f"{place}   {(exc.text or '').strip()}".rstrip()]
    text = _text_of(exc).partition("Traceback (most recent call last):")[0]
    return [line for line in text.strip().split("\n")[1:] if line.strip()][:_MOST_TEXT_LINES]


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return "<its text cannot be shown>"


def frames_of(traceback: TracebackType | None) -> list[Frame]:
    """Give the frames of a traceback, the outermost first."""
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        line = traceback.tb_lineno
        source = linecache.getline(code.co_filename, line, traceback.tb_frame.f_globals)
        frames.append(Frame(code.co_filename, line, code.co_name, source.strip()))
        traceback = traceback.tb_next
    return frames


def frames_in(text: str) -> list[Frame]:
    """Give the frames of the last traceback in a text, the outermost first."""
    before, _, last = text.rpartition("Traceback (most recent call last):")
    if not last or (not before and not text.lstrip().startswith("Traceback")):
        return []
    lines = last.split("\n")
    frames = []
    for number, line in enumerate(lines):
        if match := _FRAME.match(line):
            following = lines[number + 1].strip() if number + 1 < len(lines) else ""
            source = "" if _FRAME.match(lines[number + 1] if following else "") else following
            frames.append(Frame(match["file"], int(match["line"]), match["function"] or "", source))
    return frames


def frame_lines(frames: Sequence[Frame]) -> list[str]:
    """Write the user's frames, the innermost first, and fold the others."""
    users = [frame for frame in frames if frame.is_users][::-1]
    shown = users[:_MOST_FRAMES]
    places = [_place(frame) for frame in shown]
    width = max(map(len, places), default=0)
    lines = [
        f"{place:<{width}}   {frame.source}".rstrip()
        for place, frame in zip(places, shown, strict=True)
    ]
    if len(users) > _MOST_FRAMES:
        lines.append(f"and {len(users) - _MOST_FRAMES} more of your frames")
    if frames and frames[-1].is_library and not frames[-1].is_ours:
        inner = frames[-1]
        lines.append(f"raised in {_library_path(inner.file)}:{inner.line} in {inner.function}")
    return lines


def _place(frame: Frame) -> str:
    place = f"{shown_path(frame.file)}:{frame.line}"
    # The line of a syntax error is in no function.
    return f"{place} in {frame.function}" if frame.function else place


def shown_path(file: str) -> str:
    """Give a file's path, relative where that is shorter."""
    try:
        relative = os.path.relpath(file)
    except (ValueError, OSError):
        return file
    return file if relative.startswith("..") or file.startswith("<") else relative


def _library_path(file: str) -> str:
    fitting = [path for path in _LIBRARIES if file.startswith(path)]
    return file.removeprefix(max(fitting, key=len)) if fitting else _LIBRARY.split(file)[-1]


def same_error(error: dict[str, object]) -> tuple[object, ...]:
    """Give what failures have in common that are told once: the kind, the place and the text.

    Numbers and what is quoted in the text do not count: often they are the value that was wrong.
    """
    frames = _users_or_all(frames_in(str(error.get("traceback") or "")))
    places = tuple((frame.file, frame.line) for frame in frames)
    return (error.get("type"), _VALUES.sub("#", str(error.get("message"))), places)


def _users_or_all(frames: Iterable[Frame]) -> list[Frame]:
    frames = list(frames)
    return [frame for frame in frames if frame.is_users] or frames
