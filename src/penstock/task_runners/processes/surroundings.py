"""What a task may change of its process: put back before the next one runs there."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

_CHANGING = frozenset({"os.chdir", "os.putenv", "os.unsetenv"})


class Surroundings:
    """The working directory, the environment variables and the output that tasks start with.

    A change of the first two is noticed by the audit event that it causes, so that nothing has to
    be compared after each of many small tasks.
    """

    def __init__(self) -> None:
        self._is_changed = False
        self._lent: dict[str, str] = {}
        self._out, self._err = sys.stdout, sys.stderr
        self._spare_out, self._spare_err = _Spare("stdout"), _Spare("stderr")
        self.take()
        sys.addaudithook(self._note)

    def take(self) -> None:
        """Take what is now for what every task starts with."""
        self._folder = os.getcwd()
        self._variables = dict(os.environ)
        self._is_changed = False

    def lend(self, variables: dict[str, str]) -> None:
        """Let tasks have some environment variables besides, from now on."""
        if variables or self._lent:
            self._lent = variables
            self._is_changed = True
        self.restore()

    def restore(self) -> None:
        """Put back what was changed."""
        if sys.stdout is not self._out or self._out.closed:
            self._out = self._spare_out.reopened()
        if sys.stderr is not self._err or self._err.closed:
            self._err = self._spare_err.reopened()
        if self._is_changed:
            os.chdir(self._folder)
            variables = {**self._variables, **self._lent}
            for name in os.environ.keys() - variables.keys():
                del os.environ[name]
            for name, value in variables.items():
                if os.environ.get(name) != value:
                    os.environ[name] = value
            self._is_changed = False

    def _note(self, event: str, arguments: Any) -> None:
        if event in _CHANGING:
            self._is_changed = True


class _Spare:
    """One of the two streams that a task may close or replace, and a descriptor to spare."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: Any = getattr(sys, name)
        self._number: int = self._stream.fileno()
        self._spare = os.dup(self._number)

    def reopened(self) -> Any:
        """Put the stream back into its place, opened again if it was closed, and give it."""
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
        return self._stream
