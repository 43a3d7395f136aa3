"""Rows of runs: in the published column order, clean, bounded, and true at every moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from time import time_ns
from typing import Any

from penstock.history.base import FLOW_RUN_COLUMNS, LOG_COLUMNS, TASK_RUN_COLUMNS
from penstock.history.rows import flow_run_row, log_row, task_run_row
from penstock.ids import new_flow_run_key, new_task_run_key
from penstock.runs import FlowRun, TaskRun
from penstock.states import State, StateType


class Definition:
    """A task or flow as far as runs know it."""

    name = "load"
    key = "census.load"
    is_async = False
    parameter_names: tuple[str, ...] = ()
    hooks: Mapping[StateType, Sequence[Callable[..., Any]]] = {}


def new_task_run() -> TaskRun:
    now = time_ns()
    return TaskRun(Definition(), new_task_run_key(now), now)


def new_flow_run() -> FlowRun:
    return FlowRun(Definition(), new_flow_run_key(), time_ns(), "brave-otter")


def row_of(run: TaskRun) -> dict[str, Any]:
    type = run.type if run.last is None else run.last.type
    row = task_run_row(run, type, 7, b"f")
    return dict(zip_longest(TASK_RUN_COLUMNS, row))


def flow_row_of(run: FlowRun) -> dict[str, Any]:
    row = flow_run_row(run, 7, ("host", 1, 2), "0.1.0")
    return dict(zip(FLOW_RUN_COLUMNS, row, strict=True))


def test_pending_running_and_completed() -> None:
    run = new_task_run()
    assert (row_of(run)["state"], row_of(run)["started_at"]) == ("PENDING", None)
    run.type, run.started_at, run.attempt = StateType.RUNNING, 5, 1
    assert (row_of(run)["state"], row_of(run)["ended_at"]) == ("RUNNING", None)
    run.close(State(StateType.COMPLETED, at=9, run_key=run.key))
    row = row_of(run)
    assert (row["state"], row["state_name"], row["ended_at"]) == ("COMPLETED", None, 9)
    assert row["states"] is None  # the times tell it all


def test_end_is_told_as_it_was_decided_whatever_happens_later() -> None:
    run = new_task_run()
    run.close(State(StateType.CANCELLED, message="stopped", at=9))
    run.type, run.message = StateType.RUNNING, None
    row = row_of(run)
    assert (row["state"], row["message"], row["ended_at"]) == ("CANCELLED", "stopped", 9)


def test_states_of_a_retried_run_are_complete() -> None:
    run = new_task_run()
    run.type, run.started_at = StateType.RUNNING, 5
    run.enter(StateType.SCHEDULED, 6, "AwaitingRetry", "it failed")
    assert row_of(run)["message"] == "it failed"
    run.enter(StateType.RUNNING, 7, "Retrying")
    assert row_of(run)["message"] is None
    run.close(State(StateType.FAILED, message="password=hunter2", at=8))
    assert json.loads(row_of(run)["states"]) == [
        ["PENDING", None, run.created_at, None],
        ["RUNNING", None, 5, None],
        ["SCHEDULED", "AwaitingRetry", 6, "it failed"],
        ["RUNNING", "Retrying", 7, None],
        ["FAILED", None, 8, "password=********"],
    ]


def test_not_ready_has_no_end() -> None:
    run = new_task_run()
    run.close(State(StateType.PENDING, "NotReady", "Upstream"))
    row = row_of(run)
    assert (row["state"], row["state_name"], row["ended_at"]) == ("PENDING", "NotReady", None)


def test_details_that_are_rare() -> None:
    run = new_task_run()
    assert row_of(run)["detail"] is None
    run.tags = frozenset({"b", "a", "x" * 999})
    run.parent_key = run.subflow_key = run.key
    detail = json.loads(row_of(run)["detail"])
    assert detail["tags"][:2] == ["a", "b"]
    assert len(detail["tags"][2]) == 200
    assert detail["parent_task_run_id"] == detail["subflow_run_id"] == run.key.hex()
    assert "worker" not in detail


def test_no_more_tags_than_the_limit() -> None:
    run = new_flow_run()
    run.tags = frozenset(str(number) for number in range(500))
    assert len(json.loads(flow_row_of(run)["tags"])) == 64


def test_flow_run_row() -> None:
    run = new_flow_run()
    run.parent = new_task_run()
    row = flow_row_of(run)
    assert row["parent_task_run_id"] == run.parent.key
    assert (row["host"], row["pid"], row["pid_started_at"]) == ("host", 1, 2)
    assert (row["name"], row["flow"], row["flow_key"]) == ("brave-otter", "load", "census.load")


def test_message_is_masked_before_it_is_cut() -> None:
    run = new_task_run()
    text = "x" * 3_000 + " password=" + "hunter2" * 200 + "x" * 3_000
    run.close(State(StateType.FAILED, message=text))
    message = row_of(run)["message"]
    assert len(message) <= 4_096
    assert "hunter2" not in message


def test_log_rows() -> None:
    run = new_task_run()
    row = dict(zip(LOG_COLUMNS, log_row(run, 2, 5, 10**30, "a\0b", "x\x1b token=abc"), strict=True))
    assert row["flow_run_id"] is None
    assert row["task_run_id"] == run.key
    assert (row["attempt"], row["at"], row["level"]) == (2, 5, 2**63 - 1)
    assert (row["logger"], row["message"]) == ("a\u2400b", "x\\x1b token=********")
    flow_run = new_flow_run()
    row = dict(zip(LOG_COLUMNS, log_row(flow_run, 1, 5, 20, "x", "y"), strict=True))
    assert row["flow_run_id"] == flow_run.key
    assert row["task_run_id"] is None
