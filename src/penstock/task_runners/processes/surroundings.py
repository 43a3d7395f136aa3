"""What a task may change of its process: put back before the next one runs there."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

_CHANGING = frozenset({"os.chdir", "os.putenv", "os.unsetenv"})
_STREAMS = ("stdout", "stderr")


class Surroundings:
    """The working directory, the environment variables and the output that tasks start with.

    A change of the first two is noticed by the audit event that it causes, so that nothing has to
    be compared after each of many small tasks.
    """

    def __init__(self) -> None:
        self._is_changed = False
        self._streams = {name: _Stream(name) for name in _STREAMS}
        self.take()
        sys.addaudithook(self._note)

    def take(self) -> None:
        """Take what is now for what every task starts with."""
        self._folder = os.getcwd()
        self._variables = dict(os.environ)
        self._is_changed = False

    def restore(self) -> None:
        """Put back what was changed."""
        for stream in self._streams.values():
            if stream.is_changed:
                stream.restore()
        if self._is_changed:
            os.chdir(self._folder)
            for name in os.environ.keys() - self._variables.keys():
                del os.environ[name]
            for name, value in self._variables.items():
                if os.environ.get(name) != value:
                    os.environ[name] = value
            self._is_changed = False

    def _note(self, event: str, arguments: Any) -> None:
        if event in _CHANGING:
            self._is_changed = True


class _Stream:
    """One of the two streams that a task may close or replace."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: Any = getattr(sys, name)
        self._number: int = self._stream.fileno()
        self._spare = os.dup(self._number)

    @property
    def is_changed(self) -> bool:
        return getattr(sys, self._name) is not self._stream or self._stream.closed

    def restore(self) -> None:
        if self._stream.closed:
            os.dup2(self._spare, self._number)
            self._stream = io.TextIOWrapper(
                io.BufferedWriter(io.FileIO(self._number, "wb", closefd=False)),
                encoding="utf-8",
                errors="backslashreplace",
                line_buffering=True,
            )
        setattr(sys, self._name, self._stream)
        setattr(sys, f"__{self._name}__", self._stream)
