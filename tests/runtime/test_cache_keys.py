from __future__ import annotations

import functools
import logging
import threading
from typing import Any

import numpy as np
import pytest

from penstock import get_run_context, task
from penstock.core.identity import ELEMENT_LIMIT
from penstock.tasks import task_input_hash, task_source_hash


@task
def add(x: Any, y: Any = 1) -> Any:
    """Stand for any task: what is asked for is its key."""
    return task_input_hash(get_run_context(), {"x": x, "y": y})


@task
def add_again(x: Any, y: Any = 1) -> Any:
    """Do the same under another name."""
    return task_input_hash(get_run_context(), {"x": x, "y": y})


@task
def source_key(x: Any) -> Any:
    """Give the key that changes with the code."""
    return task_source_hash(get_run_context(), {"x": x})


@pytest.mark.parametrize(
    "value",
    [1, "text", None, [1, [2, {"a": {3}}]], np.arange(10), functools.partial(max, 1), b"x" * 2**21],
    ids=lambda value: type(value).__name__,
)
def test_equal_inputs_have_equal_keys(value: Any) -> None:
    assert add(value) == add(value)
    assert add(value) != add(value, 2)
    assert add(value) != add_again(value)
    assert len(add(value)) == 32


def test_inputs_too_large_for_the_identity_of_a_run_have_a_key() -> None:
    many = list(range(ELEMENT_LIMIT + 1))
    nested = [[number] for number in many]

    assert add(many) == add(many) != add(many[:-1])
    assert add(nested) == add(nested) != add(nested[:-1])
    assert add(np.zeros(10**6)) != add(np.ones(10**6))


class Scale:
    def __init__(self, by: int) -> None:
        self.by = by

    @task
    def key(self, x: int) -> Any:
        return task_input_hash(get_run_context(), {"x": x})


def test_what_a_method_is_bound_to_is_an_input() -> None:
    assert Scale(1).key(2) == Scale(1).key(2)
    assert Scale(1).key(2) != Scale(2).key(2)


def test_an_input_without_identity_has_no_key_and_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "penstock.caching"):
        assert add(threading.Lock()) is None
        assert add(threading.Lock()) is None

    lines = [record.message for record in caplog.records if record.name == "penstock.caching"]
    assert len(lines) == 1
    assert "'add'" in lines[0]
    assert "the argument 'x' (lock)" in lines[0]


def test_the_key_of_the_source_has_the_inputs_in_it() -> None:
    key = source_key(1)

    assert key == source_key(1) != source_key(2)
    assert key.startswith(f"{source_key.source}-")
