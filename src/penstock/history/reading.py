"""The history in one SQLite file: the reading side.

A reader opens the file for reading only, never waits for a writer, and reads in short pages, so
that a slow consumer never keeps the write-ahead log from being emptied.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from time import time_ns
from typing import Any

from penstock.errors import AmbiguousRun, HistoryUnavailable, RunNotFound
from penstock.history.base import HistoryReader
from penstock.history.kept_runs import SQLiteKeptRuns
from penstock.history.locations import sqlite_path, sqlite_uri
from penstock.history.references import (
    SHORTEST,
    id_digits,
    id_range,
    task_reference,
    whole_id,
)
from penstock.history.resumable import KeptRuns, RecordedTask, Resumable
from penstock.history.schema import check_version
from penstock.history.shapes import (
    Row,
    flow_run_shape,
    id_text,
    is_final,
    log_shape,
    task_run_shape,
)
from penstock.history.sqlite_errors import SQLITE_ERRORS, damaged, is_refused, refused, told
from penstock.history.staleness import Staleness, staleness_of
from penstock.history.statements import load_query

_BUSY_TIMEOUT = 5.0
_FIRST_WITH_LEASES = 2
_PAGE = 500
_LARGE_PAGE = 5_000
_LATEST = 2**63 - 1
_CANDIDATES = 5
_TROUBLE = ("FAILED", "CRASHED")
_query = cache(load_query)


class SQLiteReader(HistoryReader):
    """Read a history from a SQLite file. Changes nothing, not even an older schema.

    Args:
        url: `sqlite:///PATH` or a path.

    Raises:
        HistoryUnavailable: there is no history yet, or it cannot be read.
        HistoryTooNew: a newer Penstock wrote it.
        HistoryCorrupt: it is damaged, or no history.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.path = sqlite_path(url)
        if os.path.isdir(self.path):
            raise refused(self.path, "it is a folder")
        if not os.path.exists(self.path):
            raise _no_history(self.path)
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect("mode=ro")
        except SQLITE_ERRORS as problem:
            # SQLite wants to make its shared index even to read. Where nothing can be made
            # beside the file (a read-only disk) and nobody has written, the file is all there is.
            if not is_refused(problem) or os.path.exists(f"{self.path}-wal"):
                raise told(problem, self.path) from problem
        try:
            return self._connect("mode=ro&immutable=1")
        except SQLITE_ERRORS as problem:
            raise told(problem, self.path) from problem

    def _connect(self, options: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            sqlite_uri(self.path, options),
            uri=True,
            timeout=_BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            self._schema = check_version(connection, self.path)
            if not self._schema:
                raise _no_history(self.path)
        except BaseException:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        return connection

    def find_flow_run(self, reference: str) -> dict[str, Any]:
        rows = self._flow_runs_meant(reference.strip())
        if not rows:
            raise RunNotFound(
                f"There is no flow run {reference!r} in {self.path}. See `penstock ls`."
            )
        if len(rows) > 1:
            raise _ambiguous("flow run", reference, [row["name"] for row in rows], rows)
        return self._with_counts(rows[0])

    def _flow_runs_meant(self, reference: str) -> list[Row]:
        """Give the flow runs that a reference fits; the first way of reading it that fits any."""
        if reference == "@last":
            return self._flow_runs("flow_runs_last")
        if reference == "@last-failed":
            return self._flow_runs("flow_runs_last_failed")
        digits = id_digits(reference)
        if digits is None:
            return self._flow_runs("flow_runs_named", name=reference, limit=_CANDIDATES)
        first, last = id_range(digits)
        return self._flow_runs(
            "flow_runs_named", name=reference, limit=_CANDIDATES
        ) or self._flow_runs("flow_runs_between", first=first, last=last, limit=_CANDIDATES)

    def _flow_runs(self, query: str, **values: Any) -> list[Row]:
        return self._rows(_query("select_flow_runs") + _query(query), values)

    def _with_counts(self, row: Row) -> dict[str, Any]:
        staleness = self._staleness(row)
        if staleness is not None:
            # A run may have ended, and its process with it, since its row was read.
            row = next(iter(self._flow_runs("flow_runs_with_id", id=row["id"])), row)
            staleness = None if is_final(row) else staleness
        return self._shaped(flow_run_shape, row, self._totals(row["id"]), staleness)

    def _staleness(self, row: Row) -> Staleness | None:
        if is_final(row):
            return None
        leases: list[Row] = []
        if self._schema >= _FIRST_WITH_LEASES:
            leases = self._rows(_query("lease_of_flow_run"), {"flow_run_id": row["id"]})
        try:
            return staleness_of(row, leases[0] if leases else None, time_ns())
        except (TypeError, ValueError) as problem:
            raise damaged(self.path, f"a row cannot be read, {problem}") from problem

    def _totals(self, flow_run_id: bytes) -> dict[str, int]:
        totals: dict[str, int] = {}
        for row in self._rows(_query("counts_of_flow_run"), {"flow_run_id": flow_run_id}):
            totals[row["state"]] = totals.get(row["state"], 0) + row["number"]
        return totals

    def flow_runs(
        self,
        *,
        state: str | None = None,
        flow: str | None = None,
        tag: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        rows = self._flow_runs(
            "flow_runs_page",
            state=state and state.upper(),
            flow=flow,
            tag=tag,
            limit=limit,
            before=_LATEST if before is None else before,
        )
        return [self._with_counts(row) for row in rows]

    def task_runs(
        self,
        flow_run_id: str,
        *,
        state: str | None = None,
        name: str | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        state = state and state.upper()
        query = "task_runs_in_trouble" if state in _TROUBLE else "task_runs_page"
        values = {"flow_run_id": _known_id(flow_run_id), "state": state, "name": name}
        pages = self._pages(
            _query("select_task_runs") + _query(query), values, "id", b"", _PAGE, limit
        )
        return (self._shaped(task_run_shape, row) for row in pages)

    def find_task_run(self, reference: str) -> dict[str, Any]:
        rows = self._task_runs_meant(reference.strip())
        if not rows:
            raise RunNotFound(
                f"There is no task run {reference!r} in {self.path}. Name it by its id or as "
                "RUN:TASK:NUMBER, see `penstock tasks RUN`."
            )
        if len(rows) > 1:
            names = [row["name"] or f"{row['task']}-{row['number']}" for row in rows]
            raise _ambiguous("task run", reference, names, rows)
        return self._shaped(task_run_shape, rows[0])

    def task_runs_alike(self, task_run: dict[str, Any], limit: int = 20) -> list[dict[str, Any]]:
        identity, flow_run_id = task_run["identity"], task_run["flow_run_id"]
        if identity is None or flow_run_id is None:
            return []
        values = {
            "flow_run_id": _known_id(flow_run_id),
            "identity": bytes.fromhex(identity),
            "before": _known_id(task_run["id"]),
            "limit": limit,
        }
        rows = self._rows(_query("select_task_runs") + _query("task_runs_alike"), values)
        return [self._shaped(task_run_shape, row) for row in reversed(rows)]

    def _task_runs_meant(self, reference: str) -> list[Row]:
        parts = task_reference(reference)
        if parts:
            run = _known_id(self.find_flow_run(parts.run)["id"])
            values = {"flow_run_id": run, "task": parts.task, "number": parts.number}
            return self._task_rows("task_runs_numbered", values)
        digits = id_digits(reference)
        if digits is None:
            return []
        return self._task_rows("task_runs_between", id_range(digits)._asdict())

    def _task_rows(self, query: str, values: dict[str, Any]) -> list[Row]:
        text = _query("select_task_runs") + _query(query)
        return self._rows(text, {**values, "limit": _CANDIDATES})

    def logs(
        self,
        flow_run_id: str,
        *,
        task_run_id: str | None = None,
        task: str | None = None,
        level: int = 0,
        after: int = 0,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        values = {
            "flow_run_id": _known_id(flow_run_id),
            "task_run_id": task_run_id and _known_id(task_run_id),
            "task": task,
            "level": level,
        }
        pages = self._pages(_query("logs_page"), values, "position", after, _PAGE, limit)
        return (self._shaped(log_shape, row) for row in pages)

    def counts(self, flow_run_id: str) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for row in self._rows(
            _query("counts_of_flow_run"), {"flow_run_id": _known_id(flow_run_id)}
        ):
            counts.setdefault(row["task"], {})[row["state"]] = row["number"]
        return counts

    def subflow_runs(self, flow_run_id: str) -> list[dict[str, Any]]:
        rows = self._flow_runs("flow_runs_called_by", flow_run_id=_known_id(flow_run_id))
        return [self._with_counts(row) for row in rows]

    def task_run_columns(
        self, flow_run_id: str, *, state: str | None = None, name: str | None = None
    ) -> Iterator[Sequence[Sequence[Any]]]:
        values = {
            "flow_run_id": _known_id(flow_run_id),
            "state": state and state.upper(),
            "name": name,
            "after": b"",
            "limit": _LARGE_PAGE,
        }
        cursor = self._connection.cursor()
        cursor.row_factory = None  # plain tuples: a column is read by its place
        while True:
            try:
                rows = cursor.execute(_query("task_run_columns"), values).fetchall()
            except SQLITE_ERRORS as problem:
                raise told(problem, self.path) from problem
            if rows:
                yield rows
            if len(rows) < _LARGE_PAGE:
                return
            values["after"] = rows[-1][0]

    def kept_result(self, run_id: str) -> tuple[bytes, str] | None:
        for row in self._rows(_query("kept_result"), {"id": _known_id(run_id)}):
            if row["result"] is not None and row["result_codec"] is not None:
                return bytes(row["result"]), str(row["result_codec"])
        return None

    def select(self, query: str, **values: Any) -> list[Row]:
        return self._rows(_query(query), values)

    def _pages(
        self,
        query: str,
        values: dict[str, Any],
        key: str,
        after: Any,
        page: int,
        limit: int | None,
    ) -> Iterator[Row]:
        """Give rows page by page, each page from the last row's key on."""
        left = _LATEST if limit is None else limit
        while left > 0:
            size = min(page, left)
            rows = self._rows(query, {**values, "after": after, "limit": size})
            yield from rows
            if len(rows) < size:
                return
            left -= size
            after = rows[-1][key]

    def _rows(self, query: str, values: dict[str, Any]) -> list[Row]:
        try:
            return self._connection.execute(query, values).fetchall()
        except SQLITE_ERRORS as problem:
            raise told(problem, self.path) from problem

    def _shaped(self, shape: Callable[..., dict[str, Any]], row: Row, *more: Any) -> dict[str, Any]:
        """Make a row's shape; values of the wrong kind mean that the file is damaged."""
        try:
            return shape(row, *more)
        except (AttributeError, TypeError, ValueError, OverflowError) as problem:
            raise damaged(self.path, f"a row cannot be read, {problem}") from problem

    def resumable(self, flow_run_id: str) -> Resumable:
        id = {"id": _known_id(flow_run_id)}
        rows = self._rows(_query("resumable_flow_run"), id)
        if not rows or rows[0]["id"] is None:
            raise RunNotFound(f"There is no flow run {flow_run_id!r} in {self.path}.")
        last = {row["task"]: row["last"] for row in self._rows(_query("last_numbers"), id)}
        counts: dict[int, dict[str, int]] = {}
        for row in self._rows(_query("task_counts"), id):
            counts.setdefault(row["task"], {})[row["state"]] = row["number"]
        return Resumable(
            dict(rows[0]),
            tuple(
                RecordedTask(
                    row["number"],
                    row["key"],
                    row["name"],
                    row["source"],
                    last.get(row["number"], -1),
                )
                for row in self._rows(_query("tasks_of_flow_run"), id)
            ),
            counts,
            {
                row["identity"]: row["id"]
                for row in self._rows(_query("unfinished_subflow_runs"), id)
            },
        )

    def kept_runs(self, flow_run_id: str) -> KeptRuns:
        return SQLiteKeptRuns(self._connection, self.path, _known_id(flow_run_id))

    def close(self) -> None:
        self._connection.close()


def _known_id(text: str) -> bytes:
    id = whole_id(text)
    if id is None:
        raise RunNotFound(f"{text!r} is no id of a run: it needs 32 hexadecimal digits.")
    return id


def _ambiguous(kind: str, reference: str, names: list[str], rows: list[Row]) -> AmbiguousRun:
    found = "\n".join(
        f"  {id_text(row['id'])}  {name}" for row, name in zip(rows, names, strict=True)
    )
    more = "\n  …" if len(rows) == _CANDIDATES else ""
    return AmbiguousRun(
        f"{reference!r} fits more than one {kind}; use more of the id "
        f"(at least {SHORTEST} digits):\n{found}{more}"
    )


def _no_history(path: str) -> HistoryUnavailable:
    return HistoryUnavailable(
        f"There is no history yet at {path}. Run a flow first, or name another file with "
        "--database or PENSTOCK_DATABASE_URL."
    )
