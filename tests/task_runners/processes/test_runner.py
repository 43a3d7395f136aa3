"""ProcessPoolTaskRunner: settings, workers, values, and what workers print."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from penstock import flow, task, unmapped
from penstock.task_runners import ConcurrentTaskRunner, ProcessPoolTaskRunner, TaskConcurrencyType
from penstock.task_runners.processes.deaths import Deaths
from penstock.testing.ledger import Gate, Ledger, wait_until
from tests.faults.processes import run_script

ROOT = Path(__file__).resolve().parents[3]


@task
def pid() -> int:
    return os.getpid()


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", True])
def test_max_workers_is_checked(number: Any) -> None:
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        ProcessPoolTaskRunner(max_workers=number)


def test_other_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="initializer is 5; it must be callable"):
        ProcessPoolTaskRunner(initializer=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`bundle` is 'no'"):
        ProcessPoolTaskRunner(bundle="no")  # type: ignore[arg-type]


def test_settings_make_equality_and_survive() -> None:
    runner = ProcessPoolTaskRunner(3, initializer=print, initargs=["a"], bundle=False)
    assert runner.duplicate() == runner != ProcessPoolTaskRunner(3)
    assert pickle.loads(pickle.dumps(runner)) == runner
    assert runner.concurrency_type is TaskConcurrencyType.PARALLEL
    assert (runner.name, str(runner)) == ("processpool", "ProcessPoolTaskRunner")
    assert repr(ProcessPoolTaskRunner()) == "ProcessPoolTaskRunner()"
    assert "bundle=False" in repr(runner)


def test_a_started_runner_cannot_be_used_after_its_travel() -> None:
    async def travelled() -> Any:
        async with ProcessPoolTaskRunner(1).start() as runner:
            return cloudpickle.loads(cloudpickle.dumps(runner))

    copy = asyncio.run(travelled())
    with pytest.raises(RuntimeError) as caught:
        copy.place([object()])
    assert str(caught.value) == (
        "The processpool task runner cannot be used to submit work after serialization."
    )


def test_workers_last_and_are_no_more_than_wanted(tmp_path: Path) -> None:
    gate, there = Gate(tmp_path / "gate"), Ledger(tmp_path / "there")

    @task
    def meet() -> int:
        there.add(str(os.getpid()))
        gate.wait()
        return os.getpid()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> None:
        futures = [meet.submit() for _ in range(4)]
        wait_until(lambda: len(there.lines()) == 2)
        gate.open()
        pids = {future.result() for future in futures}
        assert len(pids) == 2
        assert {pid.submit().result() for _ in range(10)} <= pids
        assert os.getpid() not in pids

    example()


def mark(text: str) -> None:
    os.environ["PENSTOCK_TEST_MARK"] = text


def test_an_initializer_is_called_in_each_worker() -> None:
    @task
    def read() -> str | None:
        return os.environ.get("PENSTOCK_TEST_MARK")

    runner = ProcessPoolTaskRunner(1, initializer=mark, initargs=("made",))
    assert flow(task_runner=runner)(lambda: read.submit().result())() == "made"


ONLY_WHAT_PENSTOCK_REQUIRES = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from penstock import flow, task
from penstock.task_runners import ProcessPoolTaskRunner

@task
def triple(number):
    return 3 * number

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def example():
    return triple.submit(14).result()

print(example())
"""


def test_a_script_needs_nothing_but_what_penstock_requires(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required, extra = (
        {re.split(r"[^\w.-]", line)[0] for line in lines}
        for lines in (
            project["dependencies"],
            [line for lines in project["optional-dependencies"].values() for line in lines],
        )
    )
    missing = sorted(extra - required - {"penstock"})
    ended = run_script(tmp_path, ONLY_WHAT_PENSTOCK_REQUIRES.format(missing=missing))
    assert (ended.code, ended.output.splitlines()[-1]) == (0, "42"), ended.output


def test_tasks_nest_with_one_worker() -> None:
    @task
    def down(depth: int) -> int:
        return 0 if depth == 0 else down.submit(depth - 1).result() + 1

    assert flow(task_runner=ProcessPoolTaskRunner(1))(lambda: down.submit(8).result())() == 8


def test_large_values_lie_in_shared_memory() -> None:
    @task
    def make(size: int) -> Any:
        return np.ones(size)

    @task
    def look(block: Any, number: int) -> tuple[float, bool, int]:
        return float(block.sum()), bool(block.flags.writeable), number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def example() -> Any:
        made = make.submit(500_000)
        made.wait()  # else what looks at it may travel along, and get the very same object
        seen = look.map(unmapped(made), range(4))
        assert seen.result() == [(500_000.0, False, number) for number in range(4)]
        shared = look.map(unmapped(np.full(500_000, 2.0)), range(4))
        assert shared.result() == [(1_000_000.0, False, number) for number in range(4)]
        return made

    block = example()
    # It is the caller's own, after the pool has gone as well.
    block[0] = 5
    assert block.sum() == 500_004


def test_what_is_printed_comes_out_here(capfd: pytest.CaptureFixture[str]) -> None:
    @task
    def say(number: int) -> None:
        print(f"said {number} ü")
        print(f"warned {number}", file=sys.stderr)
        sys.stdout.flush()
        os.write(1, f"by C code {number}\n".encode())

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example() -> None:
        for number in range(3):
            say.submit(number).result()

    example()
    out, err = "", ""

    def has_all() -> bool:
        nonlocal out, err
        more = capfd.readouterr()
        out, err = out + more.out, err + more.err
        return out.count("\n") == 6 and err.count("\n") == 3

    wait_until(has_all)
    assert out.splitlines()[:2] == ["said 0 ü", "by C code 0"]
    assert err.splitlines() == ["warned 0", "warned 1", "warned 2"]


def test_two_pools_at_once(tmp_path: Path) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def inner() -> int:
        found: int = pid.submit().result()
        return found

    @flow(task_runner=ConcurrentTaskRunner())
    def outer() -> set[int]:
        return {future.result() for future in [inner.submit() for _ in range(3)]}

    assert len(outer()) == 3


def test_flows_from_many_threads() -> None:
    found: list[int] = []

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def example(number: int) -> None:
        found.append(pid.submit().result())

    threads = [threading.Thread(target=example, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (3, "The worker process 12 that ran it ended with exit code 3."),
        (-9, "The worker process 12 that ran it was ended by signal 9 (SIGKILL)."),
        (None, "The worker process 12 that ran it was lost."),
    ],
)
def test_deaths_in_words(code: int | None, said: str) -> None:
    assert Deaths().describe(12, code, 1) == said


def test_a_death_for_want_of_memory_is_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.task_runners.processes import deaths as module

    counts = iter([3, 4, 4])
    monkeypatch.setattr(module, "_kills_for_memory", lambda: next(counts))
    deaths = Deaths()
    said = deaths.describe(12, -9, 7_600_000_000)
    assert "It took up to 7.6 GB" in said
    assert "because memory ran out" in said
    assert "memory" not in deaths.describe(13, -9, 7_600_000_000)
