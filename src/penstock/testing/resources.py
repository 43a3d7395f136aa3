"""The part of the contract about what tasks ask for while they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from penstock import flow, task
from penstock.errors import ResourceError
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import Ledger

FAR_TOO_MUCH = 1e6


@task
def add_one(number: int) -> int:
    return number + 1


@task
def note_run(ledger: Ledger, text: str) -> str:
    ledger.add(text)
    return text


@task
def ask_child(resources: Mapping[str, float], depth: int) -> int:
    if depth == 0:
        return 1
    child = ask_child.with_options(resources=resources or None)
    return 1 + child.submit(resources, depth - 1).result()


class ResourcesContract:
    """Requests that can be met are; those that never can be are refused on submission.

    The fixture `resources` says what a task run may ask for: empty for a runner that gives
    nothing, which has to say so.
    """

    def test_a_request_that_can_be_met_is(
        self, task_runner: BaseTaskRunner, resources: Mapping[str, float]
    ) -> None:
        asking = add_one.with_options(resources=resources or None)

        @flow(task_runner=task_runner)
        def example() -> Any:
            return [asking.submit(1), *asking.map(range(5))]

        assert example() == [2, 1, 2, 3, 4, 5]

    def test_results_of_tasks_with_resources_are_upstreams_like_any(
        self, task_runner: BaseTaskRunner, resources: Mapping[str, float]
    ) -> None:
        asking = add_one.with_options(resources=resources or None)

        @flow(task_runner=task_runner)
        def example() -> Any:
            first = asking.submit(1)
            return add_one.submit(asking.submit(first), wait_for=[first])

        assert example() == 4

    def test_more_than_there_ever_is_is_refused_on_submission(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        asking = note_run.with_options(resources={"cpu": FAR_TOO_MUCH})

        @flow(task_runner=task_runner)
        def example() -> Any:
            with pytest.raises(ResourceError) as info:
                asking.submit(ledger, "submitted")
            return {"text": str(info.value)}

        text = example()["text"]
        assert text.startswith("Task 'note-run' asks for cpu=1e+06")
        assert ledger.lines() == []

    def test_children_of_tasks_with_resources_have_their_turn(
        self, task_runner: BaseTaskRunner, resources: Mapping[str, float]
    ) -> None:
        asking = ask_child.with_options(resources=resources or None)

        @flow(task_runner=task_runner)
        def example() -> Any:
            return asking.submit(resources, 3)

        assert example() == 4
