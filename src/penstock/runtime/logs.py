"""Log lines of runs: `get_run_logger`, and the handler that takes lines to the history.

get_run_logger().info(…) ─► logger "penstock.flow_runs" or "penstock.task_runs"
named loggers (settings)  ─► the same handler                       │
                                                RunLogHandler.emit ─┴─► recorder
"""

from __future__ import annotations

import logging
import threading
from collections.abc import MutableMapping
from time import time_ns
from typing import Any

from penstock.errors import MissingContextError
from penstock.history.recorder import LOG
from penstock.history.rows import log_row
from penstock.runs import FlowRun, Run, TaskRun
from penstock.runtime.context import current_run
from penstock.settings import Settings

_installed: dict[str, RunLogHandler] = {}
_lock = threading.Lock()


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines belong to one run, also from other threads."""

    def __init__(self, logger: logging.Logger, run: Run) -> None:
        super().__init__(logger, {})
        self.run = run

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Attach the run, its ids and names to a line."""
        kwargs["extra"] = {**run_fields(self.run), **(kwargs.get("extra") or {})}
        return msg, kwargs


def get_run_logger() -> RunLogger:
    """Give the logger of the run whose code is running.

    Its lines are recorded in the history with the run's id, and go through Python's own logging
    ("penstock.flow_runs", "penstock.task_runs") like any others. The logger may be handed to
    other threads.

    Raises:
        MissingContextError: no flow or task is running here.

    Example:
        >>> from penstock import flow
        >>> @flow
        ... def report():
        ...     get_run_logger().info("half way")
        >>> report()
    """
    run = current_run.get()
    if run is None:
        raise MissingContextError(
            "There is no run here: get_run_logger() works inside a flow or a task only."
        )
    kind = "task_runs" if isinstance(run, TaskRun) else "flow_runs"
    return RunLogger(logging.getLogger(f"penstock.{kind}"), run)


def run_fields(run: Run) -> dict[str, Any]:
    """Give the fields that a log record of a run carries."""
    flow_run: FlowRun | None = run if isinstance(run, FlowRun) else None
    if flow_run is None and run.live is not None:
        flow_run = run.live.flow_run
    fields: dict[str, Any] = {"penstock_run": run}
    if flow_run is not None:
        fields |= {"flow_run_id": str(flow_run.id), "flow_run_name": flow_run.name}
    if isinstance(run, TaskRun):
        fields |= {"task_run_id": str(run.id), "task_run_name": run.name}
    return fields


def record_line(run: Run, level: int, logger: str, message: str) -> None:
    """Record one line of a run's log in the history."""
    recorder = run.recorder
    if recorder is not None:
        recorder.record(LOG, log_row(run, time_ns(), level, logger, message))


class RunLogHandler(logging.Handler):
    """Takes log records that were made in a run to the history."""

    def emit(self, record: logging.LogRecord) -> None:
        """Record a line; lines made outside any run are none of our business."""
        run = getattr(record, "penstock_run", None) or current_run.get()
        try:
            if run is not None:
                record_line(run, record.levelno, record.name, self.format(record))
            self._show(record)
        except Exception:
            self.handleError(record)

    def _show(self, record: logging.LogRecord) -> None:
        # With a handler of ours in place Python's handler of last resort keeps silent.
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and not _has_other_handler(record):
            last.handle(record)


def _has_other_handler(record: logging.LogRecord) -> bool:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if any(not isinstance(handler, RunLogHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def install_log_handler(settings: Settings) -> None:
    """Put the handler on Penstock's own logger and on those named in the settings."""
    wanted = ("penstock", *settings.loggers)
    if all(name in _installed for name in wanted):
        _installed["penstock"].setLevel(settings.log_level)
        return
    with _lock:
        for name in wanted:
            if name not in _installed:
                handler = _installed[name] = RunLogHandler(settings.log_level)
                logger = logging.getLogger(name)
                logger.addHandler(handler)
                if logger.level == logging.NOTSET:
                    logger.setLevel(settings.log_level)
