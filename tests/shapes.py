"""What may stand in the columns of a history: the part of the checker that looks at single rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from penstock.results.small import decode_small

if TYPE_CHECKING:
    from tests.checker import History

Row = dict[str, Any]

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
STATES = FINAL | {"SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"}
NAMES_OF_STATES: dict[str, set[str | None]] = {
    "SCHEDULED": {"AwaitingRetry"},
    "PENDING": {None, "NotReady"},
    "RUNNING": {None, "Retrying"},
    "COMPLETED": {None, "Cached"},
    "FAILED": {None, "TimedOut"},
    "CANCELLED": {None},
    "CRASHED": {None},
}
_FIRST_TIME, _LAST_TIME = 10**18, 2 * 10**18  # 2001 and 2033, in nanoseconds


def misshapen(history: History) -> Iterator[str]:
    """Give the columns that hold what they cannot hold."""
    tables: list[tuple[str, list[Row], dict[str, Callable[[Any], bool]]]] = [
        ("flow_runs", list(history.flow_runs.values()), FLOW_RUNS),
        ("task_runs", list(history.task_runs.values()), TASK_RUNS),
        ("tasks", list(history.tasks.values()), TASKS),
        ("logs", history.logs, LOGS),
        ("leases", list(history.leases.values()), LEASES),
    ]
    for table, rows, columns in tables:
        for row in rows:
            for column, fits in columns.items():
                if not fits(row[column]):
                    yield f"shaped: a row of {table} has {row[column]!r} as its {column}"
    for (_, _, state), number in history.counts.items():
        if state not in STATES or not isinstance(number, int) or number < 0:
            yield f"shaped: {number!r} task runs are counted as {state!r}"


def contradictory(row: Row) -> Iterator[str]:
    """Give what does not go with the state of a run whose columns are well shaped."""
    state, name, told = row["state"], row["state_name"], row["id"].hex()[-8:]
    usual = NAMES_OF_STATES.get(state)
    if state in ("COMPLETED", "PENDING", "RUNNING") and usual and name not in usual:
        yield f"shaped: {told} is {state} and named {name!r}"
    if state in ("FAILED", "CRASHED", "CANCELLED") and not row["message"]:
        yield f"shaped: {told} is {state} without a message"
    if "task" in row and bool(row["attempt"]) != (row["started_at"] is not None):
        yield f"shaped: {told} started at {row['started_at']}, in {row['attempt']} attempts"
    if (row["result"] is None) != (row["result_codec"] is None):
        yield f"shaped: {told} has the result {row['result']!r} as {row['result_codec']!r}"
    elif row["result"] is not None and state != "COMPLETED":
        yield f"shaped: {told} is {state} and has a result"
    elif row["result_codec"] in ("json", "pickle"):
        try:
            decode_small(row["result"], row["result_codec"])
        except Exception as exc:
            yield f"shaped: the result of {told} cannot be read: {exc!r}"
    error = row["error"] if "error" in row else json.loads(row["detail"] or "{}").get("error")
    if error is not None and state in ("COMPLETED", "PENDING", "RUNNING"):
        yield f"shaped: {told} is {state} and has an error"
    if state == "FAILED" and name is None and error is None and "task" in row:
        yield f"shaped: {told} is FAILED and has no error"


def _is_id(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 16 and any(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and _FIRST_TIME < value < _LAST_TIME


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _holds(kind: type) -> Callable[[Any], bool]:
    def is_json(value: Any) -> bool:
        try:
            return isinstance(value, str) and isinstance(json.loads(value), kind)
        except ValueError:
            return False

    return is_json


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) > 0 and len(value) % 16 == 0


_RUN: dict[str, Callable[[Any], bool]] = {
    "id": _is_id,
    "seq": _is_positive,
    "state": lambda value: value in STATES,
    "state_name": _or_none(_is_text),
    "message": _or_none(lambda value: isinstance(value, str)),
    "started_at": _or_none(_is_time),
    "ended_at": _or_none(_is_time),
    "attempt": _is_count,
    "created_at": _is_time,
    "parameters": _holds(dict),
    "states": _or_none(_holds(list)),
    "result": _or_none(lambda value: isinstance(value, bytes)),
    "result_codec": lambda value: value in (None, "json", "pickle", "stored"),
}
FLOW_RUNS = _RUN | {
    "name": _is_text,
    "flow": _is_text,
    "flow_key": _is_text,
    "version": _or_none(_is_text),
    "tags": _or_none(_holds(list)),
    "runner": lambda value: isinstance(value, str) and value.endswith("Runner"),
    "parent_task_run_id": _or_none(_is_id),
    "error": _or_none(_holds(dict)),
    "host": _is_text,
    "pid": _is_positive,
    "pid_started_at": _is_positive,
    "penstock_version": _is_text,
    "arguments": _or_none(lambda value: isinstance(value, bytes) and value != b""),
    "origin": _or_none(_holds(dict)),
}
TASK_RUNS = _RUN | {
    "flow_run_id": _or_none(_is_id),
    "task": lambda value: isinstance(value, int) and value != 0,
    "number": _is_count,
    "identity": _or_none(lambda value: isinstance(value, bytes) and len(value) >= 16),
    "upstream": _or_none(_are_ids),
    "name": _or_none(_is_text),
    "detail": _or_none(_holds(dict)),
}
TASKS: dict[str, Callable[[Any], bool]] = {
    "flow_run_id": lambda value: isinstance(value, bytes) and len(value) == 16,
    "number": lambda value: isinstance(value, int) and value != 0,
    "key": _is_text,
    "name": _is_text,
    "source": _or_none(_is_text),
}
LOGS: dict[str, Callable[[Any], bool]] = {
    "position": _is_positive,
    "flow_run_id": _or_none(_is_id),
    "task_run_id": _or_none(_is_id),
    "attempt": _or_none(_is_count),
    "at": _is_time,
    "level": lambda value: isinstance(value, int),
    "logger": _or_none(_is_text),
    "message": lambda value: isinstance(value, str),
}
LEASES: dict[str, Callable[[Any], bool]] = {
    "flow_run_id": _is_id,
    "epoch": _is_count,
    "counter": _is_count,
    "beat_at": _is_time,
    "host": _or_none(_is_text),
    "pid": _or_none(_is_positive),
    "pid_started_at": _or_none(_is_positive),
}
