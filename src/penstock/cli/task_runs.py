"""`penstock tasks` and `penstock task`."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from penstock.cli.failures import Failure, error_of, failure_lines
from penstock.cli.flow_runs import STATES
from penstock.cli.session import READ_OPTIONS, Session, with_session
from penstock.cli.tables import Cell, Column, Row, write_table
from penstock.cli.text import ago, clean, cut, duration, when
from penstock.cli.words import (
    error_text,
    short,
    state_cell,
    state_styles,
    state_word,
)

_MOST_UPSTREAMS = 20


@click.command()
@click.argument("run", default="@last")
@click.option("--state", type=STATES, help="Only task runs in this state.")
@click.option("--name", metavar="TASK", help="Only task runs of the task of this name.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="How many at most; default 100 in a table, all of them as JSON.",
)
@with_session(READ_OPTIONS)
def tasks(
    session: Session, run: str, state: str | None, name: str | None, limit: int | None
) -> None:
    """List the task runs of a flow run, in order of creation.

    RUN is an id, the beginning of one, a run's name, @last (default) or @last-failed.
    """
    reader = session.reader()
    flow_run = reader.find_flow_run(run)
    state = state.upper() if state else None
    if session.for_machines:
        found = reader.task_runs(flow_run["id"], state=state, name=name, limit=limit)
        session.emit_rows("task_runs", found, flow_run_id=flow_run["id"])
        return
    limit = limit or 100
    found = reader.task_runs(flow_run["id"], state=state, name=name, limit=limit + 1)
    rows = list(islice(found, limit + 1))
    if rows:
        _write_task_runs(session, rows[:limit])
    else:
        session.talk("No such task runs." if state or name else "It has no task runs.")
    if len(rows) > limit:
        session.talk(f"There are more: penstock tasks {short(flow_run['id'])} --limit {limit * 10}")


def _write_task_runs(session: Session, rows: list[dict[str, Any]]) -> None:
    columns = [
        Column("TASK RUN", need=9, least=10),
        Column("STATE", need=8),
        Column("TRIES", need=3, right=True),
        Column("STARTED", need=4),
        Column("TOOK", need=6, right=True),
        Column("WORKER", need=1, least=8),
        Column("ERROR", need=5, least=10),
        Column("ID", need=2),
    ]
    write_table(session.out, columns, [_row(session, row) for row in rows], session.width)


def _row(session: Session, task_run: dict[str, Any]) -> Row:
    attempt = task_run.get("attempt") or 0
    failed = task_run["state"]["type"] in ("FAILED", "CRASHED")
    return [
        Cell(task_run["name"], ("cyan",)),
        state_cell(task_run["state"]),
        str(attempt) if attempt > 1 else "",
        when(task_run.get("started_at")),
        duration(task_run.get("duration")),
        Cell(str(task_run.get("worker") or ""), ("dim",)),
        error_text(error_of(task_run)) if failed else "",
        task_run["id"] if session.wide else "",
    ]


@click.command()
@click.argument("reference", metavar="ID")
@with_session(READ_OPTIONS)
def task(session: Session, reference: str) -> None:
    """Show one task run.

    ID is an id, the beginning of one, or RUN:TASK:NUMBER as in 7f3a01bc:clean:417.
    """
    reader = session.reader()
    task_run = reader.find_task_run(reference)
    if session.for_machines:
        session.emit(task_run=task_run)
        return
    out = session.out
    out.line(out.style(out.encodable(clean(task_run["name"])), "bold"))
    for name, text in _facts(task_run):
        room = None if session.width is None else session.width - 14
        text = text if room is None else cut(text, room, out.symbol("more"))
        styles = state_styles(task_run["state"]["type"]) if name == "state" else ()
        out.line(f"  {out.style(f'{name:<10}', 'dim')}  {out.style(out.encodable(text), *styles)}")
    if task_run["state"]["type"] in ("FAILED", "CRASHED"):
        _write_error(session, task_run)
    if task_run.get("flow_run_id"):
        run, name = short(task_run["flow_run_id"]), f"{task_run['task']}-{task_run['number']}"
        session.talk()
        session.talk(f"Its log: penstock logs {run} --task {clean(name)}")


def _facts(task_run: dict[str, Any]) -> list[tuple[str, str]]:
    state, started = task_run["state"], task_run.get("started_at")
    message = state.get("message")
    upstream = task_run.get("upstream") or []
    named = ", ".join(upstream[:_MOST_UPSTREAMS])
    more = len(upstream) - _MOST_UPSTREAMS
    parameters = task_run.get("parameters") or {}
    flow_run_id = task_run.get("flow_run_id")
    lines = [
        ("state", state_word(state) + (f": {clean(message)}" if message else "")),
        ("task", clean(task_run["task"])),
        ("flow run", flow_run_id or "none: called outside a flow"),
        ("attempts", str(task_run.get("attempt") or "")),
        ("started", f"{when(started)} ({ago(started)})" if started else "not yet"),
        ("took", duration(task_run.get("duration"))),
        ("worker", clean(str(task_run.get("worker") or ""))),
        (
            "parameters",
            ", ".join(f"{clean(str(k))}={clean(str(v))}" for k, v in parameters.items()),
        ),
        ("upstream", f"{named} and {more} more" if more > 0 else named),
        ("tags", ", ".join(map(clean, task_run.get("tags") or ()))),
        ("id", task_run["id"]),
    ]
    return [(name, text) for name, text in lines if text]


def _write_error(session: Session, task_run: dict[str, Any]) -> None:
    out = session.out
    lines = failure_lines(out, Failure(error_of(task_run), [task_run], 1), full=session.verbose)
    out.line()
    # The last line tells to type this very command.
    for number, line in enumerate(lines[:-1]):
        line = out.encodable(line)
        line = line if session.width is None else cut(line, session.width, out.symbol("more"))
        out.line(line if number else out.style(line, "red"))
