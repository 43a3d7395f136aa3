"""What a flow call returned from is in the history, complete and causally closed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from penstock import allow_failure, flow, get_run_logger, tags, task
from penstock.errors import HistoryError, HistoryTooNew, HistoryUnavailable, SettingsError
from penstock.history import recorder as recorder_module
from penstock.runtime import recording
from penstock.task_runners import ConcurrentTaskRunner, SequentialTaskRunner
from tests.checker import History, problems_of
from tests.history.rows import select

RUNNERS = [SequentialTaskRunner, ConcurrentTaskRunner]
PATIENCE = 10.0


@task
def add_one(value: int) -> int:
    get_run_logger().info("add %d", value)
    return value + 1


@task
def fail(value: int) -> int:
    raise ValueError(f"cannot do {value}")


@task
def nested(depth: int) -> int:
    return depth if depth == 0 else nested.submit(depth - 1).result() + add_one(0)


@task
async def add_one_async(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


@flow
def part(size: int) -> list[int]:
    return [future.result() for future in add_one.map(range(size))]


def everything(runner: Any) -> Any:
    """Make a flow that has one of everything."""

    @flow(task_runner=runner())
    def mixed(size: int) -> int:
        tries: list[int] = []

        @task(retries=2, tags=["flaky"])
        def flaky() -> int:
            tries.append(1)
            if len(tries) < 3:
                raise ValueError(f"try {len(tries)}")
            return len(tries)

        with tags("outer"):
            first = add_one.map(range(size))
            second = add_one.map(first)
        bad = fail.submit(1)
        add_one.submit(bad)
        bad.wait()
        flaky.submit().wait()
        nested.submit(3).wait()
        part(3)
        fail(2, return_state=True)
        add_one.submit(0, wait_for=second).cancel()
        add_one_async.submit(1).wait()
        return sum(future.result() for future in second)

    return mixed


@pytest.mark.parametrize("runner", RUNNERS)
def test_everything_of_a_flow_is_there_when_its_call_returns(
    runner: Any, penstock_home: Path
) -> None:
    assert everything(runner)(20) == sum(range(20)) + 40
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    history = History.read(path)
    assert {row["flow"]: row["state"] for row in history.flow_runs.values()} == {
        "mixed": "COMPLETED",
        "part": "COMPLETED",
    }
    tags_of = [row["detail"] for row in history.task_runs.values() if "outer" in str(row["detail"])]
    assert len(tags_of) == 40
    (flaky,) = [row for row in history.task_runs.values() if row["attempt"] == 3]
    assert [(kind, name, message) for kind, name, _, message in json.loads(flaky["states"])] == [
        ("PENDING", None, None),
        ("RUNNING", None, None),
        ("SCHEDULED", "AwaitingRetry", "Task run encountered an exception. ValueError: try 1"),
        ("RUNNING", "Retrying", None),
        ("SCHEDULED", "AwaitingRetry", "Task run encountered an exception. ValueError: try 2"),
        ("RUNNING", "Retrying", None),
        ("COMPLETED", None, None),
    ]
    done = [row for row in history.task_runs.values() if '"value"' in row["parameters"]]
    done = [row for row in done if row["state"] == "COMPLETED" and row["result_codec"] == "json"]
    logged = {line["task_run_id"] for line in history.logs}
    assert sum(row["id"] in logged for row in done) >= 40 + 3 + 3


def test_flow_retry_keeps_a_subflow_and_leaves_nothing_unfinished(penstock_home: Path) -> None:
    tries = []

    @flow(retries=1)
    def twice() -> None:
        part(2)
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")

    twice()
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert select(path, "SELECT flow, state FROM flow_runs ORDER BY flow") == [
        ("part", "COMPLETED"),
        ("twice", "COMPLETED"),
    ]


def test_failures_let_through_are_recorded_before_what_took_them(penstock_home: Path) -> None:
    @task
    def count(values: list[Any]) -> int:
        return len(values)

    @flow
    def lenient() -> int:
        bad = fail.map(range(10))
        return count.submit(allow_failure(bad)).result()

    assert lenient() == 10
    assert problems_of(penstock_home / "history.db", allow_failure=True) == []


def test_eight_threads_run_flows_at_once(penstock_home: Path) -> None:
    mixed = everything(ConcurrentTaskRunner)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(mixed, [10] * 16))
    assert results == [65] * 16
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) FROM flow_runs") == [(32,)]


def test_async_flows_of_one_loop_are_recorded_apart(penstock_home: Path) -> None:
    @flow
    async def gather(size: int) -> int:
        return sum(await asyncio.gather(*[add_one_async(n) for n in range(size)]))

    async def main() -> list[int]:
        return await asyncio.gather(*[gather(n) for n in range(5)])

    assert asyncio.run(main()) == [0, 1, 3, 6, 10]
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) FROM task_runs") == [(10,)]


def test_cancelled_while_being_started_never_stays_running(penstock_home: Path) -> None:
    @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
    def cancel_all() -> str:
        for _ in range(300):
            future = add_one.submit(1)
            future.cancel()
        return "done"

    assert cancel_all() == "done"
    assert problems_of(penstock_home / "history.db") == []


def test_history_is_closed_at_every_moment(penstock_home: Path) -> None:
    """A second connection looks all the time; it never sees an end before what led to it."""
    seen: list[str] = []
    moments = 0
    over = threading.Event()
    path = penstock_home / "history.db"

    def look() -> None:
        nonlocal moments
        while not over.is_set():
            if path.exists() and select(path, "PRAGMA user_version") != [(0,)]:
                seen.extend(p for p in problems_of(path) if not p.startswith("sound"))
                moments += 1

    @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
    def layers() -> str:
        values: list[Any] = list(range(40))
        for _ in range(40):
            values = add_one.map(values)
        return str(values[0].result())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(2):
            assert layers() == "40"
    finally:
        over.set()
        thread.join(PATIENCE)
    assert seen == []
    assert moments > 3


# --- opening and closing ---------------------------------------------------------------------


def test_lone_tasks_are_recorded_by_their_own_name(penstock_home: Path) -> None:
    add_one(1)
    add_one.with_options(name="other")(2)
    recording.close()
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert {name for (name,) in select(path, "SELECT name FROM tasks")} == {"add-one", "other"}


def test_after_close_the_next_flow_opens_anew(penstock_home: Path) -> None:
    for _ in range(3):
        part(2)
        recording.close()
    assert select(penstock_home / "history.db", "SELECT count(*) FROM flow_runs") == [(3,)]


def test_flow_that_outlives_its_history_says_so(penstock_home: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @flow
    def slow() -> int:
        begun.set()
        go_on.wait(PATIENCE)
        return add_one(1)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(slow)
        assert begun.wait(PATIENCE)
        recording.close()
        go_on.set()
        with pytest.raises(HistoryUnavailable, match="was closed while runs were going on"):
            running.result(PATIENCE)
    assert part(2) == [1, 2]


def test_two_databases_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a b?.db", tmp_path / "ü#%20.db"]
    for path in [*paths, *paths]:
        monkeypatch.setenv("PENSTOCK_DATABASE_URL", f"sqlite:///{path}")
        part(2)
    for path in paths:
        assert problems_of(path) == []
        assert select(path, "SELECT count(*) FROM flow_runs") == [(2,)]


def test_record_off_keeps_nothing(penstock_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RECORD", "off")
    assert everything(ConcurrentTaskRunner)(5) == 20
    assert not penstock_home.exists()


ODD_URLS = {
    "sqlite://": "names no file",
    "sqlite:///": "names no file",
    ":memory:": "names no file",
    "sqlite://host/x.db": "names no file",
    "mysql://u:secret@h/db": "mysql",
    "/": "cannot be opened",
    "/dev/null/x.db": "cannot be opened",
    "/proc/nothing/x.db": "cannot be opened",
}


@pytest.mark.parametrize("url", ODD_URLS)
def test_odd_url_is_an_error_before_anything_runs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", url)
    ran = []

    @flow
    def never() -> None:
        ran.append(1)

    with pytest.raises((HistoryError, SettingsError), match=ODD_URLS[url]) as caught:
        never()
    assert "secret" not in str(caught.value)
    assert not ran


def test_newer_history_is_refused_untouched(penstock_home: Path) -> None:
    part(1)
    recording.close()
    path = penstock_home / "history.db"
    select(path, "PRAGMA user_version = 999")
    before = path.read_bytes()
    with pytest.raises(HistoryTooNew):
        part(1)
    assert path.read_bytes() == before


# --- processes -------------------------------------------------------------------------------


def run_python(script: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run a script in a process with this test's settings."""
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=dict(os.environ),
    )


def test_lone_tasks_are_written_at_exit(penstock_home: Path) -> None:
    done = run_python(
        "from penstock import task\n@task\ndef t(x): pass\nfor n in range(500): t(n)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert select(penstock_home / "history.db", "SELECT count(*) FROM task_runs") == [(500,)]


def test_process_ends_while_a_daemon_thread_runs_a_flow(penstock_home: Path) -> None:
    done = run_python(
        "import threading\n"
        "from penstock import flow, task\n"
        "many = threading.Event()\n"
        "@task\ndef t(x):\n    if x > 100: many.set()\n"
        "@flow\ndef f():\n    n = 0\n    while True:\n        t(n); n += 1\n"
        "threading.Thread(target=f, daemon=True).start()\n"
        "many.wait(10)\n"
    )
    assert done.returncode == 0
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) > 100 FROM task_runs") == [(1,)]


@pytest.fixture
def quiet_forks() -> Iterator[None]:
    """Forget, in the parent, nothing: only silence Python's warning about forking threads."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def test_forked_child_records_nothing(penstock_home: Path, quiet_forks: None) -> None:
    @flow
    def forks() -> int:
        add_one(1)
        child = os.fork()
        if child == 0:
            for n in range(10):
                add_one(n)
            get_run_logger().info("from the child")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        add_one(2)
        return status

    assert forks() == 0
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) FROM task_runs") == [(2,)]
    assert select(path, "SELECT count(*) FROM logs WHERE message LIKE '%child%'") == [(0,)]


def test_forked_child_runs_a_flow_of_its_own(penstock_home: Path, quiet_forks: None) -> None:
    part(1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if part(3) == [1, 2, 3] else 2
            recording.close()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    part(1)
    path = penstock_home / "history.db"
    assert problems_of(path) == []
    assert select(path, "SELECT count(*) FROM flow_runs") == [(3,)]


def test_new_run_is_recorded_after_an_outage(
    penstock_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(1)
    (recorder,) = recording._recorders.values()
    recorder.failure = HistoryUnavailable("given up")
    assert part(2) == [1, 2]
    assert recorder_module.PATIENCE_SECONDS == 600
    assert problems_of(penstock_home / "history.db") == []
