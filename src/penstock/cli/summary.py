"""What is said at the end of a run: a line per task, what failed and why, what next."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.cli.failures import Failure, collect, write_failures
from penstock.cli.progress import Counts, total_of
from penstock.cli.screen import Screen
from penstock.cli.session import Session
from penstock.cli.tables import Cell, Column, Row, write_table
from penstock.cli.text import clean, cut, duration
from penstock.cli.tracebacks import describe, failure_lines
from penstock.cli.words import (
    counts_line,
    short,
    state_styles,
    state_word,
    task_reference,
)
from penstock.history.base import HistoryReader

# Task runs whose durations are read; a larger run has its counts told alone.
MOST_READ = 20_000
_SLOWEST = 5
_MOST_STOPPED = 8
_MOST_TASKS = 30


@dataclass
class Ending:
    """How a run ended, as far as this process knows.

    Attributes:
        flow_run: what the history knows of it, in the shape of `--json`; None: not recorded.
        problem: the exception that the caller of the flow would have got.
        result: what a completed flow gave.
        stopped: names of the task runs that an interrupt found running.
    """

    flow_name: str
    state: dict[str, Any]
    flow_run: dict[str, Any] | None = None
    problem: BaseException | None = None
    result: Any = None
    counts: Counts = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    slowest: list[dict[str, Any]] = field(default_factory=list)
    medians: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False
    stopped: list[str] = field(default_factory=list)


def read_ending(
    ending: Ending, reader: HistoryReader, flow_run_id: str, *, times: bool = True
) -> None:
    """Fill in what the history knows.

    Args:
        times: also what is known from the times of every task run, which takes longer.
    """
    ending.flow_run = reader.find_flow_run(flow_run_id)
    ending.counts = reader.counts(flow_run_id)
    ending.failures = collect(reader, flow_run_id, ending.counts)
    if times and sum(total_of(ending.counts).values()) <= MOST_READ:
        _read_times(ending, reader, flow_run_id)


def _read_times(ending: Ending, reader: HistoryReader, flow_run_id: str) -> None:
    durations: dict[str, list[float]] = {}
    timed = []
    for task_run in reader.task_runs(flow_run_id):
        seconds = task_run.get("duration")
        if ending.interrupted and task_run["state"]["type"] != "COMPLETED" and seconds is not None:
            ending.stopped.append(task_run["name"])
        if seconds is not None:
            durations.setdefault(task_run["task"], []).append(seconds)
            timed.append(task_run)
    ending.medians = {name: sorted(each)[len(each) // 2] for name, each in durations.items()}
    timed.sort(key=lambda task_run: -float(task_run["duration"]))
    ending.slowest = timed[:_SLOWEST]


def write_summary(session: Session, ending: Ending) -> None:
    """Tell people how a run ended, on stderr."""
    screen = session.err
    if not session.quiet:
        screen.line()
        _write_headline(screen, ending)
        _write_tasks(screen, ending)
        _write_stopped(screen, ending)
    _write_problem(session, ending)
    write_failures(screen, ending.failures, width=screen.width, full=session.verbose)
    if not session.quiet:
        _write_slowest(screen, ending)
        _write_result(screen, ending)
        _write_next(screen, ending)


def _write_headline(screen: Screen, ending: Ending) -> None:
    run = ending.flow_run
    dot = f" {screen.symbol('dot')} "
    names = [ending.flow_name] if run is None else [run["flow"], run["name"], short(run["id"])]
    title = screen.encodable(dot.join(map(clean, names)))
    done = ending.state["type"] == "COMPLETED"
    mark = screen.symbol("ok" if done else "failed")
    styles = state_styles(ending.state["type"])
    took = duration(run.get("duration")) if run else ""
    said = state_word(ending.state) + (f" in {took}" if took else "")
    line = f"{screen.style(mark, *styles)} {screen.style(title, 'bold')} {said}"
    message = ending.state.get("message")
    # What the flow raised is told below, in full.
    if message and not done and not (ending.problem and describe(ending.problem) in message):
        line += f": {screen.encodable(clean(message))}"
    screen.line(line)


def _write_tasks(screen: Screen, ending: Ending) -> None:
    if not ending.counts:
        return
    screen.line()
    columns = [
        Column("TASK", need=9, least=8),
        Column("DONE", need=8, right=True),
        Column("REST", need=7),
        Column("P50", need=6, right=True),
    ]
    names = list(ending.counts)[:_MOST_TASKS]
    write_table(screen, columns, [_task_row(screen, ending, name) for name in names], screen.width)
    if len(names) < len(ending.counts):
        screen.line(f"and {len(ending.counts) - len(names):,} tasks more")


def _task_row(screen: Screen, ending: Ending, name: str) -> Row:
    counts = ending.counts[name]
    done, number = counts.get("COMPLETED", 0), sum(counts.values())
    rest = {state: count for state, count in counts.items() if state != "COMPLETED"}
    words = counts_line(rest, Screen(screen.stream, no_color=True), final=True)
    styles = ("red",) if rest.get("FAILED") or rest.get("CRASHED") else ("yellow",)
    median = ending.medians.get(name)
    return [name, f"{done:,}/{number:,}", Cell(words, styles), duration(median)]


def _write_stopped(screen: Screen, ending: Ending) -> None:
    if not ending.stopped:
        return
    names = ", ".join(map(clean, ending.stopped[:_MOST_STOPPED]))
    more = len(ending.stopped) - _MOST_STOPPED
    screen.line()
    screen.line("Stopped while running: " + screen.encodable(names) + _and_more(more))


def _and_more(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""


def _write_problem(session: Session, ending: Ending) -> None:
    """Write what the flow function itself raised, unless it is a task's that is told anyway."""
    problem = ending.problem
    if problem is None or _is_told(problem, ending.failures):
        return
    screen = session.err
    if session.verbose:
        import traceback

        lines = "".join(traceback.format_exception(problem)).rstrip().split("\n")
    else:
        headline = f"FlowFailed: {ending.flow_name} failed: {describe(problem)}"
        lines = failure_lines(headline, problem)
    screen.line()
    for number, line in enumerate(lines):
        text = screen.encodable(clean(line))
        text = cut(text, screen.width or len(text) * 2, screen.symbol("more"))
        screen.line(text if number else screen.style(text, "red"))


def _is_told(problem: BaseException, failures: Sequence[Failure]) -> bool:
    """Tell whether a task's failure is this very exception."""
    return any(failure.has_text(describe(problem)) for failure in failures)


def _write_slowest(screen: Screen, ending: Ending) -> None:
    # With a handful of task runs the table above says it all.
    if len(ending.slowest) < _SLOWEST:
        return
    screen.line()
    screen.line("Slowest")
    rows: list[Row] = [
        [
            f"  {task_run['name']}",
            duration(task_run["duration"]),
            Cell(f"penstock task {task_reference(task_run)}", ("dim",)),
        ]
        for task_run in ending.slowest
    ]
    columns = [Column("", need=9, least=8), Column("", need=8, right=True), Column("", need=3)]
    write_table(screen, columns, rows, screen.width, titles=False)


def _write_result(screen: Screen, ending: Ending) -> None:
    if ending.result is None:
        return
    try:
        text = clean(_short_repr.repr(ending.result))
    except Exception:
        return
    screen.line()
    text = screen.encodable(text)
    screen.line("Result  " + cut(text, (screen.width or 100) - 8, screen.symbol("more")))


_short_repr = reprlib.Repr()
_short_repr.maxstring = _short_repr.maxother = 200


def _write_next(screen: Screen, ending: Ending) -> None:
    if ending.flow_run is None:
        return
    run_id = short(ending.flow_run["id"])
    screen.line()
    screen.line(f"Next: penstock show {run_id}")
    if ending.state["type"] != "COMPLETED":
        screen.line(f"Fix and continue: penstock resume {run_id}")
