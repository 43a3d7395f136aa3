"""Log lines of runs: recorded in order with their run, bounded, and shown once."""

from __future__ import annotations

import logging
import logging.config
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, get_run_logger, task
from penstock.runtime import logs as logs_module
from penstock.task_runners import ConcurrentTaskRunner
from tests.checker import problems_of
from tests.history.rows import select

PATIENCE = 10.0


@pytest.fixture
def lines(penstock_home: Path) -> Any:
    """Give a function for the recorded lines: (message, level, attempt, logger)."""

    def recorded() -> list[tuple[Any, ...]]:
        path = penstock_home / "history.db"
        assert problems_of(path) == []
        return select(path, "SELECT message, level, attempt, logger FROM logs ORDER BY position")

    return recorded


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """Put back what the tests set on loggers."""
    yield
    for name in list(logs_module._installed):
        logs_module._uninstall(name)


def test_lines_of_flow_task_and_thread_belong_to_their_run(penstock_home: Path, lines: Any) -> None:
    @task
    def speak() -> None:
        logger = get_run_logger()
        logger.info("in the task")
        thread = threading.Thread(target=logger.warning, args=("in a thread of the task",))
        thread.start()
        thread.join(PATIENCE)

    @flow
    def main() -> None:
        get_run_logger().error("in the flow")
        speak.submit().wait()

    main()
    assert [line[:3] for line in lines()] == [
        ("in the flow", 40, 1),
        ("in the task", 20, 1),
        ("in a thread of the task", 30, 1),
    ]
    path = penstock_home / "history.db"
    owners = "SELECT count(*) FROM logs WHERE task_run_id IN (SELECT id FROM task_runs)"
    assert select(path, owners) == [(2,)]
    assert select(path, "SELECT count(DISTINCT flow_run_id) FROM logs") == [(1,)]


def test_lines_are_in_order_per_attempt(lines: Any) -> None:
    @task(retries=2)
    def talk(number: int) -> None:
        for line in range(50):
            get_run_logger().info("%d", line)
        if number % 2:
            raise ValueError("again")

    @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
    def main() -> str:
        for future in talk.map(range(8)):
            future.wait()
        return "done"

    main()
    by_attempt: dict[int, int] = {}
    for _, _, attempt, _ in lines():
        by_attempt[attempt] = by_attempt.get(attempt, 0) + 1
    assert by_attempt == {1: 400, 2: 200, 3: 200}


def test_order_within_one_attempt(penstock_home: Path) -> None:
    @task
    def talk(number: int) -> None:
        for line in range(100):
            get_run_logger().info("%d", line)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
    def main() -> None:
        talk.map(range(8))

    main()
    rows = select(
        penstock_home / "history.db", "SELECT task_run_id, message FROM logs ORDER BY position"
    )
    for run in {run for run, _ in rows}:
        assert [message for each, message in rows if each == run] == [str(n) for n in range(100)]


def test_thread_that_outlives_its_attempt_logs_for_that_one(lines: Any) -> None:
    waiting = threading.Event()
    threads: list[threading.Thread] = []

    @task(retries=1)
    def talk() -> None:
        logger = get_run_logger()
        if not threads:

            def speak_late() -> None:
                waiting.wait(PATIENCE)
                logger.info("late")

            threads.append(threading.Thread(target=speak_late))
            threads[0].start()
            raise ValueError("first")
        waiting.set()
        threads[0].join(PATIENCE)

    @flow
    def main() -> None:
        talk()

    main()
    assert [line[:3] for line in lines()] == [("late", 20, 1)]


def test_level_is_that_of_the_run(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def main(text: str) -> None:
        get_run_logger().debug("debug %s", text)
        get_run_logger().warning("warning %s", text)

    for level in ("INFO", "DEBUG", "ERROR", "INFO"):
        monkeypatch.setenv("PENSTOCK_LOG_LEVEL", level)
        main(level)
    assert [line[0] for line in lines()] == [
        "warning INFO",
        "debug DEBUG",
        "warning DEBUG",
        "warning INFO",
    ]


def test_named_loggers_are_recorded_once_while_they_are_named(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("sample.deep.logger")

    @flow
    def main(text: str) -> None:
        logger.info("%s", text)

    main("before")
    monkeypatch.setenv("PENSTOCK_LOGGERS", "sample, sample.deep,,")
    main("named")
    logger.warning("outside any run")
    monkeypatch.delenv("PENSTOCK_LOGGERS")
    main("after")
    assert lines() == [("named", 20, 1, "sample.deep.logger")]
    assert logging.getLogger("sample").level == logging.NOTSET


def test_logging_config_of_the_users_own_loses_no_line(lines: Any) -> None:
    @flow
    def main(text: str) -> None:
        get_run_logger().info(text)

    main("before")
    loggers = [
        each for each in logging.root.manager.loggerDict.values() if hasattr(each, "disabled")
    ]
    before = [(each, each.disabled) for each in loggers]
    logging.config.dictConfig({"version": 1})  # disables the loggers that exist
    try:
        main("after")
    finally:
        for each, disabled in before:
            each.disabled = disabled
    assert [line[0] for line in lines()] == ["before", "after"]


def test_exception_in_a_line_is_recorded_with_its_traceback(lines: Any) -> None:
    @flow
    def main() -> None:
        try:
            raise ValueError("token=hunter2")
        except ValueError:
            get_run_logger().exception("it failed")

    main()
    ((message, level, _, _),) = lines()
    assert message.startswith("it failed\nTraceback")
    assert "ValueError: token=***" in message
    assert level == logging.ERROR


def test_long_line_keeps_its_head_and_tail(lines: Any) -> None:
    @flow
    def main() -> None:
        get_run_logger().info("head" + "x" * 100_000 + "tail")

    main()
    message = lines()[0][0]
    assert len(message) == 32_768
    assert message.startswith("headxxx")
    assert message.endswith("xxxtail")
    assert "more]" in message


@pytest.mark.parametrize(
    ("name", "limit", "kept"), [("MOST_LINES", 10, 10), ("MOST_CHARACTERS", 100, 20)]
)
def test_full_log_of_an_attempt_says_how_much_was_dropped(
    lines: Any, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, kept: int
) -> None:
    monkeypatch.setattr(logs_module, name, limit)

    @task(retries=1)
    def talk() -> None:
        for number in range(50):
            get_run_logger().info("l%04d", number)
        raise ValueError("again")

    @flow
    def main() -> None:
        talk(return_state=True)

    main()
    for attempt in (1, 2):
        found = [line[0] for line in lines() if line[2] == attempt]
        assert found[:-1] == [f"l{number:04d}" for number in range(kept)]
        assert found[-1].startswith(f"dropped {50 - kept} lines")


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script, which must succeed, in a process with this test's settings."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    return done


SILENT = """
from penstock import flow, get_run_logger

class Silent:
    def __str__(self):
        raise RuntimeError("no")

@flow
def main():
    get_run_logger().info("%s", Silent())
    get_run_logger().info("%d %d", 1)
    get_run_logger().info("after")

main()
"""


def test_argument_that_cannot_be_shown_stops_nothing(lines: Any) -> None:
    done = run_python(SILENT)
    assert done.stderr.count("--- Logging error ---") == 2
    assert [line[0] for line in lines()] == ["after"]


# --- the console -----------------------------------------------------------------------------

SCRIPT = """
import logging, sys
{setup}
from penstock import flow, task, get_run_logger

@task
def work():
    get_run_logger().info("an info line")
    get_run_logger().warning("a warning")

@flow
def main():
    work()

main()
assert len(logging.getLogger().handlers) == {handlers}
"""


def output_of(setup: str, handlers: int) -> str:
    done = run_python(SCRIPT.format(setup=setup, handlers=handlers))
    assert done.stdout == ""
    return done.stderr


def test_warnings_are_seen_once_without_any_configuration() -> None:
    assert output_of("", 0) == "a warning\n"


def test_configured_logging_shows_each_line_once() -> None:
    shown = output_of("logging.basicConfig(level='INFO', format='%(name)s %(message)s')", 1)
    assert shown == "penstock.task_runs an info line\npenstock.task_runs a warning\n"


def test_named_and_nested_loggers_show_each_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LOGGERS", "penstock.task_runs")
    assert output_of("", 0) == "a warning\n"
