"""What a task may change of its process: put back before the next one runs there."""

from __future__ import annotations

import os
import sys
from typing import Any

_CHANGING = frozenset({"os.chdir", "os.putenv", "os.unsetenv"})


class Surroundings:
    """The working directory and the environment variables that every task starts with.

    A change is noticed by the audit event that it causes, so that nothing has to be compared
    after each of many small tasks.
    """

    def __init__(self) -> None:
        self._is_changed = False
        self._folder = os.getcwd()
        self._variables = dict(os.environ)
        sys.addaudithook(self._note)

    def take(self) -> None:
        """Take what is now for what every task starts with."""
        self._folder = os.getcwd()
        self._variables = dict(os.environ)
        self._is_changed = False

    def restore(self) -> None:
        """Put back what was changed."""
        if not self._is_changed:
            return
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
