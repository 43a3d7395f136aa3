"""`penstock ls` and `penstock show`."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli.failures import Failure, collect, write_failures
from penstock.cli.screen import Screen
from penstock.cli.session import READ_OPTIONS, Session, with_session
from penstock.cli.tables import Cell, Column, Row, write_table
from penstock.cli.text import ago, clean, cut, duration, padded, plural, when, width_of
from penstock.cli.words import (
    FINAL,
    counts_line,
    error_text,
    run_state_cell,
    runner_word,
    short,
    state_styles,
    state_word,
)

STATES = click.Choice(
    ["scheduled", "pending", "running", "completed", "failed", "cancelled", "crashed"],
    case_sensitive=False,
)
_BAR_WIDTH = 20
_MOST_TASKS = 40
# The state's message says these better.
_INTERRUPTS = ("KeyboardInterrupt", "SystemExit", "TerminationSignal", "CancelledError")


@click.command()
@click.option("--state", type=STATES, help="Only runs in this state.")
@click.option("--flow", help="Only runs of the flow of this name.")
@click.option("--tag", help="Only runs with this tag.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), help="How many at most."
)
@with_session(READ_OPTIONS)
def ls(session: Session, state: str | None, flow: str | None, tag: str | None, limit: int) -> None:
    """List flow runs, newest first."""
    state = state.upper() if state else None
    # One more than is shown tells whether there are more.
    reader = session.reader_if_any()
    rows = (
        [] if reader is None else reader.flow_runs(state=state, flow=flow, tag=tag, limit=limit + 1)
    )
    if session.for_machines:
        session.emit_rows("flow_runs", rows[:limit])
        return
    if rows:
        _write_runs(session, rows[:limit])
    else:
        chosen = state or flow or tag
        session.talk("No such runs." if chosen else "No runs yet. Try: penstock demo")
    if len(rows) > limit:
        session.talk(f"There are more: penstock ls --limit {limit * 5}")


def _write_runs(session: Session, runs: list[dict[str, Any]]) -> None:
    columns = [
        Column("RUN", need=9),
        Column("NAME", need=3, least=8),
        Column("FLOW", need=7, least=6),
        Column("STATE", need=8),
        Column("STARTED", need=5),
        Column("TOOK", need=4, right=True),
        Column("TASKS", need=6),
        Column("TAGS", need=1, least=6),
        Column("MESSAGE", need=2, least=12),
    ]
    write_table(session.out, columns, [_run_row(session, run) for run in runs], session.width)


def _run_row(session: Session, run: dict[str, Any]) -> Row:
    run_id = run["id"] if session.wide else short(run["id"])
    message = run.get("stale_reason") or run["state"].get("message") or ""
    done = run["state"]["type"] == "COMPLETED"
    return [
        Cell(run_id, ("cyan",)),
        run["name"],
        run["flow"],
        run_state_cell(run),
        when(run.get("started_at") or run.get("created_at")),
        duration(run.get("duration")),
        _tasks_text(run.get("counts") or {}),
        Cell(" ".join(run.get("tags") or ()), ("dim",)),
        Cell("" if done else message, ("dim",)),
    ]


def _tasks_text(counts: dict[str, int]) -> str:
    """Say how many of the task runs are done, and how many failed: "17/20, 3 failed"."""
    number = sum(counts.values())
    if not number:
        return ""
    done = counts.get("COMPLETED", 0)
    failed = counts.get("FAILED", 0) + counts.get("CRASHED", 0)
    progress = f"{done:,}" if done == number else f"{done:,}/{number:,}"
    return f"{progress}, {failed:,} failed" if failed else progress


@click.command()
@click.argument("run", default="@last")
@with_session(READ_OPTIONS)
def show(session: Session, run: str) -> None:
    """Show one flow run: its state, its failures, its progress by task.

    RUN is an id, the beginning of one, a run's name, @last (default) or @last-failed.
    """
    reader = session.reader()
    flow_run = reader.find_flow_run(run)
    counts = reader.counts(flow_run["id"])
    failures = collect(reader, flow_run["id"], counts)
    if session.for_machines:
        session.emit(flow_run=flow_run, failures=[failure.to_dict() for failure in failures])
        return
    _write_header(session, flow_run)
    _write_progress(session, flow_run, counts)
    _write_error(session, flow_run, failures)
    write_failures(session.out, failures, width=session.width, full=session.verbose)
    for line in _next_steps(flow_run, failures):
        session.talk(line)


def _write_header(session: Session, run: dict[str, Any]) -> None:
    out = session.out
    title = f"{clean(run['flow'])} {out.symbol('dot')} {clean(run['name'])}"
    out.line(out.style(out.encodable(title), "bold"))
    for name, text in _header(session, run):
        room = None if session.width is None else session.width - 14
        text = text if room is None else cut(text, room, out.symbol("more"))
        styles = state_styles(run["state"]["type"]) if name == "state" else ()
        out.line(f"  {out.style(f'{name:<10}', 'dim')}  {out.style(out.encodable(text), *styles)}")


def _header(session: Session, run: dict[str, Any]) -> list[tuple[str, str]]:
    state = run["state"]
    message = state.get("message")
    said = state_word(state) + (f": {clean(message)}" if message else "")
    if run.get("stale"):
        said = f"stale: it was {said}, but {_why_stale(run)}"
    started = run.get("started_at")
    parameters = ", ".join(
        f"{clean(str(name))}={clean(str(value))}" for name, value in _parameters(run).items()
    )
    lines = [
        ("state", said),
        ("started", f"{when(started)} ({ago(started)})" if started else "not yet"),
        ("took", duration(run.get("duration"))),
        ("runner", runner_word(run.get("runner"))),
        ("parameters", parameters),
        ("tags", ", ".join(map(clean, run.get("tags") or ()))),
        ("id", run["id"]),
    ]
    return [(name, text) for name, text in lines if text]


def _why_stale(run: dict[str, Any]) -> str:
    """Say since when and why: "its process 4242 is gone (last sign of life 3 minutes ago)"."""
    reason, since = clean(str(run.get("stale_reason") or "")), run.get("stale_since")
    return f"{reason} (last sign of life {ago(since)})" if since else reason


def _parameters(run: dict[str, Any]) -> dict[str, Any]:
    parameters = run.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _write_progress(
    session: Session, run: dict[str, Any], counts: dict[str, dict[str, int]]
) -> None:
    if not counts:
        return
    out = session.out
    out.line()
    final = run["state"]["type"] in FINAL
    names = list(counts) if session.wide else list(counts)[:_MOST_TASKS]
    room = max(8, min(30, (session.width or 100) - 34))
    shown = {name: cut(out.encodable(clean(name)), room, out.symbol("more")) for name in names}
    widest = max(map(width_of, shown.values()))
    figures = {
        name: f"{counts[name].get('COMPLETED', 0):,}/{sum(counts[name].values()):,}"
        for name in names
    }
    room_for_figures = max(map(len, figures.values()))
    # Room is kept for a few words at the end of each line.
    bar_width = (session.width or 200) - 2 - widest - 2 - 2 - room_for_figures - 2 - 12
    for name in names:
        rest = counts_line(_rest(counts[name]), out, final=final)
        line = (
            f"  {padded(shown[name], widest)}  {_bar(out, counts[name], bar_width)}"
            f"{figures[name]:>{room_for_figures}}  {rest}"
        )
        out.line(line.rstrip())
    if len(names) < len(counts):
        out.line(f"  and {plural(len(counts) - len(names), 'task')} more; all with --wide")


def _bar(out: Screen, states: dict[str, int], width: int) -> str:
    """Draw how much is done; nothing where there is no room for it."""
    width = min(width, _BAR_WIDTH)
    if width < 5:
        return ""
    number = sum(states.values())
    share = states.get("COMPLETED", 0) / number if number else 0
    return out.style(out.bar(share, width), "green") + "  "


def _rest(states: dict[str, int]) -> dict[str, int]:
    return {state: number for state, number in states.items() if state != "COMPLETED"}


def _write_error(session: Session, run: dict[str, Any], failures: list[Failure]) -> None:
    """Write the flow function's own error, unless it is a task's that is told below."""
    error = run.get("error")
    if (
        not error
        or error_text(error).partition(":")[0] in _INTERRUPTS
        or any(failure.tells(error) for failure in failures)
    ):
        return
    write_failures(session.out, [Failure(error, [], 1)], width=session.width, full=session.verbose)


def _next_steps(run: dict[str, Any], failures: list[Failure]) -> list[str]:
    run_id = short(run["id"])
    lines = []
    if run["state"]["type"] not in FINAL and not run["stale"]:
        lines.append(f"Follow its log: penstock logs {run_id} -f")
    elif failures:
        lines.append(f"Look further: penstock tasks {run_id} --state failed")
    is_left = run["state"]["type"] in FINAL or run["stale"]
    if is_left and run["state"]["type"] != "COMPLETED" and run["parent_task_run_id"] is None:
        lines.append(f"Continue it: penstock resume {run_id}")
    return ["", *lines] if lines else []
