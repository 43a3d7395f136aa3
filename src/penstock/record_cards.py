"""Recorded runs as HTML for notebooks, made from their shapes alone: nothing is read for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from penstock.cards import (
    badge,
    card,
    error,
    facts,
    message,
    progress,
    row,
    shown,
    table,
    title,
    unbroken,
)
from penstock.states import FINAL_TYPES
from penstock.wording import ago, duration, error_text, state_word, when

Shape = Mapping[str, Any]

_MOST_RUNS = 20
_SHORT_ID = 8
_MOST_PARAMETERS = 12
_MOST_TAGS = 12
# How counts are listed, and what each is called.
_COUNT_WORDS = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CRASHED": "crashed",
    "CANCELLED": "cancelled",
    "RUNNING": "running",
    "SCHEDULED": "waiting to try again",
    "PENDING": "pending",
}


def flow_run_card(run: Shape) -> str:
    """Show one flow run: its state, how far it is, its parameters, its error; below 50 KB."""
    return card(
        title(run["flow"], run["name"], _mark(run)),
        message(_said(run)),
        progress(run["counts"], _counts_words(run)),
        facts(_facts(run, [("runner", run["runner"])])),
        _error(run),
    )


def task_run_card(run: Shape) -> str:
    """Show one task run, in less than 50 KB."""
    attempt = run["attempt"] or 0
    more = [
        ("task", run["task"]),
        ("attempts", attempt if attempt > 1 else None),
        ("worker", run["worker"]),
        ("upstream", f"{len(run['upstream']):,} task runs" if run["upstream"] else None),
        ("flow run", run["flow_run_id"]),
    ]
    return card(
        title(run["name"], "task run", _mark(run)),
        message(_said(run)),
        facts(_facts(run, more)),
        _error(run),
    )


def flow_runs_card(runs: Sequence[Shape]) -> str:
    """Show flow runs as a table of the first twenty, in less than 50 KB."""
    if not runs:
        return card("No such runs.")
    headings = ["run", "name", "flow", "state", "started", "took", "tasks", ""]
    rows = [row(list(_cells(run))) for run in runs[:_MOST_RUNS]]
    left = len(runs) - _MOST_RUNS
    return card(table(headings, rows), f"<div>and {left:,} more</div>" if left > 0 else "")


def _cells(run: Shape) -> Iterator[str]:
    counts = run["counts"]
    number, done = sum(counts.values()), counts.get("COMPLETED", 0)
    yield unbroken(f"<code>{shown(run['id'][:_SHORT_ID])}</code>")
    yield f"<bdi>{shown(run['name'], 40)}</bdi>"
    yield f"<bdi>{shown(run['flow'], 40)}</bdi>"
    yield _mark(run)
    yield unbroken(shown(when(run["started_at"] or run["created_at"])))
    yield unbroken(shown(duration(run["duration"])))
    yield unbroken(f"{done:,}" if done == number else f"{done:,}/{number:,}")
    yield f"<bdi>{shown(_said(run) or '', 60)}</bdi>"


def _mark(run: Shape) -> str:
    if run.get("stale"):
        return badge("STALE", "stale")
    return badge(str(run["state"]["type"]), state_word(run["state"]))


def _said(run: Shape) -> str | None:
    """Give what is to be said of its state; nothing where the badge says it all."""
    if run.get("stale"):
        was, since = state_word(run["state"]), run["stale_since"]
        seen = f" (last sign of life {ago(since)})" if since else ""
        return f"It was {was}, but {run['stale_reason']}{seen}."
    state = run["state"]
    return None if state["type"] == "COMPLETED" else state["message"]


def _counts_words(run: Shape) -> str:
    counts, names = run["counts"], dict(_COUNT_WORDS)
    if run["state"]["type"] in FINAL_TYPES:
        names["PENDING"] = "not ready"
    words = [f"{counts[kind]:,} {word}" for kind, word in names.items() if counts.get(kind)]
    number = sum(counts.values())
    return f"{number:,} task run{'s' if number != 1 else ''}: {', '.join(words)}"


def _facts(run: Shape, more: Iterable[tuple[str, object]]) -> Iterator[tuple[object, object]]:
    started = run["started_at"]
    yield "started", f"{when(started)} ({ago(started)})" if started else "not yet"
    yield "took", duration(run["duration"])
    yield from more
    parameters = run["parameters"]
    if isinstance(parameters, Mapping):
        for name, value in islice(parameters.items(), _MOST_PARAMETERS):
            yield f"{name} =", value
        left = len(parameters) - _MOST_PARAMETERS
        yield "…", f"{left:,} more parameters" if left > 0 else None
    tags = [str(tag) for tag in run["tags"]]
    left = len(tags) - _MOST_TAGS
    words = [tag[:40] for tag in tags[:_MOST_TAGS]] + ([f"and {left} more"] if left > 0 else [])
    yield "tags", ", ".join(words)
    yield "id", run["id"]


def _error(run: Shape) -> str:
    found = run["error"]
    if not isinstance(found, Mapping):
        return ""
    return error(error_text(found), found.get("traceback"))
