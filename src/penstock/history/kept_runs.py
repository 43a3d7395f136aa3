"""The completed task runs of a flow run, found by their identities when it is resumed.

In memory are 24 bytes for each of them: identities, sorted, and where their rows are. The rows
themselves, with small results, are read in windows that widen as long as they are asked for in
about the order in which they were recorded; otherwise one at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from array import array
from bisect import bisect_left, bisect_right
from functools import cache
from struct import Struct

from penstock.history.resumable import KeptRow
from penstock.history.sqlite_errors import SQLITE_ERRORS, told
from penstock.history.statements import load_query

_WIDEST = 512
_SPREAD = 16
_query = cache(load_query)
_halves = Struct(">QQ").unpack


class SQLiteKeptRuns:
    """Finds completed task runs of one flow run. Thread-safe.

    Args:
        connection: to the history; used for nothing else meanwhile.
        path: the history's file, for messages.
        flow_run_id: the flow run, 16 bytes.
    """

    def __init__(self, connection: sqlite3.Connection, path: str, flow_run_id: bytes) -> None:
        self._cursor = connection.cursor()
        self._cursor.row_factory = None
        self._path = path
        self._flow_run_id = flow_run_id
        self._lock = threading.Lock()
        self._high, self._low, self._places = array("Q"), array("Q"), array("q")
        self._window: dict[int, KeptRow] = {}
        self._last_window: dict[int, KeptRow] = {}
        self._width = 1
        self._hits = 0
        self._load()

    def __len__(self) -> int:
        return len(self._places)

    def find(self, identity: bytes) -> KeptRow | None:
        """Give the last completed task run of that identity; None when there is none.

        Raises:
            HistoryError: the history cannot be read.
        """
        place = self._place(identity)
        if place is None:
            return None
        self._hits += 1
        row = self._window.get(place)
        if row is None:
            with self._lock:
                row = self._window.get(place) or self._last_window.get(place) or self._read(place)
        return row

    def _load(self) -> None:
        try:
            self._cursor.execute(_query("completed_identities"), {"id": self._flow_run_id})
            for identity, place in self._cursor:
                high, low = _halves(identity)
                self._high.append(high)
                self._low.append(low)
                self._places.append(place)
        except SQLITE_ERRORS as problem:
            raise told(problem, self._path) from problem

    def _place(self, identity: bytes) -> int | None:
        """Give the row of an identity; of several, the last one."""
        high, low = _halves(identity)
        end = bisect_right(self._high, high)
        last = end - 1
        if last < 0 or self._high[last] != high:
            return None
        if self._low[last] != low:
            # Equal runs differ in the second half alone.
            first = bisect_left(self._high, high, 0, end)
            last = bisect_right(self._low, low, first, end) - 1
            if last < first or self._low[last] != low:
                return None
        return self._places[last]

    def _read(self, place: int) -> KeptRow:
        """Read a row, and as many behind it as are likely to be asked for next."""
        if 2 * self._hits >= len(self._window):
            self._width = min(2 * self._width, _WIDEST)
        else:
            self._width = max(1, self._width // 4)
        # Rows of other flow runs may lie between: not many of them are worth a look.
        last = place + _SPREAD * self._width
        values = {"first": place, "last": last, "id": self._flow_run_id, "limit": self._width}
        try:
            rows = self._cursor.execute(_query("completed_rows_from"), values).fetchall()
        except SQLITE_ERRORS as problem:
            raise told(problem, self._path) from problem
        self._last_window = self._window
        make = KeptRow._make
        self._window = {row[0]: make(row[1:]) for row in rows}
        self._hits = 0
        return self._window[place]
