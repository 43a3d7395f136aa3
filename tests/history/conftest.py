"""A history of its own for each test, to write and to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock.history.reading import SQLiteReader
from penstock.history.sqlite import SQLiteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of a history that is not made yet."""
    return tmp_path / "history.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    """Give an empty history, open for writing."""
    with closing(SQLiteStore(path)) as store:
        yield store


@pytest.fixture
def reader(store: SQLiteStore, path: Path) -> Iterator[SQLiteReader]:
    """Give the same history, open for reading."""
    with closing(SQLiteReader(path)) as reader:
        yield reader
