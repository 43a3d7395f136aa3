"""Failpoints: read only in tests, refused when they mean nothing, placed where the table says."""

from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.failpoints import NAMES, read_failpoints

SOURCE = Path(__file__).resolve().parent.parent / "src" / "penstock"

# Which files reach which failpoint, and at how many places.
SITES = {
    "lease.acquire": {"history/sqlite_leases.py": 1},
    "lease.beat": {"history/sqlite_leases.py": 1},
    "lease.steal": {"history/sqlite_leases.py": 1},
    "history.batch_built": {"history/recorder.py": 1},
    "history.begin": {"history/sqlite.py": 1},
    "history.before_commit": {"history/sqlite.py": 1},
    "history.committed": {"history/sqlite.py": 1},
    "history.reply": {"history/recorder.py": 1},
    "task.dispatched": {"remote/dispatch.py": 1},
    "worker.received": {"remote/worker.py": 1},
    "worker.body_start": {"remote/worker.py": 1},
    "worker.body_end": {"remote/worker.py": 1},
    "worker.serialised": {"remote/worker.py": 1},
    "worker.send": {"remote/outbox.py": 1, "task_runners/processes/port.py": 1},
    "result.temp_written": {"results/local.py": 1},
    "result.fsynced": {"results/local.py": 1},
    "result.renamed": {"results/local.py": 1},
    "result.stored": {"results/policy.py": 1},
    "event.completed_buffered": {"runtime/task_runs.py": 1},
    "resume.loaded": {"runtime/resuming.py": 1},
    "resume.requeued": {"runtime/resuming.py": 1},
    "cancel.requested": {"runtime/cancellation.py": 1},
    "migrate.backup": {"history/schema.py": 1},
    "migrate.step": {"history/schema.py": 1},
    "gc.mark": {"cli/sweep.py": 1},
    "gc.delete": {"cli/sweep.py": 1},
}


def sites_in(source: str, path: str) -> Iterator[tuple[str, bool]]:
    """Give the name that each call of `hit` in a source names, and whether it is guarded."""
    tree = ast.parse(source, path)
    guarded = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "FAILPOINTS"
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "hit":
            name = ast.unparse(node.args[0])
            yield ast.literal_eval(name) if name[:1] in "'\"" else name, id(node) in guarded


def test_every_failpoint_is_placed_where_the_table_says() -> None:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for file in sorted(SOURCE.rglob("*.py")):
        path = file.relative_to(SOURCE).as_posix()
        for name, is_guarded in sites_in(file.read_text("utf-8"), path):
            assert is_guarded, f"{path} reaches {name} without looking at FAILPOINTS first"
            found[name][path] += 1
    assert found == SITES
    assert list(NAMES) == list(SITES)


def test_search_for_places_sees_those_without_a_guard() -> None:
    source = "def f():\n    hit('a')\n    if FAILPOINTS:\n        failpoints.hit(name)\n"
    assert list(sites_in(source, "a.py")) == [("a", False), ("name", True)]


def variables(points: str, **others: str) -> dict[str, str]:
    return {"PENSTOCK_TESTING": "1", "PENSTOCK_FAILPOINTS": points, **others}


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ("history.comitted=kill", "there is no failpoint 'history.comitted'; there are lease."),
        ("history.begin", "its action must be kill, stop"),
        ("history.begin=die", "its action must be"),
        ("history.begin=kill@0", "its action must be"),
        ("history.begin=kill@2%0.5", "its action must be"),
        ("history.begin=kill%1.2.3", "'1.2.3' is no probability"),
        ("history.begin=raise:Nothing", "its action must be"),
        ("history.begin=raise:print", "its action must be"),
        ("history.begin=error:EPERM", "its action must be"),
        ("history.begin=sleep:long", "its action must be"),
        ("history.begin=kill;history.begin=exit", "'history.begin' is named twice"),
    ],
)
def test_what_means_nothing_is_refused(points: str, told: str) -> None:
    with pytest.raises(ValueError, match="PENSTOCK_FAILPOINTS has 'history") as caught:
        read_failpoints(variables(points))
    assert told in str(caught.value)
    assert read_failpoints({"PENSTOCK_FAILPOINTS": points}) == {}
    assert read_failpoints({"PENSTOCK_FAILPOINTS": points, "PENSTOCK_TESTING": "0"}) == {}


def test_only_the_time_that_was_named_acts() -> None:
    point = read_failpoints(variables(" history.begin = raise:KeyError@3 ; "))["history.begin"]
    point.reach()
    point.reach()
    with pytest.raises(KeyError, match="The failpoint history.begin was reached."):
        point.reach()
    point.reach()


@pytest.mark.parametrize("name", ["ENOSPC", "EIO"])
def test_error_is_the_one_of_the_system(name: str) -> None:
    point = read_failpoints(variables(f"history.begin=error:{name}"))["history.begin"]
    for _ in range(2):
        with pytest.raises(OSError, match="history.begin") as caught:
            point.reach()
        assert caught.value.errno == getattr(errno, name)


def reached(points: str, times: int, **others: str) -> list[int]:
    """Give which times a failpoint acts."""
    point = read_failpoints(variables(points, **others))["history.begin"]
    acted = []
    for number in range(1, times + 1):
        try:
            point.reach()
        except ValueError:
            acted.append(number)
    return acted


def test_chance_follows_from_the_seed() -> None:
    points = "history.begin=raise:ValueError%0.2"
    first = reached(points, 200, PENSTOCK_FAILPOINT_SEED="1")
    assert 20 < len(first) < 60
    assert reached(points, 200, PENSTOCK_FAILPOINT_SEED="1") == first
    assert reached(points, 200, PENSTOCK_FAILPOINT_SEED="2") != first


def run_in_process(code: str, points: str, **others: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has failpoints."""
    environment = {**os.environ, **variables(points, **others)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30
    )


REACH = (
    "from penstock.failpoints import FAILPOINTS, hit\nfor _ in range({}): hit('task.dispatched')"
)


def test_processes_may_count_together(tmp_path: Path) -> None:
    points, folder = "task.dispatched=exit@5", str(tmp_path)
    ended = [
        run_in_process(REACH.format(2), points, PENSTOCK_FAILPOINT_COUNTS=folder).returncode
        for _ in range(4)
    ]
    assert ended == [0, 0, 70, 0]
    assert (tmp_path / "task.dispatched").stat().st_size == 7


@pytest.mark.parametrize(("action", "code"), [("kill", -signal.SIGKILL), ("exit", 70)])
def test_process_ends_there(action: str, code: int) -> None:
    script = f"import atexit; atexit.register(print, 'cleaned up')\n{REACH.format(2)}\nprint('on')"
    done = run_in_process(script, f"task.dispatched={action}@2")
    assert (done.returncode, done.stdout) == (code, "")


def test_process_stops_and_goes_on() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", REACH.format(1)],
        env={**os.environ, **variables("task.dispatched=stop")},
    )
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_status == signal.SIGSTOP
        process.send_signal(signal.SIGCONT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_sleep_holds_the_place_up() -> None:
    code = f"import time; began = time.monotonic()\n{REACH.format(1)}\n"
    code += "assert time.monotonic() - began > 0.2"
    assert run_in_process(code, "task.dispatched=sleep:0.2").returncode == 0


def test_mistake_is_told_when_the_package_is_loaded() -> None:
    done = run_in_process("import penstock.failpoints", "task.send=kill")
    assert done.returncode == 1
    assert (
        "PENSTOCK_FAILPOINTS has 'task.send=kill': there is no failpoint 'task.send'"
        in (done.stderr.splitlines()[-1])
    )
    assert run_in_process("import penstock", "a=b", PENSTOCK_TESTING="").returncode == 0
