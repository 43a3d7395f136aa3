"""Containers: what was changed is refused before anything is unpickled (J1, J2, J4)."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ResultCorrupt, ResultMissing, ResultStorageError
from penstock.results.container import MAGIC, open_head
from penstock.results.kept import load_kept
from penstock.results.local import LocalStorage
from penstock.results.references import read_kept, reference_of, why_unusable
from penstock.version import __version__
from tests.results.storages import keep, sha256


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(str(tmp_path / "results"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results" / "a" / "b-1"


VALUE: dict[str, Any] = {"numbers": list(range(1000)), "array": numpy.arange(20_000.0)}


def test_header_tells_what_it_takes_to_load(storage: LocalStorage, file: Path) -> None:
    reference = reference_of(keep(storage, VALUE))
    opened = open_head(file.read_bytes())
    assert opened is not None
    header = opened.header
    assert header["serializer"] == "pickle"
    assert header["python"] == sys.version.split()[0]
    assert header["penstock"] == __version__
    assert header["libraries"]["numpy"] == numpy.__version__
    body = file.read_bytes()[len(opened.head) :]
    assert header["length"] == len(body)
    assert header["sha256"] == sha256(body) == reference.sha256
    assert sha256(opened.head) == reference.head
    assert reference.size == file.stat().st_size


@settings(deadline=None)
@given(data=st.data())
def test_any_change_is_refused(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        storage, file = LocalStorage(folder), Path(folder) / "a" / "b-1"
        reference = keep(storage, {"numbers": list(range(100))})
        stored = bytearray(file.read_bytes())
        how = data.draw(st.sampled_from(["flip", "cut", "append", "zero"]))
        at = data.draw(st.integers(0, len(stored) - 1))
        if how == "flip":
            stored[at] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del stored[at:]
        elif how == "append":
            stored += b"x"
        else:
            stored[:] = bytes(len(stored))
        file.write_bytes(stored)
        with pytest.raises(ResultCorrupt, match="is not what was stored: .* It was not loaded"):
            load_kept(reference, "stored")
        assert why_unusable(reference, "stored")


def test_malicious_pickle_in_its_place_is_not_loaded(
    storage: LocalStorage, file: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    evil = pickle.dumps(Malicious(canary))
    reference = keep(storage, b"x" * (len(evil) - 16), name="a/b-1")
    size = file.stat().st_size
    keep(storage, Malicious(canary))
    data = file.read_bytes()
    file.write_bytes(data[:size].ljust(size, b"\0"))
    with pytest.raises(ResultCorrupt):
        load_kept(reference, "stored")
    assert why_unusable(reference, "stored")
    assert not canary.exists()


def test_whole_container_of_another_run_is_not_loaded(
    storage: LocalStorage, file: Path, tmp_path: Path
) -> None:
    reference = keep(storage, ["mine!"])
    keep(storage, ["other"], name="a/other")
    file.write_bytes((file.parent / "other").read_bytes())
    with pytest.raises(ResultCorrupt, match="its head is not the one"):
        load_kept(reference, "stored")


def test_edited_header_is_refused(storage: LocalStorage, file: Path) -> None:
    reference = keep(storage, [1, 2, 3])
    data = file.read_bytes()
    assert data.count(b'"serializer":"pickle"') == 1
    file.write_bytes(data.replace(b'"serializer":"pickle"', b'"serializer":"sickle"'))
    with pytest.raises(ResultCorrupt, match="its head is not the one that was written"):
        load_kept(reference, "stored")


def test_deleted_object_is_missing(storage: LocalStorage, file: Path) -> None:
    reference = keep(storage, [1])
    file.unlink()
    with pytest.raises(ResultMissing, match="a/b-1 is not there any more"):
        load_kept(reference, "stored")
    assert (why_unusable(reference, "stored") or "").endswith("is not there any more.")


def test_looking_never_unpickles(storage: LocalStorage, tmp_path: Path) -> None:
    reference = keep(storage, Malicious(tmp_path / "canary"))
    assert why_unusable(reference, "stored") is None
    data, serializer = read_kept(reference, "stored")
    assert serializer == "pickle"
    assert b"canary" in data
    assert not (tmp_path / "canary").exists()


def test_looking_loads_no_pickle() -> None:
    import subprocess

    code = (
        "import sys\nimport penstock.results.references, penstock.results.sweeping\n"
        "assert sys.modules.keys().isdisjoint({'pickle', 'cloudpickle', 'fsspec'})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"storage": "/x"}',
        b'{"storage": 1, "name": "a", "size": 1, "sha256": "", "head": "", "serializer": ""}',
        b'{"storage": "/x", "name": "../a", "size": 1, "sha256": "", "head": "", "serializer": ""}',
    ],
)
def test_damaged_reference_is_told(data: bytes) -> None:
    with pytest.raises(ResultCorrupt, match="The history's entry of a stored result is damaged"):
        load_kept(data, "stored")
    assert "damaged" in (why_unusable(data, "stored") or "")


def test_damaged_small_result_is_told() -> None:
    with pytest.raises(ResultStorageError, match="The kept result cannot be rebuilt here"):
        load_kept(b"\x80nothing", "pickle")


def test_what_cannot_be_rebuilt_is_told(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = keep(storage, Malicious(Path("/nowhere/x")))
    with pytest.raises(ResultStorageError, match="is whole, but cannot be rebuilt here: FileNotF"):
        load_kept(reference, "stored")


@given(st.binary(max_size=200))
def test_anything_else_is_no_container(data: bytes) -> None:
    assert open_head(data) is None
    assert open_head(MAGIC + data) is None


def test_arrays_are_where_they_were_written(storage: LocalStorage) -> None:
    back = load_kept(keep(storage, VALUE), "stored")
    assert back["array"].flags.aligned
    assert not back["array"].flags.owndata
    assert numpy.array_equal(back["array"], VALUE["array"])
