"""Failures of a flow run, grouped: what failed in the same way at the same place is told once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from penstock.cli.screen import Screen
from penstock.cli.text import clean, clean_lines, cut
from penstock.cli.tracebacks import frame_lines, frames_in, same_error
from penstock.cli.words import error_text, task_reference
from penstock.history.base import HistoryReader

# A run with more failures than this is not read to its end to describe them.
MOST_READ = 10_000
_UPSTREAM = re.compile("^Upstream task run '([^']+)' did not reach")
_MOST_NAMED = 5
_MOST_GROUPS = 5


@dataclass
class Failure:
    """Failures of one kind at one place; the first error and the first task runs are kept."""

    error: dict[str, Any]
    task_runs: list[dict[str, Any]]
    count: int
    not_ready: int = 0  # task runs that were never started because they need these
    texts: set[str] = field(default_factory=set)  # the errors, in one line each

    def tells(self, error: dict[str, Any]) -> bool:
        """Whether another error, of the flow, is this one."""
        return self.has_text(error_text(error))

    def has_text(self, text: str) -> bool:
        """Whether one of these reads like this, in its first line."""
        text = _first_line(text)
        return text in self.texts or text == _first_line(error_text(self.error))

    def to_dict(self) -> dict[str, Any]:
        """Give the shape of `--json`."""
        ids = [task_run["id"] for task_run in self.task_runs]
        return {"error": self.error, "count": self.count, "task_run_ids": ids}


def collect(
    reader: HistoryReader, flow_run_id: str, counts: dict[str, dict[str, int]]
) -> list[Failure]:
    """Read and group the failed and crashed task runs, the largest group first."""
    groups: dict[tuple[object, ...], Failure] = {}
    failed: dict[str, Failure] = {}

    def read(state: str) -> Iterator[dict[str, Any]]:
        if any(states.get(state) for states in counts.values()):
            yield from islice(reader.task_runs(flow_run_id, state=state), MOST_READ)

    for task_run in (*read("FAILED"), *read("CRASHED")):
        failed[task_run["id"]] = _add(groups, task_run)
    if failed:
        _count_not_ready(failed, read("PENDING"))
    return sorted(groups.values(), key=lambda failure: -failure.count)


def _add(groups: dict[tuple[object, ...], Failure], task_run: dict[str, Any]) -> Failure:
    error = error_of(task_run)
    failure = groups.setdefault(same_error(error), Failure(error, [], 0))
    failure.count += 1
    failure.texts.add(_first_line(error_text(error)))
    if len(failure.task_runs) < 100:
        failure.task_runs.append(task_run)
    return failure


def _count_not_ready(failed: dict[str, Failure], pending: Iterable[dict[str, Any]]) -> None:
    """Count task runs that were not ready with the failure which they need, in the end."""
    needed: dict[str, str] = {}
    for task_run in pending:
        if match := _UPSTREAM.search(task_run["state"].get("message") or ""):
            needed[task_run["id"]] = match[1]
    for upstream in needed.values():
        seen = set()
        while upstream in needed and upstream not in seen:
            seen.add(upstream)
            upstream = needed[upstream]
        if upstream in failed:
            failed[upstream].not_ready += 1


def error_of(task_run: dict[str, Any]) -> dict[str, Any]:
    """Give a task run's error; a state without an exception stands for itself."""
    error = task_run.get("error")
    if isinstance(error, dict):
        return error
    state = task_run["state"]
    message = state.get("message") or ""
    # "Failed: 1/3 states failed." would say it twice.
    kind = "" if message and state["name"] in ("Failed", "Crashed") else state["name"]
    return {"type": kind, "message": message, "traceback": ""}


def write_failures(
    screen: Screen, failures: list[Failure], *, width: int | None, full: bool = False
) -> None:
    """Write each group: the error and how often, the user's lines, where to look further."""
    for failure in failures[:_MOST_GROUPS]:
        screen.line()
        for number, line in enumerate(failure_lines(screen, failure, full=full)):
            line = screen.encodable(line)
            line = line if width is None else cut(line, width, screen.symbol("more"))
            screen.line(screen.style(line, "red") if not number else line)
    if len(failures) > _MOST_GROUPS:
        rest = failures[_MOST_GROUPS:]
        number = sum(failure.count for failure in rest)
        screen.line()
        screen.line(f"and {number:,} more failures in {len(rest)} other ways")


def failure_lines(screen: Screen, failure: Failure, *, full: bool = False) -> list[str]:
    """Describe a group; the first line stands alone.

    Args:
        full: with the whole traceback, Penstock's and libraries' frames included.
    """
    traceback = str(failure.error.get("traceback") or "")
    lines = [f"{screen.symbol('failed')} {_headline(failure)}"]
    if full and traceback:
        lines += [f"    {line}" for line in clean_lines(traceback.rstrip())]
    else:
        lines += [f"    {clean(line)}" for line in frame_lines(frames_in(traceback))]
    if failure.count > 1:
        lines.append(f"    {_named(failure)}")
    if failure.not_ready:
        lines.append(f"    {_not_ready(failure)}")
    if failure.task_runs:
        lines.append(f"    Look: penstock task {clean(task_reference(failure.task_runs[0]))}")
    return lines


def _headline(failure: Failure) -> str:
    what = clean(error_text(failure.error))
    if not failure.task_runs:
        return f"FlowFailed: {what}"
    first = failure.task_runs[0]
    crashed = first["state"]["type"] == "CRASHED"
    word = "TaskCrashed" if crashed else "TaskFailed"
    if failure.count > 1:
        others = " (others read differently)" if len(failure.texts) > 1 else ""
        how = "crashed" if crashed else "failed"
        return f"{word}: {failure.count:,} task runs {how}: {what}{others}"
    attempt = first.get("attempt") or 1
    after = f" after {attempt} attempts" if attempt > 1 else ""
    return f"{word}: {clean(first['name'])} {'crashed' if crashed else 'failed'}{after}: {what}"


def _named(failure: Failure) -> str:
    names = ", ".join(clean(task_run["name"]) for task_run in failure.task_runs[:_MOST_NAMED])
    rest = failure.count - min(_MOST_NAMED, len(failure.task_runs))
    return f"{names} and {rest:,} more" if rest else names


def _not_ready(failure: Failure) -> str:
    number = failure.not_ready
    were = "1 task run was" if number == 1 else f"{number:,} task runs were"
    they = "it needs" if number == 1 else "they need"
    what = clean(failure.task_runs[0]["name"]) if failure.count == 1 else "one of these"
    return f"{were} not ready because {they} {what}."


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]
