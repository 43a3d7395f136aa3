"""`docs/history.md` tells the truth: tables and columns as in the database, limits of the code."""

from __future__ import annotations

import importlib
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from penstock.history.sqlite import SQLiteStore

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "history.md").read_text("utf-8")


def documented_tables() -> dict[str, list[str]]:
    """Give the columns of each table that the page describes, in its order."""
    tables = PAGE.partition("## Tables")[2].partition("\n## ")[0]
    sections = re.split(r"^### (\w+)$", tables, flags=re.MULTILINE)[1:]
    return {
        name: re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }


def test_tables_and_columns_are_those_of_the_database(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "history.db").close()
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        schema = {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for (table,) in connection.execute(names).fetchall()
        }
    assert documented_tables() == schema


def test_limits_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| .+ \| ([\d,.]+).* \| `([\w.]+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) > 10
    for number, place in rows:
        module, _, name = place.rpartition(".")
        assert getattr(importlib.import_module(f"penstock.{module}"), name) == float(
            number.replace(",", "")
        ), place
