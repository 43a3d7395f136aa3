"""`penstock result`."""

from __future__ import annotations

import json
import zlib
from typing import Any

import click

from penstock.cli.exits import CommandError, Exit, Problem
from penstock.cli.session import READ_OPTIONS, Session, to_json, with_session
from penstock.cli.text import clean
from penstock.errors import RunNotFound
from penstock.history.base import HistoryReader
from penstock.history.references import id_digits
from penstock.results.references import STORED, read_kept, reference_of


@click.command()
@click.argument("run", default="@last")
@click.argument("task", required=False)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Save its bytes."
)
@with_session(READ_OPTIONS)
def result(session: Session, run: str, task: str | None, output: str | None) -> None:
    """Show the kept result of a flow run, or of a task run; nothing is ever unpickled.

    RUN is as for the other commands, or RUN:TASK:NUMBER. TASK is a task run of it, by its name
    (clean-417), as TASK:NUMBER, or by its id.
    """
    held, name = _held(session.reader(), run, task)
    if held is None:
        raise CommandError(
            Problem(
                Exit.NOT_FOUND,
                "no_result",
                f"No result of {clean(name)} is kept: it was large, or there is none.",
                "Large results are kept with persist_result=True.",
            )
        )
    if output is None:
        value = _plain_value(held, name)
        if session.for_machines:
            session.emit(result=value)
        else:
            session.out.stream.write(to_json(value, ascii_only=not session.out.unicode) + "\n")
        return
    data, serializer = read_kept(*held)
    with click.open_file(output, "wb") as file:
        file.write(data)
    session.talk(f"{len(data):,} bytes of {clean(serializer)} saved to {clean(output)}")


def _held(
    reader: HistoryReader, run: str, task: str | None
) -> tuple[tuple[bytes, str] | None, str]:
    """Give the kept result that is meant, and the name of its run."""
    if task is None and run.count(":") < 2:
        flow_run = reader.find_flow_run(run)
        return reader.kept_result(flow_run["id"]), flow_run["name"]
    task_run = reader.find_task_run(run if task is None else _reference(run, task))
    if task is not None and ":" not in _reference(run, task):
        flow_run = reader.find_flow_run(run)
        if task_run["flow_run_id"] != flow_run["id"]:
            raise RunNotFound(f"Task run {task!r} does not belong to flow run {run!r}.")
    return reader.kept_result(task_run["id"]), task_run["name"]


def _reference(run: str, task: str) -> str:
    name, _, number = task.rpartition(":")
    if name and number.isdecimal():
        return f"{run}:{task}"
    name, _, number = task.rpartition("-")
    if name and number.isdecimal() and id_digits(task) is None:
        return f"{run}:{name}:{number}"
    return task


def _plain_value(held: tuple[bytes, str], name: str) -> Any:
    """Give a result that is JSON; of any other only its bytes can be saved."""
    data, codec = held
    if codec == STORED:
        codec = reference_of(data).serializer
    if codec not in ("json", "compressed/json", "compressed/zlib/json"):
        raise CommandError(
            Problem(
                Exit.USAGE,
                "not_json",
                f"The result of {clean(name)} is kept as {clean(codec)}, which only the code that "
                "made it can make sense of.",
                'Save its bytes with -o FILE; keep it with result_serializer="json" to see it.',
            )
        )
    data, _ = read_kept(*held)
    return json.loads(data if codec == "json" else zlib.decompress(data))
