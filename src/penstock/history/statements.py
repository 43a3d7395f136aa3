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
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]

_QUERIES = Path(__file__).parent / "queries"
_SIZES = (1, 4, 16, 64, 128, 256, 512, 768, 1024, 1536, 4096)


def load_query(name: str) -> str:
    """Read the text of `queries/<name>.sql`."""
    return (_QUERIES / f"{name}.sql").read_text("utf-8")


class SplitInsertion:
    """Inserts short rows, whose last columns are empty, by a statement that leaves those out.

    An empty value costs as much as any other on its way into the database: this saves a quarter
    of the time. The order of rows changes: they must be safe in any order within their group.

    Args:
        whole: inserts rows with all columns.
        short: inserts rows without the last ones.
    """

    def __init__(self, whole: Insertion, short: Insertion) -> None:
        self._whole = whole
        self._short = short

    def steps(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
        """Give the statements and values that insert the rows."""
        width = self._short.width
        yield from self._whole.steps([row for row in rows if len(row) != width])
        yield from self._short.steps([row for row in rows if len(row) == width])


class Insertion:
    """The statements that insert rows into one table, one for each of a few sizes.

    Args:
        query: name of the SQL file; `:rows` in it stands for the places of the values, and
            `:columns` for the columns, where it serves rows of several widths.
        columns: the columns of each row, in order.
        most_variables: what the database takes in one statement.
        repeatable: sending a row twice changes nothing.
    """

    def __init__(
        self, query: str, columns: Sequence[str], most_variables: int, *, repeatable: bool
    ) -> None:
        self._query = query
        self.width = width = len(columns)
        self._columns = columns
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
        largest = next(size for size in reversed(self.sizes) if size <= remaining)
        if self._repeatable and largest < self.sizes[-1]:
            filled = next(size for size in self.sizes if size >= remaining)
            # Repeated rows cost as much as others, another step about as much as 64 of them.
            if filled - remaining <= max(64, remaining // 8):
                return filled
        return largest

    def _text(self, size: int) -> str:
        text = self._texts.get(size)
        if text is None:
            # kept, because SQLite's compiled statement is found by this very text
            self._template = self._template or load_query(self._query)
            places = f"({','.join('?' * self.width)})"
            text = self._template.replace(":columns", ", ".join(self._columns))
            text = text.replace(":rows", ",".join([places] * size))
            self._texts[size] = text
        return text
