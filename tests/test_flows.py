"""Flows as users define them: options, names, classes, parameters, versions."""

from __future__ import annotations

import asyncio
import datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, get_run_context, tags, task
from penstock.errors import (
    InvalidNameError,
    InvalidOptionError,
    ParameterBindError,
    ParameterTypeError,
)
from penstock.task_runners import ConcurrentTaskRunner, SequentialTaskRunner


@flow(retries=2, task_runner=ConcurrentTaskRunner(max_workers=2))
def sample(day: int = 1) -> Any:
    """Give the day."""
    return day


def flow_run_name() -> Any:
    return get_run_context().flow_run.name


# The task runner.


def test_reassigned_task_runner_is_kept_by_with_options() -> None:
    copied = sample.with_options()
    copied.task_runner = SequentialTaskRunner()
    assert copied.with_options(name="other").task_runner == SequentialTaskRunner()


def test_options_of_zero_and_none_are_honoured() -> None:
    changed = sample.with_options(retries=0, task_runner=None)
    assert changed.retries == 0
    assert changed.task_runner == ConcurrentTaskRunner()


def test_task_runner_may_be_reassigned_to_a_class() -> None:
    copied = sample.with_options()
    copied.task_runner = SequentialTaskRunner
    assert copied.task_runner == SequentialTaskRunner()
    assert copied() == 1


def test_what_is_no_task_runner_is_refused_when_it_is_assigned() -> None:
    copied = sample.with_options()
    with pytest.raises(InvalidOptionError, match="task_runner is 5"):
        copied.task_runner = 5  # type: ignore[assignment]


def test_task_runner_class_that_needs_arguments_is_refused() -> None:
    class Demanding(ConcurrentTaskRunner):
        def __init__(self, size: int) -> None:
            super().__init__(size)

    with pytest.raises(InvalidOptionError, match="Demanding, which cannot be called without"):
        flow(task_runner=Demanding)(lambda: None)


# Options and names.


@pytest.mark.parametrize(
    "option",
    [
        {"flow_run_name": 5},
        {"flow_run_name": "{other}"},
        {"flow_run_name": "{"},
        {"flow_run_name": "{}"},
        {"flow_run_name": "{day:{width}}"},
        {"version": 5},
        {"description": 5},
        {"validate_parameters": "yes"},
        {"log_prints": 1},
        {"timeout_seconds": float("nan")},
    ],
)
def test_option_that_cannot_be_is_refused_at_decoration(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(option))):
        sample.with_options(**option)


def test_unknown_option_is_refused() -> None:
    with pytest.raises(ParameterBindError, match="@flow has no option 'colour'."):
        sample.with_options(colour="red")


def test_decorating_twice_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="@flow needs a plain function"):
        flow(sample)


def test_flow_run_name_template_sees_converted_parameters() -> None:
    @flow(flow_run_name="report-{day:%Y}")
    def report(day: datetime.date) -> Any:
        return flow_run_name()

    assert report("2026-01-02") == "report-2026"  # type: ignore[call-overload]


def test_flow_run_name_may_be_a_function() -> None:
    assert flow(flow_run_name=lambda: "chosen")(flow_run_name)() == "chosen"


def test_blank_flow_run_name_is_replaced_by_words() -> None:
    assert flow(flow_run_name=lambda: "")(flow_run_name)()


@pytest.mark.parametrize("template", [lambda: 1 / 0, lambda: None, "{day.missing}", "{day:zz}"])
def test_flow_run_name_that_fails_is_one_clear_error(template: Any) -> None:
    with pytest.raises(InvalidNameError, match="The run name template"):
        sample.with_options(flow_run_name=template)()


def test_bad_subflow_name_leaves_nothing_half_done() -> None:
    nameless = sample.with_options(flow_run_name=lambda: 1 / 0)

    @flow
    def outer() -> Any:
        with pytest.raises(InvalidNameError):
            nameless()
        return {"task runs": get_run_context().flow_run.live.total}

    assert outer() == {"task runs": 0}


def test_tags_must_be_texts() -> None:
    with pytest.raises(InvalidOptionError, match="A tag must be a text, not 1."), tags(1):  # type: ignore[arg-type]
        pass


# Functions of every kind.


class Shop:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @flow
    def scale(self, value: int) -> Any:
        return self.factor * value

    @flow
    @classmethod
    def title(cls) -> Any:
        return cls.__name__

    @staticmethod
    @flow
    def constant() -> Any:
        return 7


def test_flow_in_a_class_binds_like_a_method() -> None:
    shop = Shop(3)
    assert shop.scale(2) == 6
    assert Shop.scale(shop, 2) == 6
    assert shop.constant() == 7
    assert Shop.title() == "Shop"  # type: ignore[call-overload]


def test_bound_flow_keeps_the_reassigned_task_runner() -> None:
    class Local:
        @flow
        def run(self) -> None: ...

    Local.run.task_runner = SequentialTaskRunner()
    assert Local().run.task_runner == SequentialTaskRunner()


def test_version_is_a_digest_of_the_source_file() -> None:
    digest = blake2b(Path(__file__).read_bytes(), digest_size=8).hexdigest()
    assert sample.version == digest
    assert flow(partial(sample.fn, 2)).version == digest
    assert sample.with_options(version="1.2").version == "1.2"


# Parameters.


def test_bad_arguments_of_an_async_flow_are_refused_by_the_call() -> None:
    @flow
    async def later(day: int) -> None: ...

    with pytest.raises(ParameterBindError, match="'later': missing a required argument: 'day'"):
        later()  # type: ignore[call-overload]


def test_parameters_that_do_not_fit_are_not_tried_again() -> None:
    began = []

    @flow(retries=3, retry_delay_seconds=60, on_running=lambda *_: began.append(1))
    def strict(day: int) -> None: ...

    with pytest.raises(ParameterTypeError, match="day: expected `int`, got `str`"):
        strict("x")  # type: ignore[call-overload]
    assert not began


def test_quoted_argument_of_a_submitted_flow_is_not_looked_into() -> None:
    from penstock import TaskFuture, quote

    @task
    def one() -> int:
        return 1

    @flow
    def kind(value: object) -> Any:
        return {"is a future": isinstance(value, TaskFuture)}

    @flow
    def outer() -> Any:
        return kind.submit(quote(one.submit())).result()

    assert outer() == {"is a future": True}


def test_flow_called_inside_a_running_loop() -> None:
    @task
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    @flow
    def notebook() -> Any:
        return {"called": double(1), "submitted": double.submit(2).result()}

    async def cell() -> Any:
        return notebook()

    assert asyncio.run(cell()) == {"called": 2, "submitted": 4}
