"""Tables of clean text that fit a terminal: columns shrink first, then the least needed ones go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.cli.screen import Screen
from penstock.cli.text import clean, cut, padded, width_of

_GAP = 2


@dataclass(frozen=True)
class Column:
    """How a column behaves.

    Attributes:
        need: the column with the smallest number is left out first when there is no room.
        least: columns below which it is rather left out than cut; None: it is never cut.
    """

    title: str
    need: int = 5
    least: int | None = None
    right: bool = False


@dataclass(frozen=True)
class Cell:
    """A text with the styles it is shown in."""

    text: str
    styles: tuple[str, ...] = ()


Row = Sequence[Cell | str]


def write_table(
    screen: Screen,
    columns: Sequence[Column],
    rows: Sequence[Row],
    width: int | None,
    *,
    titles: bool = True,
) -> None:
    """Write a table.

    Args:
        width: columns of the terminal; None lets every line be as long as it is.
        titles: with a first line that names the columns.
    """
    cells = [[_cleaned(cell, screen) for cell in row] for row in rows]
    wanted = _wanted(columns, cells)
    widths = fit(columns, wanted, width) if width else wanted
    shown = [index for index, size in enumerate(widths) if size]
    head = [[Cell(column.title, ("dim",)) for column in columns]] if titles else []
    for row in [*head, *cells]:
        screen.line(_line(screen, columns, row, widths, shown))


def _cleaned(cell: Cell | str, screen: Screen) -> Cell:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    return Cell(screen.encodable(clean(cell.text)), cell.styles)


def _wanted(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[int]:
    """Give the widest cell of each column; 0 for a column without a single text."""
    widest = [max((width_of(row[i].text) for row in rows), default=0) for i in range(len(columns))]
    return [
        max(size, width_of(column.title)) if size else 0
        for column, size in zip(columns, widest, strict=True)
    ]


def fit(columns: Sequence[Column], wanted: Sequence[int], width: int) -> list[int]:
    """Give each column a width so that a line fits; 0 leaves a column out."""
    widths = list(wanted)
    while (excess := _total(widths) - width) > 0:
        room = [
            (size - column.least if column.least is not None and size else 0)
            for column, size in zip(columns, widths, strict=True)
        ]
        if sum(size for size in room if size > 0) >= excess:
            return _shrunk(columns, widths, room, excess)
        kept = [index for index, size in enumerate(widths) if size]
        if len(kept) == 1:
            widths[kept[0]] = width
            break
        widths[min(kept, key=lambda index: columns[index].need)] = 0
    return widths


def _total(widths: Sequence[int]) -> int:
    shown = [size for size in widths if size]
    return sum(shown) + _GAP * (len(shown) - 1)


def _shrunk(
    columns: Sequence[Column], widths: list[int], room: list[int], excess: int
) -> list[int]:
    """Take the excess from the columns that are needed least."""
    for index in sorted(range(len(widths)), key=lambda index: columns[index].need):
        given = max(0, min(room[index], excess))
        widths[index] -= given
        excess -= given
    return widths


def _line(
    screen: Screen,
    columns: Sequence[Column],
    row: Sequence[Cell],
    widths: Sequence[int],
    shown: Sequence[int],
) -> str:
    parts = []
    for index in shown:
        text = cut(row[index].text, widths[index], screen.symbol("more"))
        # The last column ends with its text, so that no line has spaces at its end.
        if index != shown[-1] or columns[index].right:
            fill = padded(text, widths[index], right=columns[index].right)
            text = fill.replace(text, screen.style(text, *row[index].styles), 1) if text else fill
        else:
            text = screen.style(text, *row[index].styles)
        parts.append(text)
    return (" " * _GAP).join(parts).rstrip()
