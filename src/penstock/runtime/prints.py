"""Record what `log_prints` runs print, besides printing it."""

from __future__ import annotations

import builtins
import io
import sys
from typing import Any

from penstock.runtime.context import current_run
from penstock.runtime.logs import record_line

_PRINT_LEVEL = 20
_print = builtins.print


def record_prints() -> None:
    """Make `print` record its lines in runs that want that; elsewhere it stays as it was."""
    global _print
    if builtins.print is not _recording_print:
        _print = builtins.print
        builtins.print = _recording_print


def _recording_print(*values: Any, **options: Any) -> None:
    run = current_run.get()
    target = options.get("file")
    if run is not None and run.log_prints and target in (None, sys.stdout):
        line = io.StringIO()
        _print(*values, **{**options, "file": line, "end": "", "flush": False})
        record_line(run, _PRINT_LEVEL, "print", line.getvalue())
    _print(*values, **options)
