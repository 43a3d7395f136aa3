"""Flows, tasks, classes and exceptions of a module that every process can import."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from penstock import flow, task

GUARD = threading.Lock()  # cannot be pickled: what uses it must travel by reference


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any


class Pair(NamedTuple):
    left: Any
    right: Any


@task
def guarded(x: int) -> int:
    with GUARD:
        return x + 1


patient = guarded.with_options(retries=3, name="patient")


def announced(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with GUARD:
            return fn(*args, **kwargs)

    return wrapper


@task
@announced
def wrapped(x: int) -> int:
    return x * 2


def plain(x: int, y: int) -> int:
    with GUARD:
        return x * y


fast = task(plain)
triple = task(partial(plain, 3))


class Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    @task
    def add(self, x: int) -> int:
        with GUARD:
            return x + self.amount

    @task
    @classmethod
    def made(cls, amount: int) -> int:
        with GUARD:
            return cls(amount).amount

    @task
    @staticmethod
    def twice(x: int) -> int:
        with GUARD:
            return 2 * x


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return x * self.factor


quadruple = task(Multiplier(4))


@flow(name="sum")
def total(x: int, y: int = 2) -> int:
    with GUARD:
        return x + y


class Needs(Exception):
    """Takes arguments that `BaseException` does not remember."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.code = code
        self.where = where


class Rephrased(Exception):
    """Takes its own text for a code when it is rebuilt carelessly."""

    def __init__(self, code: object) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Holder(Exception):
    """Holds something."""

    def __init__(self, what: object) -> None:
        super().__init__("holds something")
        self.what = what


class Rude(Exception):
    """Its text cannot be shown."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Verbose(Exception):
    """Its text is endless."""

    def __str__(self) -> str:
        return "word " * 400_000


class TwoSided(Exception):
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Crowd(ExceptionGroup[Exception]):
    """A group of the user's own."""


def fail(depth: int = 2) -> None:
    if depth:
        fail(depth - 1)
    raise ValueError("too bad")
