"""Rows of the history as the plain dictionaries that `--json` prints.

The first keys of each shape, and their order, are part of the contract; more may follow them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import time_ns
from typing import Any

from penstock.history.staleness import Staleness
from penstock.states import FINAL_TYPES, to_datetime

_ID_LENGTH = 16
_FINAL = frozenset(state.value for state in FINAL_TYPES)
_IDS_IN_DETAIL = {"parent_task_run_id", "subflow_run_id", "cached_from"}
_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}

Row = Mapping[str, Any]


def id_text(id: bytes | None) -> str | None:
    """Give the UUID text of 16 bytes."""
    if id is None:
        return None
    digits = id.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def time_text(at: int | None) -> str | None:
    """Give the ISO 8601 text, with microseconds, of nanoseconds since 1970 (UTC)."""
    return None if at is None else to_datetime(at).isoformat(timespec="microseconds")


def is_final(row: Row) -> bool:
    """Tell whether the state of a row never changes again."""
    return row["state"] in _FINAL


def flow_run_shape(
    row: Row, counts: dict[str, int], staleness: Staleness | None = None
) -> dict[str, Any]:
    """Make the shape of a flow run.

    Args:
        row: the columns of `select_flow_runs.sql`.
        counts: how many of its task runs are in each state.
        staleness: why it is stale; None if it is not.
    """
    since = None if staleness is None else staleness.since
    return {
        "id": id_text(row["id"]),
        "name": row["name"],
        "flow": row["flow"],
        "state": _state(row),
        "parameters": _parsed(row["parameters"], {}),
        "tags": _parsed(row["tags"], []),
        "runner": row["runner"],
        **_times(row, staleness),
        "counts": counts,
        "stale": staleness is not None,
        "stale_since": time_text(since),
        "stale_reason": None if staleness is None else staleness.reason,
        "attempt": row["attempt"],
        "flow_key": row["flow_key"],
        "version": row["version"],
        "parent_task_run_id": id_text(row["parent_task_run_id"]),
        "states": _states(row),
        "error": _parsed(row["error"], None),
        "result_codec": row["result_codec"],
        "host": row["host"],
        "pid": row["pid"],
        "penstock_version": row["penstock_version"],
        "seq": row["seq"],
    }


def task_run_shape(row: Row) -> dict[str, Any]:
    """Make the shape of a task run from the columns of `select_task_runs.sql`."""
    detail = _parsed(row["detail"], {})
    for key in _IDS_IN_DETAIL & detail.keys():
        detail[key] = id_text(bytes.fromhex(detail[key]))
    upstream = row["upstream"] or b""
    times = _times(row)
    created_at = times.pop("created_at")
    return {
        "id": id_text(row["id"]),
        "name": row["name"] or f"{row['task']}-{row['number']}",
        "task": row["task"],
        "flow_run_id": id_text(row["flow_run_id"]),
        "state": _state(row),
        "attempt": row["attempt"],
        "worker": detail.pop("worker", None),
        **times,
        "upstream": [
            id_text(upstream[start : start + _ID_LENGTH])
            for start in range(0, len(upstream), _ID_LENGTH)
        ],
        "error": detail.pop("error", None),
        "number": row["number"],
        "created_at": created_at,
        "parameters": _parsed(row["parameters"], {}),
        "tags": detail.pop("tags", []),
        "states": _states(row),
        "identity": row["identity"] and row["identity"].hex(),
        "result_codec": row["result_codec"],
        "seq": row["seq"],
        **detail,
    }


def log_shape(row: Row) -> dict[str, Any]:
    """Make the shape of a log line from the columns of `logs_page.sql`."""
    level = row["level"]
    return {
        "at": time_text(row["at"]),
        "level": _LEVELS.get(level, f"Level {level}"),
        "message": row["message"],
        "logger": row["logger"],
        "flow_run_id": id_text(row["flow_run_id"]),
        "task_run_id": id_text(row["task_run_id"]),
        "attempt": row["attempt"],
        "position": row["position"],
    }


def _state(row: Row) -> dict[str, Any]:
    kind = row["state"]
    return {
        "type": kind,
        "name": row["state_name"] or kind.capitalize(),
        "message": row["message"],
    }


def _times(row: Row, staleness: Staleness | None = None) -> dict[str, Any]:
    """Give the times and the duration in seconds: up to now while it runs, None before.

    A run that is stale took until its last sign of life; where there was none nobody knows.
    """
    started, until = row["started_at"], row["ended_at"]
    if row["state"] not in _FINAL:
        until = time_ns() if staleness is None else staleness.since
    known = started is not None and until is not None
    return {
        "created_at": time_text(row["created_at"]),
        "started_at": time_text(started),
        "ended_at": time_text(row["ended_at"]),
        "duration": max(until - started, 0) / 1e9 if known else None,
    }


def _states(row: Row) -> list[dict[str, Any]]:
    """Give all states in order, the present one last; where they were not kept, times tell."""
    passed = _parsed(row["states"], None)
    if passed is None:
        passed = [("PENDING", None, row["created_at"], None)]
        if row["started_at"] is not None:
            passed.append(("RUNNING", None, row["started_at"], None))
    kind, name, at, _ = passed[-1]
    present = (row["state"], row["state_name"])
    if (kind, name) == present or (row["states"] is None and kind == row["state"]):
        passed[-1] = (*present, at, row["message"])
    else:
        passed.append((*present, row["ended_at"], row["message"]))
    return [
        {"type": kind, "name": name or kind.capitalize(), "at": time_text(at), "message": message}
        for kind, name, at, message in passed
    ]


def _parsed(text: str | None, missing: Any) -> Any:
    """Read JSON; text that does not parse counts as missing: one odd row must not hide the rest."""
    if not text:
        return missing
    try:
        return json.loads(text)
    except ValueError:
        return missing
