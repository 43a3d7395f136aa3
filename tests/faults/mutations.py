"""Change one thing in a good history: a row is dropped, doubled, or has one wrong value."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.checker import TABLES, History
from tests.faults import judge

HOUR = 3600 * 10**9
Row = dict[str, Any]
Tables = dict[str, list[Row]]


@dataclass(frozen=True)
class Mutation:
    """A kind of change.

    Attributes:
        kind: "drop", "double", "swap", "alter", "empty" or "fill".
        table: where.
        column: of what; None for whole rows.
    """

    kind: str
    table: str
    column: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.table}{'.' + self.column if self.column else ''}"


UNNOTICED = {
    "alter flow_runs.seq": "changes that were written over leave gaps",
    "swap flow_runs.name": "chance chose the words",
    "alter flow_runs.name": "chance chose the words",
    "swap flow_runs.seq": "each flow run counts for itself",
    "swap tasks.flow_run_id": "two flow runs may have the same tasks under the same numbers",
    "alter task_runs.id": "a part of it is chance, if nothing depends on the run",
    "swap task_runs.seq": "what does not depend on each other may end in any order",
    "alter task_runs.seq": "changes that were written over leave gaps",
    "swap task_runs.number": "what does not depend on each other may begin in any order",
    "swap task_runs.created_at": "what does not depend on each other may begin in any order",
    "swap task_runs.started_at": "bodies take no time, and the rest of a run lies around them",
    "swap task_runs.ended_at": "bodies take no time, and the rest of a run lies around them",
    "swap logs.position": "lines of different runs may come in any order",
    "alter logs.position": "groups that were not written leave gaps",
    "alter leases.counter": "signs of life are not told one by one",
    "swap logs.at": "what runs at the same time may write at the same time",
}
"""What no invariant can tell, and why."""
UNNOTICED_AFTER_A_CRASH = {
    "swap task_runs.number": "numbers of what had not started are not given again",
    "alter task_runs.number": "numbers of what had not started are not given again",
    "alter logs.task_run_id": "lines may be left of what was never recorded",
    "swap logs.task_run_id": "lines may be left of what was never recorded",
    "drop logs": "of what a crash took along, the last lines may be lost, too",
}


def try_mutations(case: judge.Case, seeds: int = 5) -> set[Mutation]:
    """Have the judge find out each kind of change, seeded so that it can be looked at again.

    What the history says of tasks and identities is taken for that of an undisturbed run.

    Raises:
        AssertionError: one went unnoticed.
    """
    tables = read_tables(case.path)
    rows = tables["task_runs"]
    case = replace(
        case,
        identities={str(judge.label_of(row)): row["identity"] for row in rows},
        sources={row["key"]: row["source"] for row in tables["tasks"]},
    )
    unnoticed = UNNOTICED | (UNNOTICED_AFTER_A_CRASH if case.crashes else {})
    tried: set[Mutation] = set()
    for mutation in mutations_of(tables):
        for seed in range(0 if str(mutation) in unnoticed else seeds):
            got = mutated(tables, mutation, random.Random(f"{seed} {mutation}"))
            if got is not None:
                tried.add(mutation)
                assert judge.judged(case, History.of(got[0])), f"unnoticed ({seed}): {got[1]}"
    return tried


def mutations_of(tables: Tables) -> Iterator[Mutation]:
    """Give every kind of change that a history can suffer."""
    for table, rows in tables.items():
        if rows:
            yield Mutation("drop", table)
            yield Mutation("double", table)
            for column in rows[0]:
                for kind in ("swap", "alter", "empty", "fill"):
                    yield Mutation(kind, table, column)


def read_tables(path: Path) -> Tables:
    """Read the rows of a history that mean something: a count of nothing does not."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables = {
            table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            for table in TABLES
        }
    tables["counts"] = [row for row in tables["counts"] if row["number"]]
    return tables


def mutated(tables: Tables, mutation: Mutation, dice: random.Random) -> tuple[Tables, str] | None:
    """Give the rows with one change, and how it is told; None when nothing can be changed so."""
    rows = [dict(row) for row in tables[mutation.table]]
    changed = _CHANGES[mutation.kind](mutation, rows, dice)
    if changed is None or sorted(map(repr, rows)) == sorted(map(repr, tables[mutation.table])):
        return None  # rows that have swapped all in which they differ
    return {**tables, mutation.table: rows}, changed


def _drop(mutation: Mutation, rows: list[Row], dice: random.Random) -> str:
    return f"dropped {rows.pop(dice.randrange(len(rows)))}"


def _double(mutation: Mutation, rows: list[Row], dice: random.Random) -> str:
    """Tell one thing twice, under another key."""
    row = dict(dice.choice(rows))
    if "id" in row:
        row["id"] = row["id"][:6] + dice.randbytes(10)
    elif mutation.table == "leases":
        row["flow_run_id"] = dice.randbytes(16)
    elif "position" in row:
        row["position"] = max(each["position"] for each in rows) + 1
    else:
        number = "number" if mutation.table == "tasks" else "task"
        row[number] = max(each[number] for each in rows) + 1
    rows.append(row)
    return f"doubled {row}"


def _swap(mutation: Mutation, rows: list[Row], dice: random.Random) -> str | None:
    column = str(mutation.column)
    pairs = [(a, b) for a in rows for b in rows if a is not b and a[column] != b[column]]
    if not pairs:
        return None
    one, other = dice.choice(pairs)
    told = f"swapped {column} of {one} and {other}"
    one[column], other[column] = other[column], one[column]
    return told


def _alter(mutation: Mutation, rows: list[Row], dice: random.Random) -> str | None:
    return _change(mutation, rows, dice, lambda value: value is not None, _altered)


def _altered(value: Any, dice: random.Random) -> Any:
    if isinstance(value, int):
        if value > 10**18:  # a time: who could notice a nanosecond?
            return value + dice.choice([-HOUR, HOUR])
        return value + dice.choice([-1, 1, 1 << 20, 1 << 41])
    if isinstance(value, bytes):
        place = dice.randrange(len(value))
        return value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
    return value[:-1] if dice.random() < 0.5 else value + "x"


def _empty(mutation: Mutation, rows: list[Row], dice: random.Random) -> str | None:
    return _change(mutation, rows, dice, lambda value: value is not None, lambda *_: None)


def _fill(mutation: Mutation, rows: list[Row], dice: random.Random) -> str | None:
    column = str(mutation.column)
    values = [row[column] for row in rows if row[column] is not None]
    if not values:
        return None
    return _change(
        mutation, rows, dice, lambda value: value is None, lambda *_: dice.choice(values)
    )


def _change(
    mutation: Mutation,
    rows: list[Row],
    dice: random.Random,
    fits: Callable[[Any], bool],
    change: Callable[[Any, random.Random], Any],
) -> str | None:
    column = str(mutation.column)
    fitting = [row for row in rows if fits(row[column])]
    if not fitting:
        return None
    row = dice.choice(fitting)
    before = row[column]
    row[column] = change(before, dice)
    return f"changed {column} from {before!r} to {row[column]!r} in {row}"


_CHANGES: dict[str, Callable[[Mutation, list[Row], random.Random], str | None]] = {
    "drop": _drop,
    "double": _double,
    "swap": _swap,
    "alter": _alter,
    "empty": _empty,
    "fill": _fill,
}
