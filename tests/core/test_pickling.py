"""Objects become bytes: in bounds, and in files with their large buffers apart."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.core.pickling import LARGE_BYTES, dump_bounded, dump_into


def test_bounded_pickle() -> None:
    data = dump_bounded([1, 2], 100)
    assert data is not None
    assert pickle.loads(data) == [1, 2]
    assert dump_bounded(["x" * 90], 100) is None
    assert dump_bounded([np.zeros(1000)], 1000) is None
    assert dump_bounded([lambda: "x" * 50, bytes(5_000)], 1000) is None


@pytest.mark.parametrize(
    "value",
    [
        [1, "two", {3: None}],
        bytes(3 * LARGE_BYTES),
        "__main__",
        ["__main__", bytes(2 * LARGE_BYTES)],
        list(range(300_000)),
    ],
    ids=["small", "bytes", "a name", "a name and bytes", "many"],
)
def test_into_a_file(value: Any, tmp_path: Path) -> None:
    with (tmp_path / "value").open("w+b", buffering=0) as file:
        file.write(b"before")
        assert dump_into(file, value) == []
        file.seek(len(b"before"))
        assert pickle.load(file) == value
        assert file.read() == b""


def test_large_buffers_stay_out_of_the_file(tmp_path: Path) -> None:
    large, small = np.arange(LARGE_BYTES, dtype="u1"), np.ones(1_000)
    with (tmp_path / "value").open("w+b", buffering=0) as file:
        buffers = dump_into(file, {"large": large, "small": small, "code": lambda: 5})
        assert [buffer.nbytes for buffer in buffers] == [LARGE_BYTES]
        assert file.tell() < 100_000
        file.seek(0)
        value = pickle.load(file, buffers=buffers)
    assert value["large"].base is not None
    assert np.shares_memory(value["large"], large)
    assert (value["small"] == small).all()
    assert value["code"]() == 5
