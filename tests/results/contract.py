"""What every result storage does."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest

from penstock.errors import InvalidOptionError, ResultCorrupt, ResultMissing
from penstock.results.base import Content, ResultStorage
from penstock.results.kept import load_kept
from penstock.results.references import why_unusable
from tests.results.storages import content, keep


class StorageContract:
    """Subclasses give a `storage` fixture: empty, and gone after the test."""

    def test_object_comes_back(self, storage: ResultStorage) -> None:
        storage.write("run/task-1", content(b"body", pieces=2))
        assert storage.read("run/task-1") == b"headbody"
        assert storage.size("run/task-1") == 8

    @pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
    def test_object_of_any_size_comes_back(self, storage: ResultStorage, size: int) -> None:
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        storage.write("a", content(data, pieces=700))
        assert storage.read("a") == b"head" + data

    def test_beginning_can_be_read_alone(self, storage: ResultStorage) -> None:
        storage.write("a/b", content(b"0123456789"))
        assert storage.read("a/b", 6) == b"head01"
        assert storage.read("a/b", 1000) == b"head0123456789"

    def test_object_replaces_another(self, storage: ResultStorage) -> None:
        storage.write("a/b", content(b"a long one" * 1000))
        storage.write("a/b", content(b"short"))
        assert storage.read("a/b") == b"headshort"

    def test_object_that_is_not_there_is_missing(self, storage: ResultStorage) -> None:
        storage.write("a/b", content(b"x"))
        for name in ("a/c", "c", "c/d"):
            with pytest.raises(ResultMissing, match="is not there any more"):
                storage.read(name)
            with pytest.raises(ResultMissing, match="is not there any more"):
                storage.size(name)

    def test_deleted_object_is_missing(self, storage: ResultStorage) -> None:
        storage.write("a/b", content(b"x"))
        storage.write("a/c", content(b"y"))
        storage.delete("a/b")
        with pytest.raises(ResultMissing):
            storage.read("a/b")
        assert storage.read("a/c") == b"heady"

    def test_deleting_twice_does_no_harm(self, storage: ResultStorage) -> None:
        storage.write("a/b", content(b"x"))
        storage.delete("a/b")
        storage.delete("a/b")
        storage.delete("nowhere/b")

    def test_object_can_be_written_where_all_was_deleted(self, storage: ResultStorage) -> None:
        storage.write("a/b", content(b"x"))
        storage.delete("a/b")
        storage.write("a/b", content(b"y"))
        assert storage.read("a/b") == b"heady"

    def test_objects_are_listed(self, storage: ResultStorage) -> None:
        assert list(storage.objects()) == []
        began = time.time()
        for name in ("top", "a/b", "a/c", "a/d/e"):
            storage.write(name, content(b"x" * len(name)))
        found = {each.name: each for each in storage.objects()}
        assert {name: each.size for name, each in found.items()} == {
            "top": 7,
            "a/b": 7,
            "a/c": 7,
            "a/d/e": 9,
        }
        assert not any(each.is_temporary for each in found.values())
        for each in found.values():
            assert each.changed_at is not None
            assert abs(each.changed_at - began) < 60

    @pytest.mark.parametrize(
        "name", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a\0b", "a b", "ä", "a" * 129]
    )
    def test_name_that_leads_elsewhere_is_refused(self, storage: ResultStorage, name: str) -> None:
        with pytest.raises(InvalidOptionError, match="is to be stored as"):
            storage.write(name, content(b"x"))
        assert list(storage.objects()) == []

    def test_head_is_asked_for_once(self, storage: ResultStorage) -> None:
        asked = []

        def head() -> bytes:
            asked.append(1)
            return b"head"

        storage.write("a", Content(4, head, [b"body"], 8))
        assert len(asked) == 1
        assert storage.read("a") == b"headbody"

    def test_many_threads_store_at_once(self, storage: ResultStorage) -> None:
        barrier = threading.Barrier(4)

        def store(number: int) -> None:
            barrier.wait()
            for each in range(5):
                storage.write(f"run/{number}-{each}", content(bytes([number]) * 1000))
                storage.write("run/same", content(bytes([number]) * 1000))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store, range(4)))
        assert len(list(storage.objects())) == 21
        assert len(set(storage.read("run/same")[4:])) == 1
        assert storage.read("run/3-4") == b"head" + b"\3" * 1000

    def test_location_opens_the_same_place(self, storage: ResultStorage) -> None:
        reference = keep(storage, {"a": [1, 2]})
        assert why_unusable(reference, "stored") is None
        assert load_kept(reference, "stored") == {"a": [1, 2]}

    @pytest.mark.parametrize("by", ["pickle", "compressed/pickle", "compressed/lzma/pickle"])
    def test_arrays_come_back(self, storage: ResultStorage, by: str) -> None:
        value: dict[str, Any] = {
            "a": numpy.arange(50_000.0),
            "b": numpy.ones((100, 100), order="F"),
            "c": b"x",
        }
        back = load_kept(keep(storage, value, by=by), "stored")
        assert numpy.array_equal(back["a"], value["a"])
        assert numpy.array_equal(back["b"], value["b"])
        assert back["a"].flags.writeable
        back["a"] += 1

    def test_missing_result_is_named(self, storage: ResultStorage) -> None:
        reference = keep(storage, [1])
        storage.delete("a/b-1")
        with pytest.raises(ResultMissing, match="a/b-1 is not there any more"):
            load_kept(reference, "stored")
        assert "is not there any more" in (why_unusable(reference, "stored") or "")

    def test_changed_result_is_refused(self, storage: ResultStorage) -> None:
        reference = keep(storage, list(range(1000)))
        data = storage.read("a/b-1")
        data[-10] ^= 1
        storage.write("a/b-1", Content(0, lambda: b"", [bytes(data)], len(data)))
        with pytest.raises(ResultCorrupt, match="another SHA-256 .* It was not loaded"):
            load_kept(reference, "stored")
