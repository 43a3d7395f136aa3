"""The contract of what surrounds a run: context, names, tags, hooks, logs and prints."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from penstock import flow, get_run_context, get_run_logger, tags, task
from penstock.errors import MissingContextError
from penstock.task_runners import BaseTaskRunner
from penstock.testing.fixtures import RecordList
from penstock.testing.ledger import Gate, Ledger
from penstock.testing.sample_tasks import add, fail, hold

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@task
def describe_context(number: int = 0) -> dict[str, Any]:
    """Say what the context of this run holds."""
    context: Any = get_run_context()
    run = context.task_run
    return {
        "flow_run_id": context.flow_run.id,
        "flow_run_name": context.flow_run.name,
        "flow": context.flow.name,
        "task": context.task.name,
        "id": run.id,
        "name": run.name,
        "tags": sorted(run.tags),
        "parameters": dict(run.parameters),
        "attempt": run.attempt,
        "state": str(run.state.type),
    }


@task
async def describe_context_async(number: int = 0) -> dict[str, Any]:
    """Say what the context of this coroutine holds."""
    await asyncio.sleep(0)
    run: Any = get_run_context().task_run
    return {"id": run.id, "name": run.name, "tags": sorted(run.tags)}


@task
def tags_here(after: Any = None) -> Any:
    """Give the tags of this run."""
    run: Any = get_run_context().task_run
    return sorted(run.tags)


@task
def read_variable() -> str:
    """Give a context variable that the flow has set."""
    return VARIABLE.get()


@task
def speak(text: str) -> None:
    """Log one line."""
    get_run_logger().info("said %s", text)


@task(log_prints=True)
def speak_by_print(text: str) -> None:
    """Print one line that is recorded."""
    print("printed", text)


class ContextContract:
    """Section 13: the current run is known inside it."""

    def test_task_knows_its_flow_run(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner, name="surrounding")
        def example() -> None:
            here: Any = get_run_context().flow_run
            found = describe_context.submit().result()
            assert found["flow_run_id"] == here.id
            assert found["flow_run_name"] == here.name
            assert found["flow"] == "surrounding"

        example()

    def test_task_knows_itself(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = describe_context.submit(5)
            found = future.result()
            assert found["id"] == future.key
            assert found["name"] == future.name
            assert found["task"] == describe_context.name
            assert found["parameters"] == {"number": 5}
            assert (found["attempt"], found["state"]) == (1, "RUNNING")

        example()

    def test_parameters_are_resolved(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            number: Any = add.submit(1, 2)
            assert describe_context.submit(number).result()["parameters"] == {"number": 3}

        example()

    def test_async_tasks_do_not_mix_their_contexts(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            futures = describe_context_async.map(range(10))
            found = await asyncio.gather(*futures)
            assert [each["id"] for each in found] == [future.key for future in futures]

        asyncio.run(example())

    def test_called_task_knows_itself(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            here: Any = get_run_context().flow_run
            assert describe_context()["flow_run_id"] == here.id
            after: Any = get_run_context().flow_run
            assert after.id == here.id

        example()

    def test_flow_knows_itself(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner, name="surrounding")
        def example(number: int) -> None:
            context: Any = get_run_context()
            assert context.flow.name == "surrounding"
            assert dict(context.flow_run.parameters) == {"number": 1}
            assert context.flow_run.state.is_running()
            assert context.task_runner == task_runner

        example(1)

    def test_context_outside_a_run_is_refused(self) -> None:
        with pytest.raises(MissingContextError) as caught:
            get_run_context()
        assert isinstance(caught.value, RuntimeError)

    def test_context_variables_are_carried_over(
        self, task_runner: BaseTaskRunner, in_process: bool
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            token = VARIABLE.set("set in the flow")
            try:
                return read_variable.submit().result()
            finally:
                VARIABLE.reset(token)

        assert example() == "set in the flow" or not in_process


class NamesContract:
    """Sections 3 and 4, on names."""

    def test_runs_are_numbered_per_task(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            futures = [add.submit(1, 2), fail.submit(), add.submit(1, 2)]
            futures[1].wait()
            return {"names": [future.name for future in futures]}

        assert example() == {"names": ["add-0", "fail-0", "add-1"]}
        assert example() == {"names": ["add-0", "fail-0", "add-1"]}

    def test_called_and_submitted_runs_are_numbered_together(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            add(1, 2)
            return {"name": add.submit(1, 2).name}

        assert example() == {"name": "add-1"}

    def test_template_names_the_run(self, task_runner: BaseTaskRunner) -> None:
        @task(task_run_name="add {x} to {y}")
        def sum_up(x: int, y: int = 5) -> Any:
            run: Any = get_run_context().task_run
            return run.name

        @flow(task_runner=task_runner)
        def example() -> None:
            future = sum_up.submit(3)
            assert future.result() == "add 3 to 5"
            assert future.name == "add 3 to 5"

        example()

    def test_flow_run_name_template(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner, flow_run_name="number {number}")
        def example(number: int) -> Any:
            run: Any = get_run_context().flow_run
            return run.name

        assert example(7) == "number 7"


class TagsContract:
    """Section 11, on tags."""

    def test_tags_reach_task_runs(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with tags("a", "b"):
                assert tags_here.submit().result() == ["a", "b"]
            assert tags_here.submit().result() == []

        example()

    def test_tags_add_up(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            tagged = tags_here.with_options(tags=["own"])
            with tags("outer"), tags("inner"):
                assert tagged.submit().result() == ["inner", "outer", "own"]

        example()

    def test_tags_count_at_submission(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            held = hold.submit(ledger, gate)
            with tags("then"):
                future = tags_here.submit(after=held)
            with tags("now"):
                gate.open()
                assert future.result() == ["then"]

        example()

    def test_tags_around_a_flow_reach_its_task_runs(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return {"tags": tags_here.submit().result()}

        with tags("around"):
            assert example() == {"tags": ["around"]}


class HooksContract:
    """Section 11, on hooks: once, after the final state, and without consequences."""

    @staticmethod
    def hooked(ledger: Ledger) -> dict[str, Any]:
        """Give options with one hook for every ending of a task run."""

        def hook(kind: str) -> Any:
            def write(task: Any, task_run: Any, state: Any) -> None:
                ledger.add(f"{kind} {task.name} {task_run.name} {state.type}")

            return [write]

        endings = ("on_completion", "on_failure", "on_crashed")
        return {ending: hook(ending) for ending in endings}

    def test_completion_hook(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            add.with_options(**self.hooked(ledger)).submit(1, 2)

        example()
        assert ledger.lines() == ["on_completion add add-0 COMPLETED"]

    def test_failure_hook(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert fail.with_options(**self.hooked(ledger)).submit().exception() is not None

        example()
        assert ledger.lines() == ["on_failure fail fail-0 FAILED"]

    def test_failure_hook_runs_once_after_all_retries(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            hooked = fail.with_options(retries=2, **self.hooked(ledger))
            assert hooked.submit().exception() is not None

        example()
        assert ledger.lines() == ["on_failure fail fail-0 FAILED"]

    def test_crash_hook(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @task
        def leave() -> None:
            raise SystemExit(3)

        @flow(task_runner=task_runner)
        def example() -> None:
            leave.with_options(**self.hooked(ledger)).submit().wait()

        example()
        assert ledger.lines() == ["on_crashed leave leave-0 CRASHED"]

    def test_run_that_is_not_ready_runs_no_hook(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = fail.submit()
            add.with_options(**self.hooked(ledger)).submit(bad, 1).wait()
            assert bad.exception() is not None

        example()
        assert ledger.lines() == []

    def test_error_in_a_hook_changes_nothing(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        def explode(task: Any, task_run: Any, state: Any) -> None:
            raise RuntimeError("in the hook")

        def write(task: Any, task_run: Any, state: Any) -> None:
            ledger.add("second hook")

        @flow(task_runner=task_runner)
        def example() -> Any:
            return add.with_options(on_completion=[explode, write]).submit(1, 2).result()

        assert example() == 3
        assert ledger.lines() == ["second hook"]

    def test_flow_hooks(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        def running(flow: Any, flow_run: Any, state: Any) -> None:
            ledger.add(f"on_running {flow.name} {state.type}")

        def completed(flow: Any, flow_run: Any, state: Any) -> None:
            ledger.add(f"on_completion {flow.name} {state.type}")

        @flow(task_runner=task_runner, on_running=[running], on_completion=[completed])
        def example() -> None:
            add.submit(1, 2)

        example()
        assert ledger.lines() == ["on_running example RUNNING", "on_completion example COMPLETED"]

    def test_flow_failure_hook(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        def failed(flow: Any, flow_run: Any, state: Any) -> None:
            ledger.add(f"{flow.name} {state.message}")

        @flow(task_runner=task_runner, on_failure=[failed])
        def example() -> None:
            fail.submit()

        state: Any = example(return_state=True)
        assert state.is_failed()
        assert ledger.lines() == ["example 1/1 task runs failed."]


class LogsContract:
    """Section 11, on logs; where records come out on other machines is for the history's tests."""

    def test_task_can_log(
        self, task_runner: BaseTaskRunner, in_process: bool, records: RecordList
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            speak.submit("hello").result()

        example()
        assert "said hello" in records.texts() or not in_process

    def test_flow_can_log(self, task_runner: BaseTaskRunner, records: RecordList) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            get_run_logger().info("said %s", "hello")

        example()
        assert "said hello" in records.texts()

    def test_lines_of_a_run_keep_their_order(
        self, task_runner: BaseTaskRunner, in_process: bool, records: RecordList
    ) -> None:
        @task
        def count() -> None:
            logger = get_run_logger()
            for number in range(50):
                logger.info("line %s", number)

        @flow(task_runner=task_runner)
        def example() -> None:
            count.submit().result()

        example()
        lines = [text for text in records.texts() if text.startswith("line ")]
        assert lines == [f"line {number}" for number in range(50)] or not in_process

    def test_prints_become_log_lines(
        self, task_runner: BaseTaskRunner, in_process: bool, records: RecordList
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            speak_by_print.submit("hello").result()

        example()
        assert any("printed hello" in text for text in records.texts()) or not in_process

    def test_tasks_inherit_log_prints_from_the_flow(
        self, task_runner: BaseTaskRunner, in_process: bool, records: RecordList
    ) -> None:
        @task
        def speak_plainly() -> None:
            print("inherited")

        @flow(task_runner=task_runner, log_prints=True)
        def example() -> None:
            print("own")
            speak_plainly.submit().result()

        example()
        assert any("own" in text for text in records.texts())
        assert any("inherited" in text for text in records.texts()) or not in_process

    def test_logger_outside_a_run_is_refused(self) -> None:
        with pytest.raises(MissingContextError):
            get_run_logger()
