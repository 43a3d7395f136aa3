"""`penstock why`: why a task run ran, or did not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from penstock.cli.session import READ_OPTIONS, Session, with_session
from penstock.cli.text import clean
from penstock.core.why import Why, facts_of, why
from penstock.errors import RunNotFound
from penstock.history.base import EPOCH_BITS, HistoryReader

_MOST_UPSTREAMS = 50


@click.command("why")
@click.argument("run")
@click.argument("task", required=False)
@with_session(READ_OPTIONS)
def why_command(session: Session, run: str, task: str | None) -> None:
    """Say why a task run ran, or did not.

    RUN is a flow run and TASK the name of a task run in it, such as clean-417; or name a task run
    by one argument: its id, or RUN:TASK:NUMBER.
    """
    reader = session.reader()
    task_run = reader.find_task_run(_reference(run, task))
    told = _why(reader, task_run)
    if session.for_machines:
        session.emit(task_run_id=task_run["id"], **asdict(told))
        return
    out = session.out
    out.line(out.style(out.encodable(clean(task_run["name"])), "bold"))
    for line in (told.text, *told.more):
        out.line(f"  {out.encodable(clean(line))}")


def _reference(run: str, task: str | None) -> str:
    """Give what names the task run in one word."""
    if task is None:
        return run
    name, dash, number = task.rpartition("-")
    if not dash or not number.isdigit():
        raise click.UsageError(
            f"{clean(task)!r} is no task run: write its name, such as clean-417, or give its id "
            "as the only argument."
        )
    return f"{run}:{name}:{number}"


def _why(reader: HistoryReader, task_run: dict[str, Any]) -> Why:
    flow_run_id, maker = task_run["flow_run_id"], task_run.get("cached_from")
    epoch = 0
    if flow_run_id is not None:
        epoch = reader.find_flow_run(flow_run_id)["seq"] >> EPOCH_BITS
    upstream = task_run["upstream"][:_MOST_UPSTREAMS] if task_run["started_at"] is None else ()
    facts = facts_of(
        task_run,
        epoch,
        EPOCH_BITS,
        earlier=reader.task_runs_alike(task_run),
        upstreams=[row for row in (_found(reader, each) for each in upstream) if row is not None],
        maker=None if maker is None else _found(reader, maker),
    )
    return why(facts)


def _found(reader: HistoryReader, reference: str) -> dict[str, Any] | None:
    try:
        return reader.find_task_run(reference)
    except RunNotFound:
        return None
