"""What the history holds of the latest flow run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from penstock.history.base import HistoryReader
from penstock.history.stores import open_reader
from penstock.settings import load_settings


@contextmanager
def reader() -> Iterator[HistoryReader]:
    """Open the history of the running test."""
    with closing(open_reader(load_settings().database_url)) as reader:
        yield reader


def flow_runs() -> list[dict[str, Any]]:
    """Give all flow runs, the oldest first."""
    with reader() as history:
        return list(reversed(history.flow_runs()))


def task_runs(flow: str = "example") -> list[dict[str, Any]]:
    """Give the task runs of the latest flow run of a flow, in the order of their ids."""
    with reader() as history:
        return list(history.task_runs(history.flow_runs(flow=flow)[0]["id"]))


def by_name(flow: str = "example") -> dict[str, dict[str, Any]]:
    """Give the task runs of the latest flow run of a flow by name."""
    return {run["name"]: run for run in task_runs(flow)}


def lines(flow: str = "example") -> list[dict[str, Any]]:
    """Give the log lines of the latest flow run of a flow."""
    with reader() as history:
        return list(history.logs(history.flow_runs(flow=flow)[0]["id"]))
