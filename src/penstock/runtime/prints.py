"""Record what `log_prints` runs print, besides printing it."""

from __future__ import annotations

import builtins
import io
import logging
import sys
import threading
from typing import Any

from penstock.runtime.context import current_run
from penstock.runtime.logs import RunLogger

_logger = logging.getLogger("penstock.prints")
_builtin_print = builtins.print
_print = builtins.print
_printing = threading.local()


def record_prints() -> None:
    """Make `print` record its lines in runs that want that; elsewhere it stays as it was."""
    global _print
    if builtins.print is not _recording_print:
        _print = builtins.print
        builtins.print = _recording_print


def _recording_print(*values: Any, **options: Any) -> None:
    run = current_run.get()
    target = options.get("file")
    if getattr(_printing, "inside", False):
        # Somebody put a print of their own around this one, and this one around theirs.
        return _builtin_print(*values, **options)
    if run is None or not run.log_prints or not (target is None or target is sys.stdout):
        return _contained_print(values, options)
    # Made into text once: the same text is printed and recorded.
    line = io.StringIO()
    _builtin_print(*values, **{**options, "file": line, "end": "", "flush": False})
    text = line.getvalue()
    RunLogger(_logger, run).info("%s", text)
    options.pop("sep", None)
    return _contained_print((text,), options)


def _contained_print(values: tuple[Any, ...], options: dict[str, Any]) -> None:
    _printing.inside = True
    try:
        _print(*values, **options)
    finally:
        _printing.inside = False
