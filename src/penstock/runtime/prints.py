"""Record what `log_prints` runs print, besides printing it."""

from __future__ import annotations

import builtins
import io
import logging
import sys
from typing import Any

from penstock.runtime.context import current_run
from penstock.runtime.logs import RunLogger

_logger = logging.getLogger("penstock.prints")
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
        RunLogger(_logger, run).info("%s", line.getvalue())
    _print(*values, **options)
