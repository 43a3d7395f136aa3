"""Turn runs into rows of the history, in the column orders of `history/base.py`."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from penstock.core.previews import mask_secrets
from penstock.history.text import (
    LONGEST_LOG_LINE,
    LONGEST_MESSAGE,
    LONGEST_NAME,
    MOST_TAGS,
    clean_text,
)
from penstock.runs import FlowRun, Run, TaskRun
from penstock.states import StateType

_LARGEST = 2**63 - 1
_NOTHING_RARE = (None,) * 5


def task_run_row(
    run: TaskRun, type: StateType, seq: int, flow_key: bytes | None
) -> tuple[Any, ...]:
    """Give the row of a task run as it is now; a short one when the rare columns are empty.

    Args:
        type: its state type, which the caller counts as well; another thread may change the run.
    """
    last = run.last
    if last is None:
        state_name, message, ended_at = run.state_name, run.message, None
    else:
        state_name, message, ended_at = last.special_name, last.message, run.ended_at
    ordinary = (
        run.key,
        flow_key,
        seq,
        run.task_number,
        run.number,
        type.value,
        run.attempt,
        run.created_at,
        run.started_at,
        ended_at,
        run.identity,
        run.preview,
        run.kept,
        run.kept_codec,
        run.upstream or None,
    )
    name, detail = run.custom_name, _detail(run)
    if (name, state_name, message, run.transitions, detail) == _NOTHING_RARE:
        return ordinary
    return (
        *ordinary,
        None if name is None else clean_text(name, LONGEST_NAME),
        state_name,
        None if message is None else _message(message),
        None if run.transitions is None else _transitions(run),
        detail,
    )


def task_row(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the row of a task, whose last element may be the task itself.

    So it is here, in the writing thread, that its code is looked at.
    """
    *known, task = entry
    return (*known, task if task is None or isinstance(task, str) else task.source)


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
        None if run.message is None else _message(run.message),
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
        run.arguments,
        run.origin,
    )


def log_row(
    run: Run, attempt: int, at: int, level: int, logger: str, message: str
) -> tuple[Any, ...]:
    """Give the row of a log line that an attempt of a run wrote."""
    flow_key: bytes | None = run.key
    task_key = None
    if isinstance(run, TaskRun):
        task_key = run.key
        flow_key = run.live.flow_run.key if run.live is not None else None
    return (
        flow_key,
        task_key,
        attempt,
        at,
        min(level, _LARGEST),
        clean_text(logger, LONGEST_NAME),
        clean_text(mask_secrets(message), LONGEST_LOG_LINE),
    )


def _message(text: str) -> str:
    # Masked before it is cut: what is left of a secret would not be recognised.
    return clean_text(mask_secrets(text), LONGEST_MESSAGE)


def _transitions(run: Run) -> str:
    """Tell all states; `transitions` alone misses the last one."""
    passed: list[Any] = list(run.transitions or ())
    last = run.last
    if last is not None:
        passed.append((last.type.value, last.special_name, last.at, last.message))
    return json.dumps(
        [(type, name, at, text and _message(text)) for type, name, at, text in passed]
    )


def _tags(run: Run) -> str | None:
    return json.dumps(_tag_list(run)) if run.tags else None


def _tag_list(run: Run) -> list[str]:
    return sorted(clean_text(str(tag), LONGEST_NAME) for tag in run.tags)[:MOST_TAGS]


def _cache_detail(note: Any) -> dict[str, str | None]:
    key = None if note.key is None else clean_text(note.key, LONGEST_MESSAGE)
    found = None if note.found is None else note.found.run_key.hex()
    return {"cache": note.how, "cache_key": key, "cached_from": found}


@lru_cache(maxsize=1024)
def _worker_detail(worker: str) -> str:
    """Give the detail of a run of which only the worker is worth telling."""
    return json.dumps({"worker": worker})


def _detail(run: TaskRun) -> str | None:
    if not (run.error or run.tags or run.parent_key or run.subflow_key or run.cache):
        return None if run.worker is None else _worker_detail(run.worker)
    detail: dict[str, Any] = {
        "error": run.error,
        "tags": _tag_list(run) or None,
        "worker": run.worker,
        "parent_task_run_id": None if run.parent_key is None else run.parent_key.hex(),
        **({} if run.cache is None else _cache_detail(run.cache)),
        "subflow_run_id": None if run.subflow_key is None else run.subflow_key.hex(),
    }
    return json.dumps({name: value for name, value in detail.items() if value is not None})
