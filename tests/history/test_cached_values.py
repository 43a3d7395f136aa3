from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.core.caching import Kept
from penstock.history.base import Group
from penstock.history.cache_store import Claimant, Wanted
from penstock.history.cached_values import SILENT_AFTER, SQLiteCacheStore
from penstock.history.owners import host_name, process_started_at
from penstock.history.sqlite import SQLiteStore
from tests.history.rows import select, task_run_row

SECOND = 1_000_000_000
RUN = bytes(15) + b"1"
OTHER = bytes(15) + b"2"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "history.db")
    yield store
    store.close()


@pytest.fixture
def cache(store: SQLiteStore) -> Iterator[SQLiteCacheStore]:
    cache = SQLiteCacheStore(store.path)
    yield cache
    cache.close()


def keep(store: SQLiteStore, run: bytes, at: int, expires_at: int | None = None) -> None:
    row = task_run_row(None, id=run, state="COMPLETED", result=b"7", result_codec="json")
    store.write(Group(task_runs=[row], cache=[("k", run, at, expires_at)]))


def claim_of(store: SQLiteStore, **values: object) -> None:
    given: dict[str, object] = {"key": "k", "claim": b"theirs", "beat_at": 0}
    given |= {"host": "elsewhere", "pid": 7, "pid_started_at": 1} | values
    connection = sqlite3.connect(store.path)
    names = ", ".join(given)
    places = ", ".join("?" * len(given))
    with connection:
        connection.execute(
            f"INSERT INTO cache_claims ({names}) VALUES ({places})", list(given.values())
        )
    connection.close()


def test_a_value_comes_with_the_end_of_its_run(store: SQLiteStore, cache: SQLiteCacheStore) -> None:
    assert cache.find("k") is None
    keep(store, RUN, SECOND, 2 * SECOND)

    assert cache.find("k") == Kept(b"7", "json", RUN, SECOND, 2 * SECOND)


def test_a_later_value_replaces_an_earlier_one_only(
    store: SQLiteStore, cache: SQLiteCacheStore
) -> None:
    keep(store, OTHER, 2 * SECOND)
    keep(store, RUN, SECOND)

    found = cache.find("k")
    assert found is not None
    assert found.run_key == OTHER


def test_a_key_whose_run_is_gone_has_no_value(store: SQLiteStore, cache: SQLiteCacheStore) -> None:
    store.write(Group(cache=[("k", RUN, SECOND, None)]))

    assert cache.find("k") is None


def test_a_claim_is_made_once_and_ends_with_its_run(
    store: SQLiteStore, cache: SQLiteCacheStore
) -> None:
    assert cache.take([Wanted("k", b"mine", None), Wanted("l", b"mine too", None)], 5) == [None] * 2
    assert cache.claimant("k") == Claimant(
        b"mine", 5, host_name(), os.getpid(), process_started_at(os.getpid())
    )
    store.write(Group(claims_ended=[("k", b"another"), ("l", b"mine too")]))
    assert cache.claimant("k") is not None
    assert cache.claimant("l") is None
    cache.give_up("k", b"mine")
    assert cache.claimant("k") is None


def test_taking_gives_the_value_that_is_there_by_now(
    store: SQLiteStore, cache: SQLiteCacheStore
) -> None:
    keep(store, RUN, SECOND, 3 * SECOND)
    wanted = Wanted("k", b"mine", None)

    (found,) = cache.take([wanted], 2 * SECOND)
    assert isinstance(found, Kept)
    assert cache.claimant("k") is None
    assert cache.take([wanted._replace(but_not=RUN)], 2 * SECOND) == [None]
    assert cache.take([wanted], 3 * SECOND) == [None]


def test_the_claim_of_one_that_lives_is_respected(
    store: SQLiteStore, cache: SQLiteCacheStore
) -> None:
    claim_of(store, beat_at=SECOND)
    wanted = Wanted("k", b"mine", None)

    (claimant,) = cache.take([wanted], 2 * SECOND)
    assert isinstance(claimant, Claimant)
    assert claimant.claim == b"theirs"
    late = SECOND + int(SILENT_AFTER * SECOND) + 1
    assert cache.take([wanted], late) == [None]
    assert select(Path(store.path), "SELECT claim FROM cache_claims") == [(b"mine",)]


def test_the_claim_of_a_process_that_is_gone_is_taken_over_at_once(
    store: SQLiteStore, cache: SQLiteCacheStore
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_started_at(child.pid)
    claim_of(store, beat_at=SECOND, host=host_name(), pid=child.pid, pid_started_at=started)
    wanted = Wanted("k", b"mine", None)

    assert isinstance(cache.take([wanted], SECOND)[0], Claimant)
    child.communicate(b"\n")
    assert cache.take([wanted], SECOND) == [None]


def test_signs_of_life_are_those_of_this_process(
    store: SQLiteStore, cache: SQLiteCacheStore
) -> None:
    claim_of(store, key="theirs", beat_at=1)
    cache.take([Wanted("k", b"mine", None)], 1)
    cache.beat(9)

    rows = select(Path(store.path), "SELECT key, beat_at FROM cache_claims ORDER BY key")
    assert rows == [("k", 9), ("theirs", 1)]
