"""Recorded flow runs, to be read in Python: `runs()`, `run()` and what they give."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from penstock.errors import InvalidOptionError, RunNotFound
from penstock.frames import flow_runs_frame, task_runs_frame
from penstock.history.base import HistoryReader
from penstock.history.locations import sqlite_path
from penstock.history.stores import open_reader
from penstock.record_cards import flow_run_card, flow_runs_card
from penstock.run_records import (
    LogLine,
    RunRecord,
    TaskRunRecord,
    read_logs,
    read_through,
    to_nanoseconds,
    to_time,
)
from penstock.settings import load_settings
from penstock.states import StateType

if TYPE_CHECKING:
    import pandas

__all__ = ["FlowRunRecord", "LogLine", "RunList", "RunRecord", "TaskRunRecord", "run", "runs"]

Database = str | os.PathLike[str]


def runs(
    *,
    state: str | None = None,
    flow: str | None = None,
    tag: str | None = None,
    limit: int = 50,
    before: datetime | None = None,
    database: Database | None = None,
) -> RunList:
    """Give recorded flow runs, newest first. Thread-safe; changes nothing.

    Args:
        state: only runs in this state, such as "failed".
        flow: only runs of the flow of this name.
        tag: only runs with this tag.
        limit: how many at most.
        before: only runs created before this time: the `created_at` of the last run of a page
            begins the next one. A time without a zone is local.
        database: the history, a URL or a file; default that of the settings. Where nothing was
            ever recorded in that one there are no runs.

    Raises:
        HistoryError: the history cannot be read; the text says why.
        InvalidOptionError: there is no such state, or the limit is below 1.

    Example:
        >>> from penstock import flow, runs
        >>> @flow
        ... def greet(name):
        ...     return f"Hello {name}"
        >>> greet("Ada")
        'Hello Ada'
        >>> latest = runs(flow="greet", limit=1)[0]
        >>> latest.state.is_completed(), latest.parameters, latest.result()
        (True, {'name': "'Ada'"}, 'Hello Ada')
    """
    if limit < 1:
        raise InvalidOptionError(f"limit is {limit!r}; it must be at least 1.")
    place = _place(database)
    if database is None and place.startswith(os.sep) and not os.path.exists(place):
        return RunList()
    with closing(open_reader(place)) as reader:
        found = reader.flow_runs(
            state=_state_name(state),
            flow=flow,
            tag=tag,
            limit=limit,
            before=None if before is None else to_nanoseconds(before),
        )
    return RunList(FlowRunRecord(shape, place) for shape in found)


def run(reference: str | UUID, *, database: Database | None = None) -> FlowRunRecord:
    """Give one recorded flow run. Thread-safe; changes nothing.

    Args:
        reference: its id, a unique beginning of that (4 digits or more), its name, or "@last" or
            "@last-failed", which leave out subflow runs.
        database: the history, a URL or a file; default that of the settings.

    Raises:
        RunNotFound: there is none.
        AmbiguousRun: it fits several; the text names them.
        HistoryError: the history cannot be read; the text says why.
    """
    place = _place(database)
    with closing(open_reader(place)) as reader:
        return FlowRunRecord(reader.find_flow_run(str(reference)), place)


class FlowRunRecord(RunRecord):
    """One recorded flow run, to be read, also while it is still going on.

    Example:
        >>> from penstock import flow, run, task
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> @flow
        ... def doubles():
        ...     return double.map(range(3))
        >>> doubles()
        [0, 2, 4]
        >>> record = run("@last")
        >>> record.counts, [task_run.result() for task_run in record.task_runs()]
        ({'COMPLETED': 3}, [0, 2, 4])
    """

    __slots__ = ()

    @property
    def flow(self) -> str:
        """The name of the flow."""
        return str(self._shape["flow"])

    @property
    def runner(self) -> str | None:
        """The task runner it ran on, such as "ConcurrentTaskRunner"."""
        runner: str | None = self._shape["runner"]
        return runner

    @property
    def counts(self) -> dict[str, int]:
        """How many of its task runs are in each state, by state type."""
        return dict(self._shape["counts"])

    @property
    def is_stale(self) -> bool:
        """Whether it lost its driver: it is not final, and nobody will go on with it."""
        return bool(self._shape["stale"])

    @property
    def stale_since(self) -> datetime | None:
        """The last sign of life of a driver that is lost; None where none is known."""
        return to_time(self._shape["stale_since"])

    @property
    def stale_reason(self) -> str | None:
        """Why it counts as stale; None if it is not."""
        reason: str | None = self._shape["stale_reason"]
        return reason

    def task_runs(
        self, *, state: str | None = None, name: str | None = None
    ) -> Iterator[TaskRunRecord]:
        """Give its task runs in order of creation, read in pages of some hundreds.

        Args:
            state: only those in this state, such as "failed".
            name: only those of the task of this name, or those that were given this name.
        """
        kind, place = _state_name(state), self._place

        def rows(reader: HistoryReader) -> Iterator[dict[str, Any]]:
            return reader.task_runs(self._shape["id"], state=kind, name=name)

        return read_through(place, rows, lambda shape: TaskRunRecord(shape, place))

    def task_run(self, reference: str | UUID) -> TaskRunRecord:
        """Give one of its task runs: by its name, such as "load-3", its id or a beginning of that.

        Raises:
            RunNotFound: it has none such.
            AmbiguousRun: the beginning of an id fits several.
        """
        with closing(open_reader(self._place)) as reader:
            shape = _find_task_run(reader, str(self._shape["id"]), str(reference))
        return TaskRunRecord(shape, self._place)

    def subflow_runs(self) -> RunList:
        """Give the flow runs that it called, in order of creation."""
        with closing(open_reader(self._place)) as reader:
            found = reader.subflow_runs(self._shape["id"])
        return RunList(FlowRunRecord(shape, self._place) for shape in found)

    def logs(self, *, level: str | int = "DEBUG", task: str | None = None) -> Iterator[LogLine]:
        """Give its log lines in order, those of its task runs among them.

        Args:
            level: only from this level on.
            task: only of the task of this name, or of the one task run that `task_run` finds.
        """
        id = self._shape["id"]
        if task is None:
            return read_logs(self._place, id, level)
        with closing(open_reader(self._place)) as reader:
            if task in reader.counts(id):
                return read_logs(self._place, id, level, task=task)
            task_run_id = _find_task_run(reader, id, task)["id"]
        return read_logs(self._place, id, level, task_run_id=task_run_id)

    def to_pandas(self, *, state: str | None = None, name: str | None = None) -> pandas.DataFrame:
        """Give its task runs as a DataFrame, one row each, in order of creation.

        The columns are those of `penstock.frames.TASK_RUN_COLUMNS`, also when there are no rows.

        Args:
            state, name: as in `task_runs`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        with closing(open_reader(self._place)) as reader:
            pages = reader.task_run_columns(self._shape["id"], state=_state_name(state), name=name)
            return task_runs_frame(pages)

    def _read(self, reader: HistoryReader) -> dict[str, Any]:
        return reader.find_flow_run(str(self._shape["id"]))

    def __repr__(self) -> str:
        stale = " (stale)" if self.is_stale else ""
        return f"<FlowRunRecord {self.name!r} of {self.flow!r} {self.state}{stale}>"

    def _repr_html_(self) -> str:
        return flow_run_card(self._shape)


class RunList(list[FlowRunRecord]):
    """A list of flow runs that a notebook shows as a table."""

    def to_pandas(self) -> pandas.DataFrame:
        """Give the runs as a DataFrame, one row each: `penstock.frames.FLOW_RUN_COLUMNS`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return flow_runs_frame([run._shape for run in self])

    def _repr_html_(self) -> str:
        return flow_runs_card([run._shape for run in self])


def _place(database: Database | None) -> str:
    """Give where a history lies, in a form that does not depend on the working folder."""
    text = load_settings().database_url if database is None else os.fspath(database)
    is_file = "://" not in text or text.startswith("sqlite://")
    return sqlite_path(text) if is_file else text


def _state_name(state: str | None) -> str | None:
    if state is None:
        return None
    try:
        return StateType(str(state).upper()).value
    except ValueError:
        known = ", ".join(kind.lower() for kind in StateType)
        raise InvalidOptionError(f"state is {state!r}; it must be one of {known}.") from None


def _find_task_run(reader: HistoryReader, flow_run_id: str, reference: str) -> dict[str, Any]:
    """Find a task run by "<task>-<n>", the name it was given, or its id, in this order."""
    task, _, number = reference.rpartition("-")
    if task and number.isdecimal():
        try:
            return reader.find_task_run(f"{flow_run_id}:{task}:{number}")
        except RunNotFound:
            pass
    for shape in reader.task_runs(flow_run_id, name=reference):
        if shape["name"] == reference:
            return shape
    shape = reader.find_task_run(reference)
    if shape["flow_run_id"] != flow_run_id:
        raise RunNotFound(f"{reference!r} is a task run of another flow run.")
    return shape
