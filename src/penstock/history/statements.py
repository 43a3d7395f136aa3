"""Statements that insert many rows in one step.

One `INSERT … VALUES (…),(…),…` works through all its rows inside SQLite, where the interpreter
lock is given away once. `executemany` gives it away at every row and must fetch it back each time:
beside a busy main thread that costs milliseconds a row instead of microseconds.

A statement is compiled for a fixed number of rows, so groups are fitted to a few sizes whose
statements stay compiled. Where a row may be sent twice without effect, a group is filled up to
the next size by repeating its last row, which is cheaper than another step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]

_QUERIES = Path(__file__).parent / "queries"
_SIZES = (1, 4, 16, 64, 128, 256, 512, 1024, 4096)


def load_query(name: str) -> str:
    """Read the text of `queries/<name>.sql`."""
    return (_QUERIES / f"{name}.sql").read_text("utf-8")


class SplitInsertion:
    """Inserts rows in which rare columns are empty by a statement that leaves those out.

    An empty value costs as much as any other on its way into the database: this saves a quarter
    of the time. The order of rows changes: they must be safe in any order within their group.

    Args:
        whole: inserts rows with all columns.
        ordinary: inserts rows without the rare columns.
        columns: all columns, in order.
        rare: at least two of them.
    """

    def __init__(
        self, whole: Insertion, ordinary: Insertion, columns: Sequence[str], rare: Sequence[str]
    ) -> None:
        self._whole = whole
        self._ordinary = ordinary
        self._rare = itemgetter(*(columns.index(name) for name in rare))
        self._others = itemgetter(*(n for n, name in enumerate(columns) if name not in rare))
        self._nothing = (None,) * len(rare)

    def steps(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
        """Give the statements and values that insert the rows."""
        rare, others, nothing = self._rare, self._others, self._nothing
        special = [row for row in rows if rare(row) != nothing]
        yield from self._whole.steps(special)
        if len(special) < len(rows):
            ordinary = [others(row) for row in rows if rare(row) == nothing]
            yield from self._ordinary.steps(ordinary)


class Insertion:
    """The statements that insert rows into one table, one for each of a few sizes.

    Args:
        query: name of the SQL file; `:rows` in it stands for the places of the values.
        width: number of columns.
        most_variables: what the database takes in one statement.
        repeatable: sending a row twice changes nothing.
    """

    def __init__(self, query: str, width: int, most_variables: int, *, repeatable: bool) -> None:
        self._query = query
        self._width = width
        self._repeatable = repeatable
        largest = most_variables // width
        self.sizes = [*(size for size in _SIZES if size < largest), min(largest, _SIZES[-1])]
        self._texts: dict[int, str] = {}
        self._template = ""

    def steps(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
        """Give the statements and values that insert the rows, in order."""
        start = 0
        while start < len(rows):
            size = self._size_for(len(rows) - start)
            part = rows[start : start + size]
            values = list(chain.from_iterable(part))
            values += part[-1] * (size - len(part))
            yield self._text(size), values
            start += size

    def _size_for(self, remaining: int) -> int:
        if self._repeatable:
            return next((size for size in self.sizes if size >= remaining), self.sizes[-1])
        return next(size for size in reversed(self.sizes) if size <= remaining)

    def _text(self, size: int) -> str:
        text = self._texts.get(size)
        if text is None:
            # kept, because SQLite's compiled statement is found by this very text
            self._template = self._template or load_query(self._query)
            places = f"({','.join('?' * self._width)})"
            text = self._template.replace(":rows", ",".join([places] * size))
            self._texts[size] = text
        return text
