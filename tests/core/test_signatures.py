from __future__ import annotations

import functools
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.core.signatures import MISSING, Signature
from penstock.errors import ParameterBindError, ReservedArgumentError


def plain(x: int, y: int = 2) -> None: ...
def everything(a, b=2, /, c=3, *rest, d, e=5, **more) -> None: ...  # type: ignore[no-untyped-def]
def keyword_only(*, a, b=1) -> None: ...  # type: ignore[no-untyped-def]


class Model:
    def __init__(self, size: int = 1) -> None: ...
    def method(self, x: int, /, y: int = 0) -> None: ...
    @classmethod
    def made(cls, x: int) -> None: ...
    @staticmethod
    def static(x: int) -> None: ...
    def __call__(self, z: int) -> None: ...


class Awkward:
    def __repr__(self) -> str:
        raise RuntimeError


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


CALLABLES: list[Callable[..., Any]] = [
    plain,
    everything,
    keyword_only,
    lambda: None,
    lambda x, *args: None,
    Model,
    Model().method,
    Model.method,
    Model.made,
    Model.static,
    Model(),
    functools.partial(plain, 1),
    functools.partial(plain, x=1),
    functools.partial(everything, 1, d=2),
    decorated(everything),
    decorated(plain),
    sorted,
    len,
]


@pytest.mark.parametrize("fn", CALLABLES)
def test_parameters_are_those_of_inspect(fn: Callable[..., Any]) -> None:
    expected = inspect.signature(fn).parameters
    signature = Signature(fn)
    assert signature.parameters == tuple(expected)
    assert [each.kind for each in signature.details] == [
        int(each.kind) for each in expected.values()
    ]


arguments = st.lists(st.integers(), max_size=5).map(tuple)
keywords = st.dictionaries(st.sampled_from("abcdexyz"), st.integers(), max_size=4)


def _works(fn: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int]) -> bool:
    try:
        fn(*args, **kwargs)
    except TypeError:
        return False
    return True


@given(st.sampled_from(CALLABLES), arguments, keywords)
def test_binding_agrees_with_inspect(
    fn: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    problem = None
    try:
        expected = inspect.signature(fn).bind(*args, **kwargs)
    except TypeError as exc:
        problem = str(exc)
    if problem is not None:
        # Python itself decides: `inspect` refuses a keyword named like a positional-only
        # parameter with a default, which a call passes on to `**more`.
        assume(not _works(fn, args, kwargs))
        with pytest.raises(ParameterBindError, match=re.escape(problem)):
            Signature(fn).values(args, kwargs)
        return
    expected.apply_defaults()
    signature = Signature(fn)
    bound = signature.bind(args, kwargs)
    assert bound == expected.arguments
    assert list(bound) == list(expected.arguments)
    assert signature.arguments(bound) == (expected.args, expected.kwargs)
    assert signature.call_arguments(signature.values(args, kwargs)) == (
        expected.args,
        expected.kwargs,
    )


def test_the_error_names_function_problem_and_signature() -> None:
    def load(path: str, limit: int = 10) -> None: ...

    with pytest.raises(TypeError) as caught:
        Signature(load).values((), {})
    assert str(caught.value) == (
        "Cannot call 'load': missing a required argument: 'path'. "
        "Its signature is load(path, limit=10)."
    )


def test_signature_text_shows_every_kind() -> None:
    assert str(Signature(everything)) == "everything(a, b=2, /, c=3, *rest, d, e=5, **more)"
    assert str(Signature(keyword_only)) == "keyword_only(*, a, b=1)"


def test_defaults_are_the_very_objects_and_are_never_shown_by_their_own_repr() -> None:
    default = Awkward()

    def fn(x: object, y: object = default) -> None: ...

    signature = Signature(fn)
    assert signature.values((1,), {}) == (1, default)
    assert signature.default("y") is default
    assert signature.default("x") is MISSING
    assert "Awkward" in str(signature)


@pytest.mark.parametrize(
    "fn",
    [
        lambda return_state: None,
        lambda *, wait_for=None: None,
        lambda x, return_state=1, /: None,
        functools.partial(lambda wait_for, x: None, x=1),
    ],
)
def test_reserved_names_are_refused(fn: Callable[..., Any]) -> None:
    with pytest.raises(ReservedArgumentError, match=r"has a parameter '(return_state|wait_for)'"):
        Signature(fn)


def test_keyword_arguments_may_hold_any_name() -> None:
    signature = Signature(lambda **kwargs: None)
    assert signature.values((), {"wait_for": 1}) == ({"wait_for": 1},)


def test_a_callable_without_signature_takes_anything() -> None:
    signature = Signature(dict.fromkeys if not _has_signature(dict.fromkeys) else max)
    bound = signature.bind((1, 2), {"key": 3})
    assert bound == {"args": (1, 2), "kwargs": {"key": 3}}
    assert signature.arguments(bound) == ((1, 2), {"key": 3})


def _has_signature(fn: Callable[..., Any]) -> bool:
    try:
        inspect.signature(fn)
    except ValueError:
        return False
    return True


def test_missing_parameters_are_left_to_the_function() -> None:
    signature = Signature(lambda x, y=1, z=2: None)
    assert signature.arguments({"x": 1, "z": 3}) == ((1,), {"z": 3})


def test_parameters_called_like_the_generated_names() -> None:
    signature = Signature(lambda _0=1, _1=2, *, _=3: None)
    assert signature.values((), {}) == (1, 2, 3)


def test_the_signature_text_masks_secrets() -> None:
    assert str(Signature(lambda api_key="abc": None)) == "<lambda>(api_key=********)"


def test_signatures_can_be_pickled() -> None:
    signature = pickle.loads(pickle.dumps(Signature(plain)))
    assert signature.values((1,), {}) == (1, 2)


def test_names_of_callables() -> None:
    names = [Signature(fn).name for fn in (plain, functools.partial(plain, 1), Model(), Model)]
    assert names == ["plain", "plain", "Model", "Model"]
