"""States and errors of the history in words and colours."""

from __future__ import annotations

from typing import Any

from penstock.cli.screen import Screen
from penstock.cli.tables import Cell
from penstock.cli.text import clean
from penstock.wording import error_text, state_word

__all__ = [
    "COUNT_WORDS",
    "FINAL",
    "counts_line",
    "error_text",
    "run_state_cell",
    "runner_word",
    "short",
    "state_cell",
    "state_styles",
    "state_word",
    "task_reference",
]
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
_COLOURS = {
    "COMPLETED": ("green",),
    "FAILED": ("red",),
    "CRASHED": ("magenta",),
    "CANCELLED": ("yellow",),
    "RUNNING": ("blue",),
    "CANCELLING": ("yellow",),
    "PAUSED": ("yellow",),
}
# How counts are listed, and what each is called.
COUNT_WORDS = {
    "RUNNING": "running",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CRASHED": "crashed",
    "CANCELLED": "cancelled",
    "CANCELLING": "being cancelled",
    "PAUSED": "paused",
    "SCHEDULED": "waiting to try again",
    "PENDING": "pending",
}


def state_styles(kind: str) -> tuple[str, ...]:
    """Give the colours of a state type."""
    return _COLOURS.get(kind, ())


def run_state_cell(run: dict[str, Any]) -> Cell:
    """Give a flow run's state for a table; one whose process is gone is stale."""
    return Cell("stale", ("magenta",)) if run.get("stale") else state_cell(run["state"])


def state_cell(state: dict[str, Any]) -> Cell:
    """Give a state for a table."""
    return Cell(state_word(state), state_styles(str(state["type"])))


def counts_line(counts: dict[str, int], screen: Screen, *, final: bool = False) -> str:
    """Say counts by state: "17 completed, 3 failed". What is pending at the end was not ready."""
    words = COUNT_WORDS | ({"PENDING": "not ready"} if final else {})
    return ", ".join(
        screen.style(f"{counts[kind]:,} {word}", *state_styles(kind))
        for kind, word in words.items()
        if counts.get(kind)
    )


def short(run_id: str) -> str:
    """Give the first letters of a flow run id, enough to tell runs apart."""
    return run_id[:8]


def task_reference(task_run: dict[str, Any]) -> str:
    """Give what `penstock task` takes for a task run: RUN:TASK:NUMBER, or its id."""
    flow_run_id, task = task_run.get("flow_run_id"), task_run.get("task")
    if not flow_run_id or not task or task_run.get("number") is None:
        return str(task_run["id"])
    return f"{short(str(flow_run_id))}:{task}:{task_run['number']}"


def runner_word(text: object) -> str:
    """Give a runner as `--runner` names it: "concurrent" for ConcurrentTaskRunner."""
    name = clean(str(text or ""))
    return name.removesuffix("TaskRunner").lower() if name.endswith("TaskRunner") else name
