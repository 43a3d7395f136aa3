"""Find out that a script starts worker processes outside of `if __name__ == "__main__":`.

A new worker process imports the script once more. Outside of the guard that would start worker
processes again, in each of them; Python stops that with a traceback in every process.
"""

from __future__ import annotations

import ast
import sys
import threading
from types import FrameType
from typing import Any

import dask.config

from penstock.errors import EngineError


def check_guard() -> None:
    """Refuse to start worker processes where the script has no guard around what runs now.

    Raises:
        EngineError: the text names the line.
    """
    if dask.config.get("distributed.worker.multiprocessing-method") == "fork":
        return
    main: Any = sys.modules.get("__main__")
    file, line = getattr(main, "__file__", None), _line_of(main)
    if file is not None and line is not None and not _is_guarded(file, line):
        raise EngineError(
            f'{file}, line {line}, runs outside of `if __name__ == "__main__":`. Worker processes '
            "import the script, and would run it again. Put that line under "
            '`if __name__ == "__main__":`, or use threads: '
            'DaskTaskRunner(cluster_kwargs={"processes": False}).'
        )


def _line_of(main: Any) -> int | None:
    """Give the line of the script that runs at the top level now; None when none does."""
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            return frame.f_lineno
        frame = frame.f_back
    return None


def _is_guarded(file: str, line: int) -> bool:
    """Tell whether a condition on `__name__` stands before or around a line."""
    try:
        with open(file, "rb") as source:
            body = ast.parse(source.read()).body
    except (OSError, SyntaxError, ValueError):  # nothing that could be imported as a script
        return True
    conditions = [one.test for one in body if isinstance(one, ast.If) and one.lineno <= line]
    names = (part for test in conditions for part in ast.walk(test))
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in names)
