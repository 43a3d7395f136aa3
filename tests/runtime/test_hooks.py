"""Hooks run once after the final state; what they raise changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import flow, task
from penstock.task_runners import BaseTaskRunner, ConcurrentTaskRunner, SequentialTaskRunner

ERRORS = (ValueError("x"), SystemExit(1), GeneratorExit(), asyncio.CancelledError())


@pytest.mark.parametrize("task_runner", [SequentialTaskRunner(), ConcurrentTaskRunner()], ids=str)
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_hook_that_raises_changes_nothing(
    task_runner: BaseTaskRunner, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise error

    @task(on_completion=fail)
    def one() -> int:
        return 1

    @flow(task_runner=task_runner, on_running=fail, on_completion=fail)
    def example() -> Any:
        return {"submitted": one.submit().result(), "called": one()}

    assert example() == {"submitted": 1, "called": 1}
    assert caplog.text.count("The hook 'fail' of ") == 4


def test_interrupt_in_a_hook_still_ends_the_flow_run() -> None:
    runs = []

    def interrupt(flow: Any, flow_run: Any, state: Any) -> None:
        runs.append(flow_run)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow(on_completion=interrupt)(lambda: 1)()
    assert runs[0].state.is_completed()


def test_hooks_of_each_ending_run_once() -> None:
    seen: list[str] = []

    def note(kind: str) -> Any:
        return lambda definition, run, state: seen.append(f"{kind} {run.name}")

    @task(
        task_run_name="{how}",
        on_completion=note("completion"),
        on_failure=[note("failure")],
        on_crashed=note("crashed"),
    )
    def end(how: Any) -> None:
        if how != "well":
            raise how

    @flow(task_runner=SequentialTaskRunner())
    def example() -> None:
        end.submit("well")
        failed = end.submit(ValueError("badly"))
        end.submit(SystemExit("gone")).wait()
        end.submit(failed).wait()
        failed.wait()

    example()
    assert seen == ["completion well", "failure badly", "crashed gone"]
