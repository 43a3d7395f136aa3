"""Storages that fail: what passes is tried again, what does not is told at once (J5, J9)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, task
from penstock.errors import ResultMissing, ResultStorageError
from penstock.results import filesystems
from penstock.results import storage as storages
from penstock.results.filesystems import FsspecStorage
from penstock.results.kept import load_kept
from tests.history.rows import select
from tests.results import faulty
from tests.results.storages import content, keep

SLOW_DOWN = OSError(16, "Please reduce your request rate.")
LOCATION = "faulty://bucket/runs"


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(filesystems, "FIRST_DELAY", 0.0)
    storages._storages.clear()
    yield from faulty.registered()
    storages._storages.clear()


@pytest.fixture
def storage() -> FsspecStorage:
    return FsspecStorage(LOCATION)


PASSING: list[Any] = [
    SLOW_DOWN,
    TimeoutError("timed out"),
    ConnectionResetError(104, "Connection reset by peer"),
    OSError("503 Service Unavailable"),
    RuntimeError("unexpected end of the answer"),
    "short",
    "lost",
]


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_what_passes_is_tried_again(storage: FsspecStorage, fault: Any) -> None:
    faulty.schedule[:] = [fault, fault, fault]
    storage.write("a/b", content(b"body"))
    assert storage.read("a/b") == b"headbody"
    assert faulty.calls == ["wb"] * 4 + ["rb"]


def test_burst_while_reading_is_tried_again(storage: FsspecStorage) -> None:
    storage.write("a", content(b"body"))
    faulty.schedule[:] = [SLOW_DOWN, TimeoutError("slow body")]
    assert storage.read("a") == b"headbody"


def test_what_does_not_pass_in_time_is_told_with_its_attempts(
    storage: FsspecStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 100.0, 299.0, 301.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    faulty.schedule[:] = [SLOW_DOWN] * 10
    with pytest.raises(ResultStorageError, match="cannot be stored after 3 attempts: .*reduce you"):
        storage.write("a", content(b"x"))


def test_delays_grow_and_are_bounded(
    storage: FsspecStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(filesystems, "FIRST_DELAY", 0.2)
    monkeypatch.setattr(time, "sleep", waited.append)
    faulty.schedule[:] = [SLOW_DOWN] * 12
    storage.write("a", content(b"x"))
    for number, seconds in enumerate(waited):
        longest = min(0.2 * 2**number, filesystems.LONGEST_DELAY)
        assert longest / 2 <= seconds <= longest


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (PermissionError("Access Denied"), "Check the credentials"),
        (PermissionError("RequestTimeTooSkewed"), "the clock of this machine"),
        (FileNotFoundError("The specified bucket does not exist"), "Check that the bucket"),
    ],
    ids=repr,
)
def test_what_does_not_pass_is_told_at_once(
    storage: FsspecStorage, fault: Exception, advice: str
) -> None:
    faulty.schedule[:] = [fault, fault]
    with pytest.raises(ResultStorageError) as caught:
        storage.write("a", content(b"x"))
    assert f"{LOCATION}/a cannot be stored: {type(fault).__name__}: {fault}" in str(caught.value)
    assert advice in str(caught.value)
    assert faulty.calls == ["wb"]


def test_secrets_are_in_no_text(storage: FsspecStorage) -> None:
    faulty.schedule[:] = [PermissionError("403 for aws_secret_access_key=canary-4711 token=abc")]
    with pytest.raises(ResultStorageError) as caught:
        storage.write("a", content(b"x"))
    assert "canary-4711" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_task_fails_with_what_where_and_why_and_retries_apply(penstock_home: Path) -> None:
    tries = []

    @task(persist_result=True, result_storage=LOCATION, retries=1)
    def large() -> bytes:
        tries.append(1)
        return b"x" * 100_000

    @flow
    def example() -> None:
        assert large() == b"x" * 100_000

    faulty.schedule[:] = [PermissionError("expired token")]
    example()
    assert len(tries) == 2
    ((data, codec, attempt),) = select(
        penstock_home / "history.db", "SELECT result, result_codec, attempt FROM task_runs"
    )
    assert (codec, attempt) == ("stored", 2)
    assert load_kept(data, codec) == b"x" * 100_000


def test_flow_whose_result_cannot_be_stored_fails() -> None:
    @flow(persist_result=True, result_storage=LOCATION)
    def example() -> bytes:
        return b"x" * 100_000

    faulty.schedule[:] = [PermissionError("no")]
    state: Any = example(return_state=True)
    assert state.is_failed()
    assert "ResultStorageError: The result faulty://bucket/runs/" in state.message
    assert "/flow-1 cannot be stored: PermissionError: no" in state.message


def test_part_that_has_arrived_does_not_stay(
    storage: FsspecStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "PATIENCE", -1.0)
    faulty.schedule[:] = ["short"]
    with pytest.raises(ResultStorageError, match="cannot be stored: Incomplete: 6 bytes of 8"):
        storage.write("a/b", content(b"body"))
    assert list(storage.objects()) == []


def test_what_breaks_off_while_it_is_written_is_not_put(storage: FsspecStorage) -> None:
    class Broken(bytes):
        def __getitem__(self, part: Any) -> Any:
            raise PermissionError("gone away")

    with pytest.raises(ResultStorageError, match="gone away"):
        storage.write("a/b", content(b"")._replace(body=[b"x", Broken(b"more")]))
    assert list(storage.objects()) == []


def test_object_that_is_gone_is_missing_at_once(storage: FsspecStorage) -> None:
    reference = keep(storage, [1])
    storage.delete("a/b-1")
    with pytest.raises(ResultMissing):
        load_kept(reference, "stored")
