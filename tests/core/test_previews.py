from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import os
import pathlib
import time
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.annotations import Dependency, quote
from penstock.core.previews import (
    LIMIT,
    MASK,
    TOTAL_LIMIT,
    is_secret_name,
    mask_secrets,
    preview,
    preview_parameters,
)

CANARY = "hunter2canary"


class Hostile:
    """Fails the test when any of its code is run."""

    def _refuse(self, *args: object) -> NoReturn:
        raise AssertionError("user code was run")

    __repr__ = __str__ = __len__ = __iter__ = __getattr__ = __format__ = _refuse
    __eq__ = __hash__ = __bool__ = _refuse


class HostileList(list[Any]):
    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = Hostile._refuse


class HostileText(str):
    __repr__ = __str__ = __len__ = __getitem__ = Hostile._refuse


class HostileInt(int):
    __repr__ = __str__ = __abs__ = bit_length = Hostile._refuse


class HostileError(Exception):
    __repr__ = __str__ = Hostile._refuse


@dataclasses.dataclass
class Point:
    x: Any
    password: Any = None
    hidden: Any = dataclasses.field(default=0, repr=False)

    def __repr__(self) -> str:
        raise AssertionError


class Pair(NamedTuple):
    left: Any
    token: Any = None


class Color(enum.Enum):
    RED = HostileText("red")


class Number(enum.IntEnum):
    ONE = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class SecretStr:
    def __init__(self, value: str) -> None:
        self.value = value


class Future(Dependency):
    name = "load-0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "1"), (-(2**70), str(-(2**70))), (True, "True"), (None, "None"), (1.5, "1.5"),
        (1j, "1j"), (float("nan"), "nan"), ("it's", '"it\'s"'), (b"x\x00", r"b'x\x00'"),
        (bytearray(b"x"), "b'x'"), ([], "[]"), ((), "()"), ((1,), "(1,)"), ([1, "a"], "[1, 'a']"),
        (set(), "set()"), (frozenset(), "frozenset()"), ({1}, "{1}"), ({}, "{}"),
        ({"a": [1, (2, 3)]}, "{'a': [1, (2, 3)]}"), (range(3), "range(0, 3)"),
        (decimal.Decimal("1.50"), "1.50"), (fractions.Fraction(1, 3), "1/3"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.UTC), "2024-01-02 03:00:00+00:00"),
        (datetime.timedelta(hours=1), "1:00:00"), (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Color.RED, "Color.RED"), (Number.ONE, "Number.ONE"), (Mode.READ, "Mode.READ"),
        (np.float64(1.5), "1.5"), (np.int64(3), "3"), (np.bool_(True), "True"),
        (np.zeros((3, 4)), "<numpy.ndarray shape=(3, 4) dtype=float64>"),
        (np.array(5), "<numpy.ndarray shape=() dtype=int64>"),
        (pd.DataFrame({"a": [1, 2]}), "<pandas.DataFrame shape=(2, 1)>"),
        (pd.Series([1, 2]), "<pandas.Series shape=(2,) dtype=int64>"),
        (pd.Timestamp("2024-01-02"), "2024-01-02 00:00:00"),
        (Point(1, "s"), f"Point(x=1, password='{MASK}')"),
        (Pair([1], "s"), f"Pair(left=[1], token='{MASK}')"),
        (ValueError("bad", 1), "ValueError('bad', 1)"), (int, "<class int>"),
        (len, "<function len>"), (os.path.join, "<function posixpath.join>"), (os, "<module os>"),
        (SecretStr("x"), MASK), (quote([1]), "quote([1])"), (Future(), "<Future load-0>"),
        (collections.OrderedDict(a=1), "{'a': 1}"),
        (HostileList([1]), "[1]"), (HostileText("a"), "'a'"), (HostileInt(5), "5"),
        (types.SimpleNamespace(a=1), "<types.SimpleNamespace>"), (object(), "<object>"),
        ("\ud800\u202e\x1b", r"'\ud800\u202e\x1b'"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_previews(value: object, expected: str) -> None:
    assert preview(value) == expected


def object_array(value: object) -> Any:
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


HOSTILE: list[Callable[[], object]] = [
    Hostile,
    lambda: [Hostile()],
    lambda: {"a": Hostile()},
    lambda: Point(Hostile()),
    lambda: Pair(Hostile()),
    lambda: HostileError(Hostile()),
    lambda: object_array(Hostile()),
    lambda: pd.Series(object_array(Hostile())),
    lambda: type("DataFrame", (Hostile,), {"__module__": "user"})(),
    lambda: type("Decimal", (Hostile,), {"__module__": "decimal"})(),
]


@pytest.mark.parametrize("make", HOSTILE)
def test_no_code_of_the_user_is_run(make: Callable[[], object]) -> None:
    value = make()
    assert isinstance(preview(value), str)
    json.loads(preview_parameters(("x",), (value,)))


def endless_nesting() -> list[Any]:
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    return cycle


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 100_000_000,
        lambda: b"x" * 100_000_000,
        lambda: ["x" * 1_000_000] * 1000,
        lambda: list(range(10_000_000)),
        lambda: {index: index for index in range(1_000_000)},
        lambda: set(range(1_000_000)),
        lambda: [[[[[]] * 1000] * 1000] * 1000] * 1000,
        lambda: 1 << 50_000_000,
        lambda: [1 << 50_000_000],
        endless_nesting,
        lambda: np.zeros(10_000_000),
        lambda: range(10**100),
        lambda: decimal.Decimal(10**4200 + 1),
    ],
)
def test_large_values_take_little_time_and_room(make: Callable[[], object]) -> None:
    value = make()
    preview(value)
    before = time.thread_time()
    text = preview(value)
    assert time.thread_time() - before < 0.02
    assert len(text) <= LIMIT
    assert len(preview(value, 20)) <= 20


def test_what_is_left_out_is_counted() -> None:
    text = preview(list(range(1000)), 60)
    assert text.startswith("[0, 1, 2, 3")
    assert "\u2026 +9" in text
    assert preview("x" * 300) == "'" + "x" * 198 + "\u2026"


# --- secrets ---


@pytest.mark.parametrize(
    "name",
    [
        "password", "PASSWORD", "db_password", "dbPassword", "passwd", "user-passwd", "secret",
        "client_secret", "token", "accessToken", "AUTH_TOKEN", "api_key", "apikey", "apiKey",
        "API-KEY", "aws_access_key_id", "private_key", "credential", "credentials",
        "authorization", "Authorization", "auth", "basic_auth", "pwd", "jwt", "passphrase",
        "APIKey", "cookie", "password1", "token2",
    ],
)  # fmt: skip
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)
    assert CANARY not in preview_parameters((name,), (CANARY,))
    assert CANARY not in preview({name: CANARY})
    assert CANARY not in preview([{"deep": {name: [CANARY]}}])
    assert CANARY not in preview([(name, CANARY)])


@pytest.mark.parametrize(
    "name",
    ["x", "author", "key", "keys", "max_tokens", "tokenizer", "path", "passes", "compass", ""],
)
def test_ordinary_names(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        f"postgres://ada:{CANARY}@host/db",
        f"see https://ada:{CANARY}@host, please",
        f"redis://:{CANARY}@host",
        f"postgres://ada:p/w@{CANARY}@host/db",
        f"host=x password={CANARY} user=y",
        f"https://host/?user=x&token={CANARY}",
        f"Authorization: Bearer {CANARY}",
        f'{{"api_key": "{CANARY}"}}',
        f"AWS_SECRET_ACCESS_KEY={CANARY}",
        f"--password={CANARY}",
    ],
)
def test_secrets_inside_texts(text: str) -> None:
    assert CANARY not in mask_secrets(text)
    for value in (text, [text], {"url": text}, text.encode(), ValueError(text), Pair(text)):
        assert CANARY not in preview(value)
        assert MASK in preview(value)


@given(st.integers(0, 400), st.integers(12, 300))
def test_a_cut_uncovers_no_secret(padding: int, limit: int) -> None:
    password = "s3cr3t" * 100
    text = "p" * padding + f" postgres://ada:{password}@host"
    assert "s3c" not in preview(text, limit)
    assert "s3c" not in preview([{"password": password}, text], limit)
    long = "p" * padding + f" postgres://ada:{password * 20}@host"
    assert "s3c" not in preview(long, limit)


def test_ordinary_texts_are_left_alone() -> None:
    for text in ("http://host:8080/path", "a: b", "x=1", "ratio 3:4", "https://host/a?b=c"):
        assert mask_secrets(text) == text


# --- parameters ---


def test_parameters_are_a_json_object() -> None:
    text = preview_parameters(("x", "key\n", "api_key", "big"), (1, 'a"b', CANARY, 10**30))
    assert json.loads(text) == {"x": "1", "key\n": "'a\"b'", "api_key": MASK, "big": str(10**30)}
    assert preview_parameters((), ()) == "{}"


def test_secret_numbers_are_masked_too() -> None:
    assert json.loads(preview_parameters(("token",), (12345,))) == {"token": MASK}


def test_parameters_are_bounded() -> None:
    names = [f"parameter_{index}" for index in range(500)]
    text = preview_parameters(names, ["\U0001f600" * 300] * 500)
    shown = json.loads(text)
    assert len(text) <= TOTAL_LIMIT
    assert shown["..."] == f"{500 - len(shown) + 1} more"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(Point, inner)
        | st.sets(st.integers())
    ),
    max_leaves=50,
)


@given(values, st.integers(1, 300))
def test_any_preview_is_within_its_limit(value: object, limit: int) -> None:
    assert len(preview(value, limit)) <= limit


@given(st.dictionaries(st.text(), values, max_size=30))
def test_any_parameters_give_bounded_json(parameters: dict[str, object]) -> None:
    text = preview_parameters(tuple(parameters), tuple(parameters.values()))
    assert len(text) <= TOTAL_LIMIT
    assert text.isascii()
    assert isinstance(json.loads(text), dict)


def test_a_generator_is_not_read() -> None:
    def numbers() -> Iterator[int]:
        yield from Hostile()

    assert preview(numbers()) == "<generator>"
