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
from penstock.history.rows import log_row
from penstock.runs import FlowRun, Run, TaskRun
from penstock.runtime.context import current_run
from penstock.settings import Settings

MOST_LINES = 100_000
"""Log lines that are recorded of one attempt of a run."""
MOST_CHARACTERS = 10_000_000
"""Characters of log lines that are recorded of one attempt of a run."""

_OWN = tuple(
    logging.getLogger(f"penstock{rest}")
    for rest in ("", ".flow_runs", ".task_runs", ".prints", ".history", ".hooks")
)
_installed: dict[str, RunLogHandler] = {}
_levelled: set[str] = set()
_lock = threading.Lock()


class LogBudget:
    """How much one attempt of a run has logged, and what had to be dropped of it."""

    __slots__ = ("attempt", "characters", "dropped", "lines", "lock", "run")

    def __init__(self, run: Run, attempt: int) -> None:
        self.run = run
        self.attempt = attempt
        self.lines = 0
        self.characters = 0
        self.dropped = 0
        self.lock = threading.Lock()

    def takes(self, length: int) -> bool:
        """Tell whether another line is recorded, and count it."""
        with self.lock:
            self.lines += 1
            self.characters += length
            if self.lines <= MOST_LINES and self.characters <= MOST_CHARACTERS:
                return True
            self.dropped += 1
            return False

    def notice(self) -> tuple[Any, ...]:
        """Give the line that tells of the dropped ones, and count from zero again."""
        with self.lock:
            dropped, self.dropped = self.dropped, 0
        text = f"dropped {dropped} lines: the log of this attempt is full"
        return log_row(self.run, self.attempt, time_ns(), logging.WARNING, "penstock", text)


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines belong to one run, also from other threads."""

    def __init__(self, logger: logging.Logger, run: Run) -> None:
        super().__init__(logger, {})
        self.run = run
        # A thread that outlives its attempt still logs for that one.
        self.attempt = run.attempt

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Attach the run, its ids and names to a line."""
        fields = run_fields(self.run)
        fields["penstock_attempt"] = self.attempt
        kwargs["extra"] = {**fields, **(kwargs.get("extra") or {})}
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


def record_line(
    run: Run, level: int, logger: str, message: str, attempt: int | None = None
) -> None:
    """Record one line of a run's log in the history, as long as its log is not full.

    Args:
        attempt: which attempt wrote it; the present one by default.
    """
    recorder = run.recorder
    if recorder is None:
        return
    attempt = run.attempt if attempt is None else attempt
    budget = _budget(run, attempt)
    row = log_row(run, attempt, time_ns(), level, logger, message)
    if budget.takes(len(row[-1])):
        recorder.record_line(row)


def _budget(run: Run, attempt: int) -> LogBudget:
    budget: LogBudget | None = run.log_budget
    if budget is not None and budget.attempt == attempt:
        return budget
    with _lock:
        budget = run.log_budget
        if budget is not None and budget.attempt >= attempt:
            return budget  # what a given-up attempt still says counts with the present one's
        if budget is not None and budget.dropped:
            run.recorder.record_line(budget.notice())
        budget = run.log_budget = LogBudget(run, attempt)
    return budget


class RunLogHandler(logging.Handler):
    """Takes log records that were made in a run to the history."""

    def createLock(self) -> None:
        """Have no lock: a line may wait for the recorder, whose own lines must get through."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit a record, once even where several loggers on its way have such a handler."""
        if getattr(record, "penstock_seen", False) or not self.filter(record):
            return False
        record.penstock_seen = True
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Record a line; lines made outside any run are none of our business."""
        run = getattr(record, "penstock_run", None) or current_run.get()
        try:
            if run is not None:
                attempt = getattr(record, "penstock_attempt", None)
                record_line(run, record.levelno, record.name, self.format(record), attempt)
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
    """Put the handler on Penstock's own logger and on those named in the settings.

    Called at the start of each run: the settings may have changed, and `logging.config` disables
    the loggers it does not know.
    """
    wanted = ("penstock", *settings.loggers)
    for logger in _OWN:
        logger.disabled = False
    if _installed.keys() == set(wanted) and all(
        handler.level == settings.log_level and handler in logging.getLogger(name).handlers
        for name, handler in _installed.items()
    ):
        return
    with _lock:
        for name in _installed.keys() - set(wanted):
            _uninstall(name)
        for name in wanted:
            _install(name, settings.log_level)


def _install(name: str, level: int) -> None:
    logger = logging.getLogger(name)
    handler = _installed.setdefault(name, RunLogHandler())
    handler.setLevel(level)
    logger.addHandler(handler)
    if logger.level == logging.NOTSET or name in _levelled:
        _levelled.add(name)
        logger.setLevel(level)


def _uninstall(name: str) -> None:
    logger = logging.getLogger(name)
    logger.removeHandler(_installed.pop(name))
    if name in _levelled:
        _levelled.discard(name)
        logger.setLevel(logging.NOTSET)
