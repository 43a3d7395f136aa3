from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import subprocess
import sys
import typing
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, TypedDict, TypeVar, Union

import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest

from penstock.annotations import Dependency, allow_failure
from penstock.core.parameters import coerce
from penstock.core.previews import MASK
from penstock.core.signatures import Signature
from penstock.errors import ParameterTypeError

# The older spellings are other objects at run time, and users still write them.
OptionalInt = Optional[int]  # noqa: UP045
IntOrText = Union[int, str]  # noqa: UP007


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Checked:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int


class Table(TypedDict):
    a: int


class Engine:
    pass


class Speaking(typing.Protocol):
    def speak(self) -> None: ...


NOON = datetime.datetime(2024, 1, 2, 12, tzinfo=datetime.UTC)
Number = typing.NewType("Number", int)
T = TypeVar("T")
Bounded = TypeVar("Bounded", bound=int)


def checked(hint: Any, value: object) -> Any:
    def fn(x: Any) -> None: ...

    fn.__annotations__ = {"x": hint}
    return coerce(fn, {"x": value})["x"]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, "1", 1),
        (int, 2.0, 2),
        (float, 1, 1.0),
        (float, "1.5", 1.5),
        (complex, 2, 2 + 0j),
        (bool, "true", True),
        (bytes, "é", "é".encode()),
        (pathlib.Path, "/a", pathlib.Path("/a")),
        (datetime.date, "2024-01-02", datetime.date(2024, 1, 2)),
        (datetime.datetime, "2024-01-02T03:04:05Z", NOON.replace(hour=3, minute=4, second=5)),
        (decimal.Decimal, "1.5", decimal.Decimal("1.5")),
        (uuid.UUID, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
        (Color, "red", Color.RED),
        (Point, {"x": "1", "y": 2}, Point(1, 2.0)),
        (Struct, {"x": "1"}, Struct(1)),
        (Model, {"x": "1"}, Model(x=1)),
        (Table, {"a": "1"}, {"a": 1}),
        (list[int], ["1", 2], [1, 2]),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, str], ["1", "a"], (1, "a")),
        (tuple[int, ...], ("1", 2), (1, 2)),
        (set[int], ["1"], {1}),
        (dict[str, Point], {"a": {"x": 1}}, {"a": Point(1)}),
        (list[Model], [{"x": 1}], [Model(x=1)]),
        (dict[str, Model | None], {"a": {"x": "1"}, "b": None}, {"a": Model(x=1), "b": None}),
        (OptionalInt, "1", 1),
        (IntOrText, "1", "1"),
        (int | None, "1", 1),
        (Point | Struct, {"x": 1}, Point(1)),
        (Engine | int, "1", 1),
        (Literal[1, 2], "1", 1),
        (Number, "1", 1),
        (Bounded, "1", 1),
        (Annotated[int, "note"], "1", 1),
        (Annotated[int, msgspec.Meta(gt=0)], "1", 1),
        (Annotated[int, pydantic.Field(gt=0)], "1", 1),
    ],
    ids=str,
)  # fmt: skip
def test_converts(hint: Any, value: object, expected: object) -> None:
    result = checked(hint, value)
    assert result == expected
    assert type(result) is type(expected)


FITTING: list[tuple[Any, object]] = [
    (int, True),
    (int, 10**30),
    (float, 1.5),
    (Any, object()),
    (object, object()),
    (T, [1]),
    (list, ["1"]),
    (list[int], [1, 2]),
    (list[Any], [object()]),
    (list[int] | None, [1]),
    (dict[str, list[int]], {"a": [1]}),
    (tuple[int, str], (1, "a")),
    (tuple[()], ()),
    (typing.Sequence[int], (1, 2)),
    (typing.Iterable[int], (number for number in [1])),
    (typing.Iterator[int], iter([1])),
    (collections.abc.Callable[[int], int], len),
    (collections.abc.Mapping[str, int], {"a": 1}),
    (type[int], int),
    (type, int),
    (Engine, Engine()),
    (list[Engine], [Engine()]),
    (dict[str, Engine] | None, {"a": Engine()}),
    (Point, Point("not checked")),  # type: ignore[arg-type]
    (Model, Model(x=1)),
    (list[Model], [Model(x=1)]),
    (Speaking, Engine()),
    (datetime.date, datetime.datetime(2024, 1, 2)),
    (pd.DataFrame, pd.DataFrame({"a": [1]})),
    (np.ndarray, np.zeros(3)),
    (Literal["a"], "a"),
    (None, None),
    (Annotated[int, "note"], 5),
    (int, Dependency()),
    (int, allow_failure(Dependency())),
    (list[int], [Dependency(), Dependency()]),
    (dict[str, int], {"a": [Dependency()]}),
    ("NotDefinedAnywhere", 1),
    ("list[NotDefined]", 1),
    ("1/0", 1),
    ("int", 1),
]


@pytest.mark.parametrize(("hint", "value"), FITTING, ids=str)
def test_what_fits_is_the_same_object(hint: Any, value: object) -> None:
    assert checked(hint, value) is value


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, "abc", "x: expected `int`, got `str` ('abc')"),
        (int, 1.5, "x: expected `int`, got `float` (1.5)"),
        (int, None, "x: expected `int`, got `null` (None)"),
        (float, 10**400, "x: "),
        (str, 1, "x: expected `str`, got `int` (1)"),
        (None, "null", "x: expected `None`, got `str` ('null')"),
        (int | None, "null", "x: expected `int`, got `str` ('null')"),
        (list[int], ["a"], "x[0]: expected `int`, got `str` (['a'])"),
        (list[int], "abc", "x: expected `array`, got `str` ('abc')"),
        (dict[str, int], {1: 1}, "x: expected `str`, got `int` as a key ({1: 1})"),
        (int | float, "a", "x: expected `int | float`, got `str` ('a')"),
        (list[int] | Engine, "a", "x: expected `"),
        (Engine, 1, "x: expected `Engine`, got `int` (1)"),
        (list[Engine], [1], "expected `Engine`, got `int`"),
        (pd.DataFrame, [1], "x: expected `DataFrame`, got `list` ([1])"),
        (Color, "blue", "x: invalid enum value ('blue')"),
        (Literal["a"], "b", "x: invalid enum value ('b')"),
        (Point, {"y": 1}, "x: object missing required field `x` ({'y': 1})"),
        (Point, {"x": "q"}, "x.x: expected `int`, got `str` ({'x': 'q'})"),
        (Checked, {"x": -1}, "x: x is negative ({'x': -1})"),
        (Model, {"x": "q"}, "x.x: input should be a valid integer"),
        (list[Model], [{"x": 1}, {"x": "q"}], "x[1].x: input should be a valid integer"),
        (Annotated[int, msgspec.Meta(gt=0)], 0, "x: expected `int` >= 1 (0)"),
        (Annotated[int, pydantic.Field(gt=0)], 0, "x: input should be greater than 0 (0)"),
        (collections.abc.Callable[[int], int], 1, "x: expected `"),
        (tuple[int, str], (1,), "x: expected `array` of length 2, got 1 ((1,))"),
    ],
    ids=str,
)
def test_names_what_does_not_fit(hint: Any, value: object, message: str) -> None:
    with pytest.raises(ParameterTypeError) as caught:
        checked(hint, value)
    first, *problems = str(caught.value).split("\n  ")
    assert first == "Flow 'fn' received parameters that do not fit:"
    assert len(problems) == 1
    assert message in problems[0]


def test_all_bad_parameters_are_named_in_one_error() -> None:
    def daily_etl(day: int, path: str, ok: int, *sizes: int, **limits: float) -> None: ...

    bound = Signature(daily_etl).bind(("abc", 5, 1, 2, "x"), {"a": 1, "b": "y"})
    with pytest.raises(TypeError) as caught:
        coerce(daily_etl, bound)
    assert str(caught.value) == (
        "Flow 'daily-etl' received parameters that do not fit:\n"
        "  day: expected `int`, got `str` ('abc')\n"
        "  path: expected `str`, got `int` (5)\n"
        "  sizes[1]: expected `int`, got `str` ((2, 'x'))\n"
        "  limits['b']: expected `float`, got `str` ({'a': 1, 'b': 'y'})"
    )
    with pytest.raises(TypeError, match="Flow 'etl' received"):
        coerce(daily_etl, bound, name="etl")


def test_secrets_are_not_quoted() -> None:
    def fn(api_key: Color, config: dict[str, Color]) -> None: ...

    with pytest.raises(TypeError) as caught:
        coerce(fn, {"api_key": "hunter2", "config": {"password": "hunter2"}})
    assert "hunter2" not in str(caught.value)
    assert f"api_key: expected `Color` ({MASK})" in str(caught.value)
    with pytest.raises(TypeError) as caught:
        coerce(fn, {"api_key": Color.RED, "config": {"x" * 300: "red", "password": "hunter2"}})
    assert "hunter2" not in str(caught.value)


def test_variadics_are_checked_one_by_one() -> None:
    def fn(*args: int, **kwargs: float) -> None: ...

    assert coerce(fn, {"args": ("1", 2), "kwargs": {"a": 1}}) == {
        "args": (1, 2),
        "kwargs": {"a": 1.0},
    }
    args, kwargs = (1, 2), {"a": 1.5}
    result = coerce(fn, {"args": args, "kwargs": kwargs})
    assert result["args"] is args
    assert result["kwargs"] is kwargs


def test_defaults_are_not_checked() -> None:
    def fn(x: int = None, y: str = 5) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    signature = Signature(fn)
    assert coerce(signature, signature.bind((), {})) == {"x": None, "y": 5}


def test_unannotated_parameters_pass() -> None:
    values = {"x": object(), "y": [1]}
    assert coerce(lambda x, y: None, values) == values


def test_annotations_of_a_closure_are_found() -> None:
    class Local:
        pass

    def fn(x: Local) -> type[Local]:
        return Local

    local = Local()
    assert coerce(fn, {"x": local}) == {"x": local}
    with pytest.raises(TypeError, match="expected `Local`"):
        coerce(fn, {"x": 1})


class Methods:
    def method(self, x: int) -> None: ...
    @classmethod
    def made(cls, x: int) -> None: ...
    def __call__(self, x: int) -> None: ...
    def __init__(self, x: int = 0) -> None: ...


@functools.wraps(Methods.method)
def wrapper(*args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    "fn",
    [
        Methods().method,
        Methods.made,
        Methods(),
        Methods,
        functools.partial(Methods().method),
        functools.partial(lambda y, x: None, 1),
        wrapper,
    ],
)
def test_annotations_of_every_kind_of_callable(fn: Callable[..., Any]) -> None:
    expected: object = "1" if isinstance(fn, functools.partial) and "y" in str(fn) else 1
    result = coerce(fn, {"x": "1"})["x"]
    assert result in (1, "1") if isinstance(fn, functools.partial) else result == expected


def test_plain_values_load_no_other_package() -> None:
    script = (
        "import sys\n"
        "from penstock.core.parameters import coerce\n"
        "def fn(a: int, b: list[str], c: 'dict[str, float] | None' = None): ...\n"
        "coerce(fn, {'a': 1, 'b': ['x'], 'c': {'y': 1.5}})\n"
        "print([name for name in ('msgspec', 'pydantic', 'asyncio') if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=50
    )
    assert output.stdout.strip() == "[]"
