"""`penstock bench`: the same flow on several task runners, compared."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

import click

from penstock.cli.exits import Exit, usage_error
from penstock.cli.figures import Figures, Trial, recommendation, take_task_runs
from penstock.cli.loading import (
    LoadingFailed,
    find_flow,
    load_file,
    parameter_option,
    read_parameters,
    split_target,
)
from penstock.cli.run import Outcome, call, stdout_on_stderr, write_loading
from penstock.cli.runners import RUNNERS, make_runner, runner_names
from penstock.cli.session import RUN_OPTIONS, Session, with_session
from penstock.cli.stopping import Stopping
from penstock.cli.tables import Cell, Column, Row, write_table
from penstock.cli.text import clean, duration
from penstock.cli.words import COUNT_WORDS, state_styles, state_word


@click.command()
@click.argument("target", metavar="FILE.py[:FLOW]")
@parameter_option
@click.option(
    "--runner",
    "runners",
    metavar="NAME",
    multiple=True,
    help=f"A task runner to compare: {runner_names()}. May be given again; default: those "
    "that are installed.",
)
@click.option(
    "--repeat",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="How many flow runs on each.",
)
@with_session(RUN_OPTIONS)
def bench(
    session: Session,
    target: str,
    parameters: tuple[str, ...],
    runners: tuple[str, ...],
    repeat: int,
) -> int:
    """Run a flow on several task runners and compare them.

    Every flow run is recorded like any other, and shown by `penstock ls`. What the flow prints
    goes to stderr. Tasks with a runner of their own stay on it.
    """
    _require_recording()
    chosen = runners or tuple(name for name, choice in RUNNERS.items() if choice.is_installed)
    # Whatever cannot be used is said before anything runs.
    made = {name: make_runner(name) for name in dict.fromkeys(chosen)}
    file, name = split_target(target)
    stopping = Stopping(session.err.line)
    with stdout_on_stderr(True), stopping.watched():
        try:
            flow = find_flow(load_file(file), name)
        except LoadingFailed as exc:
            write_loading(session, exc)
            return Exit.FAILED
        values = read_parameters(parameters, flow.fn)
        compared, code = _compare(session, flow, values, made, repeat, stopping)
    _write(session, flow.name, compared)
    return code


def _require_recording() -> None:
    from penstock.settings import load_settings

    if not load_settings().record:
        raise usage_error(
            "The figures are taken from the history, and recording is off.",
            "Leave PENSTOCK_RECORD=off out.",
        )


def _compare(
    session: Session,
    flow: Any,
    values: dict[str, Any],
    made: dict[str, Any],
    repeat: int,
    stopping: Stopping,
) -> tuple[list[Figures], int]:
    """Run the flow on each runner; give the figures so far and the first exit code but 0."""
    compared: list[Figures] = []
    code = 0
    for name, runner in made.items():
        figures = Figures(name)
        placed = flow.with_options(task_runner=runner)
        for number in range(1, repeat + 1):
            outcome, trial = _try(session, placed, values, stopping)
            code = code or outcome.exit
            if outcome.interrupted:
                return compared, code
            figures.trials.append(trial)
            session.talk(f"{name} {number}/{repeat}: {duration(trial.wall_seconds)}")
            if not trial.is_completed:
                # It would fail again, and its time says nothing.
                break
        compared.append(figures)
    return compared, code


def _try(
    session: Session, flow: Any, values: dict[str, Any], stopping: Stopping
) -> tuple[Outcome, Trial]:
    began = perf_counter()
    outcome = call(flow, partial(flow, **values, return_state=True), stopping)
    seconds = perf_counter() - began
    state = outcome.state
    trial = Trial({"type": state.type.value, "name": state.name, "message": state.message}, seconds)
    if state.run_id is not None:
        trial.flow_run_id = str(state.run_id)
        take_task_runs(trial, session.reader().task_runs(trial.flow_run_id))
    return outcome, trial


def _write(session: Session, flow_name: str, compared: list[Figures]) -> None:
    if not compared:
        return
    order = list(RUNNERS)
    compared.sort(key=lambda figures: order.index(figures.runner.partition(":")[0]))
    runner, reason = recommendation(compared)
    if session.json:
        session.emit(
            flow=flow_name,
            runners=[figures.to_dict() for figures in compared],
            recommendation={"runner": runner, "reason": reason},
        )
        return
    columns = [
        Column("RUNNER", need=9),
        Column("WALL", need=8, right=True),
        Column("TASK RUNS", need=5, right=True),
        Column("PER SECOND", need=6, right=True),
        Column("IN TASKS", need=3, right=True),
        Column("WORKERS", need=2, right=True),
        Column("OVERHEAD", need=4, right=True),
        Column("STATE", need=7, least=10),
    ]
    rows = [_row(figures) for figures in compared]
    write_table(session.out, columns, rows, session.width)
    session.out.line()
    session.out.line(clean(f"Recommended: {runner or 'none'}, because {reason}."))


def _row(figures: Figures) -> Row:
    trial = figures.typical
    share = trial.overhead_share
    return [
        figures.runner,
        duration(trial.wall_seconds),
        f"{trial.task_runs:,}",
        f"{trial.task_runs / trial.wall_seconds:,.0f}",
        duration(trial.task_seconds),
        str(trial.workers),
        "" if share is None else f"{share:.0%}",
        Cell(_said(trial), state_styles(trial.state["type"])),
    ]


def _said(trial: Trial) -> str:
    """Say how the flow run ended, and how its task runs did where not all completed."""
    said = state_word(trial.state)
    if trial.is_completed:
        return said
    words = COUNT_WORDS | {"PENDING": "not ready"}
    rest = [
        f"{number:,} {words.get(state, state.lower())}"
        for state, number in trial.counts.items()
        if state != "COMPLETED"
    ]
    counted = f" ({', '.join(rest)})" if rest else ""
    return f"{said}: {trial.state['message'] or ''}{counted}"
