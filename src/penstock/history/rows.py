"""Turn runs into rows of the history, in the column orders of `history/base.py`."""

from __future__ import annotations

import json
from typing import Any

from penstock.history.text import LONGEST_LOG_LINE, LONGEST_MESSAGE, LONGEST_NAME, clean_text
from penstock.runs import FlowRun, Run, TaskRun


def task_run_row(run: TaskRun, seq: int, flow_key: bytes | None) -> tuple[Any, ...]:
    """Give the row of a task run as it is now."""
    name = run.custom_name
    message = run.message
    if message is not None:
        message = clean_text(message, LONGEST_MESSAGE)
    return (
        run.key,
        flow_key,
        seq,
        run.task_number,
        run.number,
        None if name is None else clean_text(name, LONGEST_NAME),
        run.type.value,
        run.state_name,
        message,
        run.attempt,
        run.created_at,
        run.started_at,
        run.ended_at,
        run.identity,
        run.preview,
        run.kept,
        run.kept_codec,
        run.upstream or None,
        None if run.transitions is None else _transitions(run),
        _detail(run),
    )


def flow_run_row(
    run: FlowRun, seq: int, owner: tuple[str, int, int | None], release: str
) -> tuple[Any, ...]:
    """Give the row of a flow run as it is now."""
    parent = run.parent
    return (
        run.key,
        seq,
        clean_text(run.name, LONGEST_NAME),
        clean_text(run.definition.name, LONGEST_NAME),
        run.definition.key,
        run.version,
        run.type.value,
        run.state_name,
        None if run.message is None else clean_text(run.message, LONGEST_MESSAGE),
        run.created_at,
        run.started_at,
        run.ended_at,
        run.attempt,
        run.preview,
        _tags(run),
        run.runner,
        None if parent is None else parent.key,
        None if run.transitions is None else _transitions(run),
        None if run.error is None else json.dumps(run.error),
        run.kept,
        run.kept_codec,
        *owner,
        release,
    )


def log_row(run: Run | None, at: int, level: int, logger: str, message: str) -> tuple[Any, ...]:
    """Give the row of a log line that a run wrote."""
    flow_key, task_key, attempt = None, None, 0
    if isinstance(run, TaskRun):
        task_key, attempt = run.key, run.attempt
        flow_key = run.live.flow_run.key if run.live is not None else None
    elif run is not None:
        flow_key, attempt = run.key, run.attempt
    return (
        flow_key,
        task_key,
        attempt,
        at,
        level,
        clean_text(logger, LONGEST_NAME),
        clean_text(message, LONGEST_LOG_LINE),
    )


def _transitions(run: Run) -> str:
    passed: list[Any] = list(run.transitions or ())
    if run.is_over:
        passed.append((run.type.value, run.state_name, run.changed_at, run.message))
    return json.dumps(passed)


def _tags(run: Run) -> str | None:
    return (
        json.dumps(sorted(clean_text(tag, LONGEST_NAME) for tag in run.tags)) if run.tags else None
    )


def _detail(run: TaskRun) -> str | None:
    if not (run.error or run.tags or run.worker or run.parent_key or run.subflow_key):
        return None
    detail: dict[str, Any] = {
        "error": run.error,
        "tags": sorted(clean_text(tag, LONGEST_NAME) for tag in run.tags) or None,
        "worker": run.worker,
        "parent_task_run_id": None if run.parent_key is None else run.parent_key.hex(),
        "subflow_run_id": None if run.subflow_key is None else run.subflow_key.hex(),
    }
    return json.dumps({name: value for name, value in detail.items() if value is not None})
