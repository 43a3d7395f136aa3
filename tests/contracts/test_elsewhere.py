"""What is the same on worker processes: log lines, hooks, context, tags, exceptions."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, get_run_context, get_run_logger, tags, task
from penstock.errors import FailedRun, RemoteTaskError
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import Ledger
from tests.contracts.recorded import by_name, lines, task_runs


@pytest.fixture(params=["dask", "ray"])
def runner(
    request: pytest.FixtureRequest, on_dask: BaseTaskRunner, on_ray: BaseTaskRunner
) -> BaseTaskRunner:
    return on_dask if request.param == "dask" else on_ray


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.txt")


# --- log lines -----------------------------------------------------------------------------------


@task(retries=1)
def log_much(ledger: Ledger) -> None:
    for number in range(50):
        get_run_logger().info("line %d", number)
    ledger.add("tried")
    if len(ledger.lines()) == 1:
        raise ValueError("once more")


def test_lines_arrive_in_order_for_each_attempt(runner: BaseTaskRunner, ledger: Ledger) -> None:
    @flow(task_runner=runner)
    def example() -> None:
        log_much.submit(ledger)

    example()
    run = by_name()["log-much-0"]
    for attempt in (1, 2):
        own = [line for line in lines() if line["task_run_id"] == run["id"]]
        texts = [line["message"] for line in own if line["attempt"] == attempt]
        assert texts == [f"line {number}" for number in range(50)]
        assert {line["flow_run_id"] for line in own} == {run["flow_run_id"]}


@task(log_prints=True)
def print_and_log(number: int) -> None:
    print(f"printed {number}")
    get_run_logger().warning("logged %d", number)
    print(f"printed again {number}")


def test_prints_and_lines_keep_their_order_and_their_runs(runner: BaseTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> None:
        print_and_log.map(range(20))

    example()
    for number in range(20):
        run = by_name()[f"print-and-log-{number}"]
        texts = [line["message"] for line in lines() if line["task_run_id"] == run["id"]]
        number = run["parameters"]["number"]
        assert texts == [f"printed {number}", f"logged {number}", f"printed again {number}"]


@task
def log_in_thread() -> None:
    logger = get_run_logger()
    thread = threading.Thread(target=lambda: logger.info("from a thread"))
    thread.start()
    thread.join()


def test_lines_of_threads_that_a_task_starts(runner: BaseTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> None:
        log_in_thread.submit()

    example()
    (line,) = [line for line in lines() if line["task_run_id"]]
    assert (line["message"], line["task_run_id"]) == ("from a thread", task_runs()[0]["id"])


@task
def log_elsewhere() -> None:
    logging.getLogger("their.part").info("heard")
    logging.getLogger("others").warning("not heard")
    get_run_logger().debug("too little")


def test_other_loggers_and_levels_as_in_the_settings_of_the_driver(
    runner: BaseTaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow(task_runner=runner)
    def example() -> None:
        log_elsewhere.submit().result()

    monkeypatch.setenv("PENSTOCK_LOGGERS", "their")
    example()
    found = [(line["logger"], line["message"]) for line in lines() if line["task_run_id"]]
    assert found == [("their.part", "heard")]
    monkeypatch.setenv("PENSTOCK_LOGGERS", "")
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "DEBUG")
    example()
    texts = [line["message"] for line in lines() if line["logger"] == "penstock.task_runs"]
    assert texts == ["too little"]


# --- hooks ---------------------------------------------------------------------------------------


def test_hooks_of_submitted_tasks_run_once_in_the_driver(
    runner: BaseTaskRunner, ledger: Ledger
) -> None:
    def note(task: Any, task_run: Any, state: Any) -> None:
        ledger.add(f"{task_run.name} {state.type} {os.getpid()}")

    @task(on_completion=[note], on_failure=[note])
    def divide(number: int) -> float:
        return 1 / number

    @flow(task_runner=runner)
    def example() -> None:
        divide.submit(1)
        assert divide.submit(0).exception() is not None

    example()
    here = os.getpid()
    assert sorted(ledger.lines()) == [f"divide-0 COMPLETED {here}", f"divide-1 FAILED {here}"]


def test_hooks_of_called_tasks_run_where_they_are_called(
    runner: BaseTaskRunner, ledger: Ledger
) -> None:
    def note(task: Any, task_run: Any, state: Any) -> None:
        ledger.add(f"{task_run.name} {os.getpid()}")

    @task(on_completion=[note])
    def inner() -> None:
        pass

    @task
    def outer() -> int:
        inner()
        return os.getpid()

    @flow(task_runner=runner)
    def example() -> int:
        pid: int = outer.submit().result()
        return pid

    pid = example()
    assert pid != os.getpid()
    assert ledger.lines() == [f"inner-0 {pid}"]


# --- context and tags ----------------------------------------------------------------------------


@task(tags=["own"])
def look_around(number: int) -> dict[str, Any]:
    context = get_run_context()
    assert context.flow_run is not None
    return {
        "flow run": (context.flow_run.id, context.flow_run.name, context.flow_run.tags),
        "parameters": context.flow_run.parameters,
        "flow": context.flow.name,
        "task": context.task.name,
        "task run": (context.task_run.id, context.task_run.name, context.task_run.tags),
        "own parameters": context.task_run.parameters,
        "attempt": context.task_run.attempt,
        "state": str(context.task_run.state.type),
    }


def test_context_on_a_worker(runner: BaseTaskRunner) -> None:
    @flow(task_runner=runner)
    def example(size: int, name: str = "x") -> Any:
        run = get_run_context().flow_run
        with tags("block"):
            future = look_around.submit(5)
        found = future.result()
        assert found["flow run"] == (run.id, run.name, run.tags)
        assert found["parameters"] == run.parameters
        assert found["task run"] == (future.key, future.name, future.task_run.tags)
        return {"found": found}

    with tags("outside"):
        found = example(3)["found"]
    assert set(found["flow run"][2]) == {"outside"}
    assert (found["flow"], found["task"]) == ("example", "look-around")
    assert set(found["task run"][2]) == {"outside", "block", "own"}
    assert set(by_name()["look-around-0"]["tags"]) == {"outside", "block", "own"}
    assert found["attempt"] == 1
    assert found["state"] == "RUNNING"


@task
def plain() -> None:
    pass


@task
def tag_children() -> None:
    with tags("inner"):
        plain.submit().result()
        plain()


def test_tags_of_what_a_task_submits_and_calls(runner: BaseTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> None:
        with tags("outer"):
            tag_children.submit().result()

    example()
    runs = by_name()
    for name in ("plain-0", "plain-1"):
        assert set(runs[name]["tags"]) == {"outer", "inner"}


# --- exceptions ----------------------------------------------------------------------------------


class NeedsArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class HoldsLock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def raising(runner: BaseTaskRunner, body: Any) -> BaseException:
    """Submit a function as a task and give what its future raises; it is what was recorded."""

    @flow(task_runner=runner)
    def example() -> Any:
        return {"found": task(name="bad")(body).submit().exception()}

    # Nested futures aside, an exception is a value like any other.
    found: BaseException = example()["found"]
    error = by_name()["bad-0"]["error"]
    assert error["message"]
    assert "in body" in error["traceback"] or "body" in error["traceback"]
    assert "test_elsewhere.py" in error["traceback"]
    return found


def test_exception_whose_constructor_takes_arguments(runner: BaseTaskRunner) -> None:
    def body() -> None:
        raise NeedsArguments(5, "text")

    found = raising(runner, body)
    assert isinstance(found, NeedsArguments)
    assert (str(found), found.code) == ("5: text", 5)


def test_exception_that_cannot_be_pickled(runner: BaseTaskRunner) -> None:
    def body() -> None:
        raise HoldsLock("locked")

    found = raising(runner, body)
    assert isinstance(found, RemoteTaskError)
    assert "HoldsLock: locked" in str(found)
    assert "raise HoldsLock" in str(found)


def test_exception_with_cause_and_notes(runner: BaseTaskRunner) -> None:
    def body() -> None:
        try:
            raise KeyError("inner")
        except KeyError as exc:
            problem = ValueError("outer")
            problem.add_note("a note")
            raise problem from exc

    found = raising(runner, body)
    assert (type(found), str(found)) == (ValueError, "outer")
    assert isinstance(found.__cause__, KeyError)
    assert found.__notes__ == ["a note"]
    assert found.__traceback__ is not None


def test_exception_group(runner: BaseTaskRunner) -> None:
    def body() -> None:
        raise ExceptionGroup("several", [ValueError("one"), NeedsArguments(2, "two")])

    found = raising(runner, body)
    assert isinstance(found, ExceptionGroup)
    assert [str(each) for each in found.exceptions] == ["one", "2: two"]


def test_exception_of_a_local_class(runner: BaseTaskRunner) -> None:
    class Local(LookupError):
        pass

    def body() -> None:
        raise Local("here")

    found = raising(runner, body)
    assert isinstance(found, LookupError)
    assert (type(found).__name__, str(found)) == ("Local", "here")


def test_traceback_names_the_line_of_the_user(runner: BaseTaskRunner) -> None:
    @task
    def bad() -> None:
        int("no number")  # the line

    @flow(task_runner=runner)
    def example() -> None:
        bad.submit().result()

    with pytest.raises(ValueError, match="no number"):
        example()
    error = by_name()["bad-0"]["error"]
    assert 'int("no number")  # the line' in error["traceback"]


def test_what_the_future_raises_is_raised_by_the_flow(runner: BaseTaskRunner) -> None:
    @task
    def bad() -> None:
        raise NeedsArguments(1, "unseen")

    @flow(task_runner=runner)
    def example() -> None:
        bad.submit()

    with pytest.raises(NeedsArguments, match="1: unseen"):
        example()


def test_state_that_a_task_returns(runner: BaseTaskRunner) -> None:
    from penstock.states import Completed, Failed

    @task
    def made(good: bool) -> Any:
        return Completed(message="fine", data=[1, 2]) if good else Failed(message="by hand")

    @flow(task_runner=runner)
    def example() -> Any:
        good, bad = made.submit(True), made.submit(False)
        assert (good.result(), good.state.message) == ([1, 2], "fine")
        with pytest.raises(FailedRun, match="by hand"):
            bad.result()

    example()
