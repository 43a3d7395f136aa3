"""Worker processes that die, that cannot be stopped, and what a pool leaves behind: tables B, G."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import State, StateType, flow, task
from penstock.errors import CrashedRun, SerializationError, StartedByImportError
from penstock.task_runners import ProcessPoolTaskRunner
from penstock.task_runners.processes import supervisor
from penstock.task_runners.processes.supervisor import lasting
from penstock.testing.ledger import Gate, Ledger, wait_until
from tests.faults.processes import run_script

COMPLETED, CRASHED, FAILED = StateType.COMPLETED, StateType.CRASHED, StateType.FAILED
# Takes the expression engine for ever, and holds the interpreter meanwhile.
HOLDS_THE_INTERPRETER = (r"(a+)+$", "a" * 60 + "b")


def exit_at_once() -> None:
    os._exit(7)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def break_memory() -> None:
    ctypes.string_at(0)


@task
def add_one(number: int) -> int:
    return number + 1


def ended(future: Any) -> State:
    state = future.wait(20)
    assert state is not None
    found: State = state
    return found


@pytest.mark.parametrize(
    ("die", "said"),
    [
        (exit_at_once, "ended with exit code 7."),
        (kill_itself, "was ended by signal 9 (SIGKILL)."),
        (break_memory, "was ended by signal 11 (SIGSEGV)."),
    ],
    ids=["exit", "kill", "segfault"],
)
def test_b3_a_death_costs_one_attempt_of_what_ran(
    die: Callable[[], None], said: str, tmp_path: Path
) -> None:
    begun = Ledger(tmp_path / "begun")

    @task
    def perhaps_die(number: int) -> int:
        begun.add(str(number))
        if number == 42:
            die()
        return number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> Any:
        futures = perhaps_die.map(range(100))
        states = [ended(future) for future in futures]
        assert [state.type for state in states].count(COMPLETED) == 99
        assert states[42].type is CRASHED
        assert said in str(states[42].message)
        assert [future.task_run.attempt for future in futures] == [1] * 42 + [3] + [1] * 57
        with pytest.raises(CrashedRun, match="ended"):
            futures[42].result()
        return add_one.submit(1)

    assert example() == 2
    # Nothing that had ended ran again, although the worker had not told of all of it yet.
    assert Counter(begun.lines()) == {str(n): 3 if n == 42 else 1 for n in range(100)}


def test_b5_a_worker_killed_from_outside_is_noticed_at_once(tmp_path: Path) -> None:
    pids, gate = Ledger(tmp_path / "pids"), Gate(tmp_path / "gate")

    @task
    def wait_there() -> int:
        pids.add(str(os.getpid()))
        gate.wait()
        return 7

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> Any:
        future = wait_there.submit()
        wait_until(lambda: bool(pids.lines()))
        os.kill(int(pids.lines()[0]), signal.SIGKILL)
        gate.open()
        began = time.monotonic()
        assert future.result() == 7
        assert time.monotonic() - began < 5
        assert future.task_run.attempt == 2

    example()


def test_b6_an_idle_worker_that_is_killed_is_nobodys_fault() -> None:
    @task
    def pid() -> int:
        return os.getpid()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> Any:
        first = pid.submit().result()
        os.kill(first, signal.SIGKILL)
        future = pid.submit()
        assert future.result() != first
        assert future.task_run.attempt == 1

    example()


def test_b2_what_ends_programs_ends_the_task_run_alone() -> None:
    @task
    def leave(number: int) -> None:
        if number == 1:
            sys.exit(3)
        raise KeyboardInterrupt

    @task
    def pid() -> int:
        return os.getpid()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> None:
        before = pid.submit().result()
        states = [ended(leave.submit(number)) for number in (1, 2)]
        assert [state.message for state in states] == [
            "Execution was aborted by Python system exit call.",
            "Execution was aborted by an interrupt signal.",
        ]
        assert pid.submit().result() == before

    example()


class LoadsBadly:
    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)


class LoadsBadlyError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)
        self.lock = threading.Lock()


def test_e2_e4_what_does_not_load_costs_its_own_task_run_alone() -> None:
    @task
    def give(kind: str) -> Any:
        if kind == "error":
            raise LoadsBadlyError(1, 2)
        return LoadsBadly() if kind == "value" else threading.Lock()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> None:
        futures = {kind: give.submit(kind) for kind in ("value", "lock", "error")}
        assert add_one.submit(1).result() == 2
        assert all(ended(future).type is FAILED for future in futures.values())
        assert [future.task_run.attempt for future in futures.values()] == [1, 1, 1]
        with pytest.raises(SerializationError, match="cannot be turned back"):
            futures["value"].result()
        with pytest.raises(SerializationError, match="_thread.lock cannot be pickled"):
            futures["lock"].result()
        with pytest.raises(RuntimeError, match="LoadsBadlyError: 1"):
            futures["error"].result()

    example()


@task(timeout_seconds=0.2)
def sleep_long() -> None:
    time.sleep(30)


@task(timeout_seconds=0.2)
def refuse_to_stop() -> None:
    while True:
        try:
            time.sleep(30)
        except BaseException:
            pass


@task(timeout_seconds=0.2)
def hold_the_interpreter() -> None:
    re.match(*HOLDS_THE_INTERPRETER)


@pytest.mark.parametrize(
    ("long", "is_killed"),
    [(sleep_long, False), (refuse_to_stop, True), (hold_the_interpreter, True)],
    ids=["sleeps", "refuses", "holds the interpreter"],
)
def test_g3_a_time_limit_ends_whatever_runs(
    long: Any, is_killed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def pid() -> int:
        return os.getpid()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> None:
        before = pid.submit().result()
        began = time.monotonic()
        state = ended(long.submit())
        assert (state.name, state.type) == ("TimedOut", FAILED)
        assert time.monotonic() - began < 5
        assert (pid.submit().result() != before) == is_killed

    example()
    assert ("does not stop" in caplog.text) == is_killed


@pytest.mark.parametrize("way", ["refuses", "holds the interpreter"])
def test_g1_a_cancelled_task_run_ends_whatever_it_does(way: str, tmp_path: Path) -> None:
    begun = Ledger(tmp_path / "begun")

    @task
    def go_on() -> None:
        begun.add("there")
        if way == "refuses":
            refuse_to_stop.fn()
        re.match(*HOLDS_THE_INTERPRETER)

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> None:
        future = go_on.submit()
        begun.wait_for("there")
        behind = add_one.map(range(20))
        assert future.cancel()
        assert ended(future).is_cancelled()
        assert sum(behind.result()) == sum(range(1, 21))

    example()


def test_the_time_limit_of_one_task_touches_no_other(tmp_path: Path) -> None:
    done = Ledger(tmp_path / "done")

    @task
    def last(number: int) -> int:
        time.sleep(0.5)
        done.add(str(number))
        return number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> None:
        others = last.map(range(2))
        lost = hold_the_interpreter.submit()
        assert others.result() == [0, 1]
        assert ended(lost).name == "TimedOut"
        assert [future.task_run.attempt for future in others] == [1, 1]

    example()
    assert sorted(done.lines()) == ["0", "1"]


def test_b19_a_task_leaves_its_process_as_it_found_it() -> None:
    @task
    def change() -> tuple[str | None, str, bool]:
        found = os.environ.get("PENSTOCK_TEST_MARK"), os.getcwd(), sys.stdout.closed
        os.environ["PENSTOCK_TEST_MARK"] = "changed"
        del os.environ["PATH"]
        os.chdir("/")
        sys.stdout.close()
        return found

    @task
    def path() -> str | None:
        print("still there")
        return os.environ.get("PATH")

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> None:
        expected = (None, os.getcwd(), False)
        for _ in range(3):
            assert change.submit().result() == expected
        assert path.submit().result() == os.environ["PATH"]

    example()


def test_a18_a_child_that_a_task_forks_disturbs_nobody() -> None:
    @task
    def fork() -> str:
        pid = os.fork()
        if pid == 0:
            return "child"
        os.waitpid(pid, 0)
        return "parent"

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> list[str]:
        return [fork.submit().result() for _ in range(3)]

    assert example() == ["parent"] * 3


def fail_at_the_start() -> None:
    raise ValueError("no database")


def exit_at_the_start() -> None:
    os._exit(3)


@pytest.mark.parametrize(
    ("initializer", "said"),
    [
        (fail_at_the_start, "The initializer of the process pool raised ValueError: no database"),
        (exit_at_the_start, "3 worker processes ended one after another before they were ready"),
    ],
)
def test_workers_that_cannot_start_end_the_flow_run(
    initializer: Callable[[], None], said: str
) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1, initializer=initializer))
    def example() -> Any:
        return add_one.submit(1)

    state = example(return_state=True)
    assert not state.is_completed()
    with pytest.raises(CrashedRun, match=said):
        state.result()


def arenas() -> set[Path]:
    return set(Path("/dev/shm").glob(f"penstock-{os.getuid()}-*"))


def test_a_pool_that_cannot_be_started_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> int:
        return add_one.submit(1).result()

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(supervisor, "LINGER_SECONDS", 0.1)
    example()  # what lasts for the process is open now
    wait_until(lambda: lasting() is None)
    wait_until(lambda: not any(t.name == "penstock-supervisor" for t in threading.enumerate()))
    open_before, arenas_before = os.listdir("/proc/self/fd"), arenas()
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            example()
    assert arenas() <= arenas_before
    assert len(os.listdir("/proc/self/fd")) == len(open_before)
    assert example() == 2


@pytest.mark.parametrize("there_are", [0, 1])
def test_workers_that_cannot_be_added_are_done_without(
    there_are: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, started = Ledger(tmp_path / "begun"), 0
    start_worker = supervisor.Supervisor.start_worker

    def start_few(*arguments: Any) -> Any:
        nonlocal started
        started += 1
        if started > there_are:
            raise OSError(24, "Too many open files")
        return start_worker(*arguments)

    monkeypatch.setattr(supervisor.Supervisor, "start_worker", start_few)

    @task
    def note(number: int) -> int:
        begun.add(str(number))
        return number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2, bundle=False))
    def example() -> list[StateType]:
        return [ended(future).type for future in note.map(range(6))]

    # None of them is said to have crashed and is executed all the same.
    assert example() == [COMPLETED if there_are else CRASHED] * 6
    assert sorted(begun.lines()) == list("012345") * there_are
    assert "No worker process can be started: OSError: [Errno 24]" in caplog.text


def hang_at_the_start(begun: Ledger) -> None:
    begun.add("begun")
    signal.pause()


def test_what_waits_for_a_hanging_initializer_can_be_cancelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = Ledger(tmp_path / "begun")

    @flow(task_runner=ProcessPoolTaskRunner(1, hang_at_the_start, initargs=[begun]))
    def example() -> bool:
        future = add_one.submit(1)
        begun.wait_for("begun")
        return future.cancel() and ended(future).is_cancelled()

    assert example()
    # The flow run ended as soon as the worker did, for nothing was on its way any more.
    assert "could not be stopped" not in caplog.text


def test_a_nursery_that_is_killed_costs_what_ran_one_attempt(tmp_path: Path) -> None:
    parents, gate = Ledger(tmp_path / "parents"), Gate(tmp_path / "gate")

    @task
    def wait_there() -> int:
        parents.add(f"{os.getppid()} {os.getpid()}")
        gate.wait()
        return 7

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> None:
        future = wait_there.submit()
        wait_until(lambda: bool(parents.lines()))
        nursery, worker = map(int, parents.lines()[0].split())
        os.kill(nursery, signal.SIGKILL)
        wait_until(lambda: not is_alive(worker))
        gate.open()
        assert future.result() == 7
        assert future.task_run.attempt == 2
        assert add_one.submit(1).result() == 2

    example()


DRIVER = """
import os, sys, time
from penstock import flow, task
from penstock.task_runners import ProcessPoolTaskRunner

@task
def stay(number):
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()} {os.getppid()}\\n")
    time.sleep(60)

@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def example():
    futures = stay.map(range(2))
    while not os.path.exists(sys.argv[1]) or len(open(sys.argv[1]).readlines()) < 2:
        time.sleep(0.01)
    print("there", flush=True)
    return [future.result() for future in futures]

if __name__ == "__main__":
    sys.argv.append(sys.argv[0] + ".pids")
    example()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "code"),
    # Python ends itself by the signal after a KeyboardInterrupt; a shell makes 130 of it.
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2), (signal.SIGHUP, 129)],
)
def test_workers_end_with_the_driver(
    number: signal.Signals, code: int, penstock_home: Path
) -> None:
    ending = run_script(penstock_home, DRIVER, number)
    assert ending.code == code
    listed = (penstock_home / "script.py.pids").read_text().split()
    assert len(listed) == 4
    wait_until(lambda: not any(is_alive(int(pid)) for pid in listed))
    assert "Traceback" not in ending.output or number == signal.SIGINT


UNGUARDED = """
import os
from penstock import flow, task
from penstock.task_runners import ProcessPoolTaskRunner
print("begins")

@task
def square(number):
    return number * number

@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def example():
    return sum(square.map(range(10)).result())

print(example())
"""


def test_b22_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "begins\n285\n"), done.stderr


def test_b22_a_module_whose_import_starts_a_flow_is_named(tmp_path: Path) -> None:
    (tmp_path / "etl.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, "-c", "import etl"],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"penstock.errors.{StartedByImportError.__name__}: Flow 'example' is started by the import "
        "of its module, here in a worker process that needs a task of that module, and so in each "
        "of them. Put what starts the flow under: if __name__ == '__main__':"
    )


def test_nothing_is_left_behind() -> None:
    @task
    def make(size: int) -> bytes:
        return bytes(size)

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> int:
        return len(make.submit(3_000_000).result())

    own = f"penstock-{os.getuid()}-"

    def folders() -> set[str]:
        return {name for name in os.listdir("/dev/shm") if name.startswith(own)}

    before = folders()
    assert example() == 3_000_000
    assert folders() <= before
    last = lasting()
    assert last is not None
    assert not last._workers
