"""Modules that hold a script: they stand by its file, under whatever name they were loaded.

`python etl.py` loads a script as `__main__`, `penstock run etl.py` as a module of its own. Its
flows and tasks are the same ones.
"""

from __future__ import annotations

import os
import sys

_MAIN = frozenset({"__main__", "__mp_main__"})
_files: dict[str, str] = {}


def stand_for_script(module: str, file: str) -> None:
    """Note that a module of that name holds the script of a file."""
    _files[module] = os.path.abspath(file)


def script_of(module: str) -> str | None:
    """Give the file of the script that a module holds; None where it holds none.

    Example:
        >>> script_of("json") is None
        True
    """
    if module not in _MAIN:
        return _files.get(module)
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(file) if file and os.path.isfile(file) else None


def module_key(module: str) -> str:
    """Give what a module stands by: its name, or the file of its script."""
    return script_of(module) or module
