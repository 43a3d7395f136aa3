"""Completed task runs found by identity, in whatever order they are asked for."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock.history.base import Group
from penstock.history.kept_runs import SQLiteKeptRuns
from penstock.history.reading import SQLiteReader
from penstock.history.resumable import KeptRuns
from penstock.history.sqlite import SQLiteStore
from tests.history.rows import flow_run_row, new_id, task_run_row

NUMBER = 3_000


def identity_of(number: int) -> bytes:
    """Give identities of which many have equal halves."""
    return (number % 7).to_bytes(8, "big") + number.to_bytes(8, "big")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a history of two flow runs whose task runs alternate."""
    path = tmp_path_factory.mktemp("kept") / "history.db"
    first, second = bytes([1]) * 16, bytes([2]) * 16
    group = Group(flow_runs=[flow_run_row(first), flow_run_row(second)])
    for number in range(NUMBER):
        for flow_run, result in ((first, b"1"), (second, b"2")):
            state = "FAILED" if number % 10 == 9 else "COMPLETED"
            group.task_runs.append(
                task_run_row(
                    flow_run,
                    identity=identity_of(number),
                    number=number,
                    state=state,
                    result=result,
                )
            )
    with closing(SQLiteStore(path)) as store:
        store.write(group)
    return path


@pytest.fixture
def kept(path: Path) -> Iterator[KeptRuns]:
    with closing(SQLiteReader(path)) as reader:
        yield reader.kept_runs("01" * 16)


@pytest.mark.parametrize("order", ["as recorded", "backwards", "random", "nearly as recorded"])
def test_each_is_found_in_any_order(kept: KeptRuns, order: str) -> None:
    numbers = list(range(NUMBER))
    if order == "backwards":
        numbers.reverse()
    elif order == "random":
        random.Random(3).shuffle(numbers)
    elif order == "nearly as recorded":
        numbers.sort(key=lambda number: number + random.Random(number).random() * 40)
    assert len(kept) == NUMBER * 9 // 10
    for number in numbers:
        row = kept.find(identity_of(number))
        if number % 10 == 9:
            assert row is None
        else:
            assert row is not None
            assert (row.number, row.result, row.codec) == (number, b"1", "json")


def test_what_is_not_there_is_not_found(kept: KeptRuns) -> None:
    for identity in (bytes(16), b"\xff" * 16, identity_of(NUMBER), identity_of(5)[:8] + bytes(8)):
        if identity != identity_of(0):
            assert kept.find(identity) is None


def test_of_several_the_last_one_counts(tmp_path: Path) -> None:
    flow_run = new_id()
    rows = [
        task_run_row(flow_run, identity=identity_of(1), number=number, result=str(number).encode())
        for number in range(3)
    ]
    with closing(SQLiteStore(tmp_path / "history.db")) as store:
        store.write(Group(flow_runs=[flow_run_row(flow_run)], task_runs=rows))
    with closing(SQLiteReader(tmp_path / "history.db")) as reader:
        row = reader.kept_runs(flow_run.hex()).find(identity_of(1))
    assert row is not None
    assert row.result == b"2"


def test_few_reads_in_the_order_of_recording(path: Path) -> None:
    with closing(SQLiteReader(path)) as reader:
        kept = reader.kept_runs("01" * 16)
        assert isinstance(kept, SQLiteKeptRuns)
        read, places = kept._read, []

        def counted(place: int) -> object:
            places.append(place)
            return read(place)

        kept._read = counted  # type: ignore[method-assign, assignment]
        for number in range(NUMBER):
            kept.find(identity_of(number))
    assert len(places) < 40


def test_threads_may_share_it(kept: KeptRuns) -> None:
    problems: list[object] = []

    def look(seed: int) -> None:
        numbers = [number for number in range(NUMBER) if number % 10 != 9]
        random.Random(seed).shuffle(numbers)
        for number in numbers[:500]:
            row = kept.find(identity_of(number))
            if row is None or row.number != number:
                problems.append((number, row))

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
