"""Small results: exact, bounded, and never a reason to fail."""

from __future__ import annotations

import json
import pickle
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, task
from penstock.results.small import SMALL_RESULT_LIMIT, encode_small
from tests.history.rows import select

DECODERS: dict[str | None, Any] = {"json": json.loads, "pickle": pickle.loads}

VALUES = [
    None,
    True,
    False,
    0,
    -(2**100),
    2**5_000,
    "",
    "ü\0\ud800😀",
    "x" * 1_000,
    b"\0\xff",
    1.5,
    float("inf"),
    -0.0,
    (1, "a", None),
    [1, [2, {"a": {3}}]],
    {1: 2, (3,): 4},
    range(5),
    complex(1, 2),
    Path("/tmp"),
    len,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_value_comes_back_exactly(value: object) -> None:
    data, codec = encode_small(value)
    assert data is not None
    back = DECODERS[codec](data)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize("size", [SMALL_RESULT_LIMIT - 2, SMALL_RESULT_LIMIT - 1])
def test_limit_is_on_the_encoded_size(size: int) -> None:
    data, _ = encode_small("x" * size)
    assert (data is not None) == (size + 2 <= SMALL_RESULT_LIMIT)


LARGE: dict[str, Callable[[], object]] = {
    "str": lambda: "x" * 50_000_000,
    "bytes": lambda: b"x" * 50_000_000,
    "bytearray": lambda: bytearray(50_000_000),
    "list": lambda: list(range(2_000_000)),
    "list of bytes": lambda: [b"x" * 50_000_000],
    "buffer": lambda: [pickle.PickleBuffer(bytearray(50_000_000))],
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_value_costs_little(kind: str) -> None:
    value = LARGE[kind]()
    encode_small(1)
    tracemalloc.start()
    try:
        began = time.thread_time()
        assert encode_small(value) == (None, None)
        seconds, (_, peak) = time.thread_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
    assert seconds < 0.5


class Refuses:
    """Cannot be pickled, in a way of its own."""

    def __init__(self, problem: BaseException) -> None:
        self.problem = problem

    def __reduce__(self) -> Any:
        raise self.problem


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        lambda: 1,
        Refuses(ValueError("no")),
        Refuses(SystemExit(3)),
        nested(10 * sys.getrecursionlimit()),
        sys.modules,
    ],
    ids=["lock", "lambda", "raises", "exits", "deep", "modules"],
)
def test_value_that_cannot_be_pickled_is_not_kept(value: object) -> None:
    assert encode_small(value) == (None, None)


def test_results_are_in_the_history(penstock_home: Path) -> None:
    @task
    def give(value: Any) -> Any:
        return value

    @flow
    def main() -> str:
        for value in (7, [1, 2], "x" * 100_000, threading.Lock()):
            give(value)
        return "done"

    main()
    path = penstock_home / "history.db"
    rows = select(path, "SELECT result, result_codec FROM task_runs ORDER BY id")
    assert rows == [(b"7", "json"), (pickle.dumps([1, 2], 5), "pickle"), (None, None), (None, None)]
    assert select(path, "SELECT result, result_codec FROM flow_runs") == [(b'"done"', "json")]
