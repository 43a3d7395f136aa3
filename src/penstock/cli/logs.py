"""`penstock logs`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from penstock.cli.session import READ_OPTIONS, Session, with_session
from penstock.cli.text import clean, clean_lines, moment, padded, width_of
from penstock.cli.words import FINAL
from penstock.errors import RunNotFound
from penstock.history.base import HistoryReader

_LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "critical": 50}
_STYLES = {"WARN": ("yellow",), "ERROR": ("red",), "CRITICAL": ("red", "bold"), "DEBUG": ("dim",)}
_POLL_SECONDS = 0.5
_PAGE = 2_000
_WIDEST_NAME = 24


@click.command()
@click.argument("run", default="@last")
@click.option("--task", metavar="X", help="Only of a task, or of a task run (`clean-417`, an id).")
@click.option(
    "--level",
    default="debug",
    type=click.Choice(list(_LEVELS), case_sensitive=False),
    help="Only from this level on.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@with_session(READ_OPTIONS)
def logs(session: Session, run: str, task: str | None, level: str, follow: bool) -> None:
    """Show the log lines of a flow run, in order.

    RUN is an id, the beginning of one, a run's name, @last (default) or @last-failed.
    """
    reader = session.reader()
    flow_run = reader.find_flow_run(run)
    task_run_id, task_name = _chosen(reader, flow_run["id"], task)
    lines = _lines(reader, flow_run["id"], task_run_id, _LEVELS[level.lower()], follow)
    names = _Names(reader)
    if task_name:
        lines = (line for line in lines if names.task_of(line) == task_name)
    if session.for_machines:
        session.emit_rows("logs", lines, flow_run_id=flow_run["id"])
        return
    number = widest = 0
    for line in lines:
        if not number:
            _write_date(session, line)
        number += 1
        name = clean(names.name_of(line)) or "flow"
        widest = max(widest, min(width_of(name), _WIDEST_NAME))
        _write(session, line, padded(name, max(widest, width_of(name))))
        if follow:
            session.out.flush()
    if not number:
        session.talk("It has no such log lines.")


def _chosen(
    reader: HistoryReader, flow_run_id: str, text: str | None
) -> tuple[str | None, str | None]:
    """Give the id of the one task run that was asked for, or the name of the task."""
    if text is None:
        return None, None
    if text in reader.counts(flow_run_id):
        return None, text
    task, dash, number = text.rpartition("-")
    if dash and number.isdigit():
        try:
            return reader.find_task_run(f"{flow_run_id}:{task}:{number}")["id"], None
        except RunNotFound:
            pass
    found = reader.find_task_run(text)
    if found.get("flow_run_id") != flow_run_id:
        raise RunNotFound(f"{text!r} is a task run of another flow run.")
    return found["id"], None


def _lines(
    reader: HistoryReader, flow_run_id: str, task_run_id: str | None, level: int, follow: bool
) -> Iterator[dict[str, Any]]:
    """Give log lines in pages, so that no read lasts long; wait for more when following."""
    after = 0
    while True:
        # Asked before reading: what was logged before the end is then read for certain.
        ended = not follow or reader.find_flow_run(flow_run_id)["state"]["type"] in FINAL
        page = list(
            reader.logs(flow_run_id, task_run_id=task_run_id, level=level, after=after, limit=_PAGE)
        )
        yield from page
        if page:
            after = page[-1]["position"]
        if len(page) < _PAGE:
            if ended:
                return
            time.sleep(_POLL_SECONDS)


class _Names:
    """Names of task runs by id, each read once."""

    def __init__(self, reader: HistoryReader) -> None:
        self._reader = reader
        self._known: dict[str, dict[str, Any]] = {}

    def name_of(self, line: dict[str, Any]) -> str:
        return str(self._of(line).get("name", ""))

    def task_of(self, line: dict[str, Any]) -> str:
        return str(self._of(line).get("task", ""))

    def _of(self, line: dict[str, Any]) -> dict[str, Any]:
        task_run_id = line.get("task_run_id")
        if not task_run_id:
            return {}
        if task_run_id not in self._known:
            try:
                self._known[task_run_id] = self._reader.find_task_run(task_run_id)
            except RunNotFound:  # the line is recorded, its task run not yet
                return {}
        return self._known[task_run_id]


def _write_date(session: Session, line: dict[str, Any]) -> None:
    at = moment(line.get("at"))
    if at and at.date() != datetime.now().astimezone().date():
        session.talk(f"{at:%A, %d %B %Y}")


def _write(session: Session, line: dict[str, Any], name: str) -> None:
    out = session.out
    at = moment(line.get("at"))
    clock = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}" if at else ""
    level = _level_name(line.get("level"))
    first, *rest = clean_lines(str(line.get("message") or ""))
    mark = out.style(f"{level:<5}", *_STYLES.get(level, ()))
    out.line(f"{out.style(clock, 'dim')}  {mark}  {out.style(name, 'cyan')}  {first}")
    for text in rest:
        out.line(f"{'':{len(clock) + 2 + 5 + 2 + width_of(name) + 2}}{text}")


def _level_name(level: Any) -> str:
    name = logging.getLevelName(level) if isinstance(level, int) else str(level or "")
    return {"WARNING": "WARN"}.get(name, name)
