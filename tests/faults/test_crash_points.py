"""The driver dies at every durable step, is resumed, and the judge has the last word."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock.history.owners import process_started_at
from tests.checker import History
from tests.faults import judge
from tests.faults.crashing import (
    DRIVER_POINTS,
    RESUME_POINTS,
    WORKER_POINTS,
    crash_at,
    crash_while_resuming,
    freeze,
    hits_of,
    resume_twice,
)
from tests.faults.drivers import Story, Warm
from tests.faults.mutations import try_mutations
from tests.faults.soak import tell_seed

SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="session")
def warm_driver() -> Iterator[Warm]:
    """Give what forks drivers; it lasts as long as the tests."""
    warm = Warm()
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def hits(warm_driver: Warm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Count how often each failpoint is reached when nothing happens there."""
    return hits_of(Story(warm_driver, tmp_path_factory.mktemp("undisturbed"), pause=0.005))


@pytest.mark.parametrize("name", DRIVER_POINTS)
def test_first_time_at_each_step(warm_driver: Warm, tmp_path: Path, name: str) -> None:
    story = Story(warm_driver, tmp_path, pause=0.005)
    assert crash_at(story, name, 1) == -signal.SIGKILL
    assert story.judge() == []


@pytest.mark.parametrize("name", DRIVER_POINTS)
def test_some_time_at_each_step(
    warm_driver: Warm, tmp_path: Path, hits: dict[str, int], name: str
) -> None:
    nth = random.Random(f"{SEED} {name}").randint(1, hits[name])
    story = Story(warm_driver, tmp_path, pause=0.005, seed=SEED)
    crash_at(story, name, nth)
    assert story.judge() == [], f"FAULTS_SEED={SEED}: the {nth}. time at {name}"


@pytest.mark.parametrize("name", RESUME_POINTS)
def test_resume_dies_at_each_step(warm_driver: Warm, tmp_path: Path, name: str) -> None:
    story = Story(warm_driver, tmp_path, pause=0.005)
    crash_while_resuming(story, [f"{name}=kill@1"])
    assert story.judge() == []


def test_resume_dies_five_times(warm_driver: Warm, tmp_path: Path) -> None:
    """Case A3: the sixth one completes it, and nothing recorded is run again."""
    dice = random.Random(SEED)
    story = Story(warm_driver, tmp_path, pause=0.005, seed=SEED)
    points = [f"event.completed_buffered=kill@{dice.randint(1, 4)}" for _ in range(5)]
    crash_while_resuming(story, points)
    assert story.judge() == [], f"FAULTS_SEED={SEED}"


@pytest.mark.parametrize("name", WORKER_POINTS)
def test_worker_dies_at_each_step(warm_driver: Warm, tmp_path: Path, name: str) -> None:
    """Nothing is resumed: the driver has another worker do it."""
    story = Story(warm_driver, tmp_path, "processes", losses=1)
    assert story.wait(story.run(f"{name}=kill@2")) == 0, story.output()
    assert story.judge() == []


def test_dispatcher_dies_with_the_driver(warm_driver: Warm, tmp_path: Path) -> None:
    story = Story(warm_driver, tmp_path, "processes", pause=0.005)
    assert crash_at(story, "task.dispatched", 3) == -signal.SIGKILL
    assert story.judge() == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("runner", "number"),
    [*(("threads", n) for n in range(6)), ("processes", 0), ("processes", 1), ("dask", 0)],
)
def test_random_moment(warm_driver: Warm, tmp_path: Path, runner: str, number: int) -> None:
    """Case A1."""
    assert tell_seed(SEED + number, runner, tmp_path, warm_driver) == []


@pytest.mark.timeout(180)
def test_random_moment_on_ray(warm_driver: Warm, tmp_path: Path) -> None:
    assert tell_seed(SEED, "ray", tmp_path, warm_driver) == []


@pytest.fixture(scope="module")
def half_done(warm_driver: Warm, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Give a flow run whose driver died half-way."""
    story = Story(warm_driver, tmp_path_factory.mktemp("half_done"), pause=0.005)
    assert story.wait(story.run("history.committed=kill@1")) == -signal.SIGKILL
    return story


def test_one_of_two_that_resume_wins(half_done: Story, tmp_path: Path) -> None:
    """Case K1."""
    for number in range(10):
        story = half_done.copy(tmp_path / str(number))
        assert resume_twice(story) == [0, 75], story.output()
        assert story.judge() == []


def test_checker_finds_out_mutations_of_a_resumed_history(half_done: Story, tmp_path: Path) -> None:
    story = half_done.copy(tmp_path / "case")
    story.finish()
    assert len(try_mutations(story.case(), seeds=3)) > 140


def test_flow_run_that_died_before_it_started_tells_all_its_states(
    half_done: Story, tmp_path: Path
) -> None:
    """The driver was killed while it started its task runner."""
    story = half_done.copy(tmp_path / "case")
    with closing(sqlite3.connect(story.path)) as connection, connection:
        connection.execute(
            "UPDATE flow_runs SET state = 'PENDING', started_at = NULL, attempt = 0"
            " WHERE parent_task_run_id IS NULL"
        )
        connection.execute("DELETE FROM flow_runs WHERE parent_task_run_id IS NOT NULL")
        for table in ("task_runs", "tasks", "counts", "logs"):
            connection.execute(f"DELETE FROM {table}")
    story.crashes.clear()
    story.note_crash()
    story.finish()
    assert story.judge() == []


def test_process_id_that_another_program_has_now_keeps_nobody_out(
    half_done: Story, tmp_path: Path
) -> None:
    """Case K3: this very process has the id of the driver, but not its start time."""
    story = half_done.copy(tmp_path / "case")
    pid, began_at = os.getpid(), process_started_at(os.getpid())
    assert began_at is not None
    for started_at, code in ((began_at, 75), (began_at + 1, 0)):
        with closing(sqlite3.connect(story.path)) as connection, connection:
            for table in ("flow_runs", "leases"):
                owner = f"UPDATE {table} SET pid = ?, pid_started_at = ?"
                connection.execute(owner, (pid, started_at))
        assert story.wait(story.resume()) == code, story.output()


@pytest.mark.timeout(120)
def test_frozen_driver_that_wakes_up_writes_nothing(warm_driver: Warm, tmp_path: Path) -> None:
    """Cases K2 and P6: while it is only stopped, it takes `--steal` and ten seconds of silence."""
    story = Story(warm_driver, tmp_path, seed=SEED, width=12, pause=0.02)
    frozen = freeze(story, random.Random(SEED))
    assert story.wait(story.resume()) == 75
    assert "--steal" in story.output()
    assert story.wait(story.resume("", "--steal")) == 0, story.output()
    before = History.read(story.path)
    woken_at = time.time_ns()
    os.kill(frozen, signal.SIGCONT)
    assert story.wait(frozen) == 75, story.output()
    assert History.read(story.path) == before
    case = story.case()
    # What it was in the middle of it could not leave.
    case.effects = [
        each for each in case.effects if (each.pid, each.at > woken_at) != (frozen, True)
    ]
    assert judge.verdict(case) == []


def test_what_was_stored_and_not_recorded_is_removed_by_gc(
    warm_driver: Warm, tmp_path: Path
) -> None:
    """Case A4."""
    story = Story(warm_driver, tmp_path, pause=0.05)
    assert crash_at(story, "result.stored", 1) == -signal.SIGKILL
    assert story.judge() == []
    stored = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(stored) == 2
    # What has shown life just now may still be recording.
    with closing(sqlite3.connect(story.path)) as connection, connection:
        connection.execute(
            "UPDATE leases SET beat_at = created_at FROM flow_runs WHERE id = flow_run_id"
        )
        connection.execute("UPDATE leases SET beat_at = beat_at - 60000000000")
    left = []
    for point, code in (("gc.mark=kill", -9), ("gc.delete=kill", -9), ("", 0)):
        assert story.wait(story.command(["gc"], point)) == code
        left.append(sum(path.exists() for path in stored))
    assert left == [2, 1, 1]
    with closing(sqlite3.connect(story.path)) as connection, connection:
        connection.execute("UPDATE leases SET beat_at = beat_at + 60000000000")
    assert story.judge() == []


def test_exit_of_the_flow_function_counts_as_a_crash(warm_driver: Warm, tmp_path: Path) -> None:
    """Case A17: `os._exit` is what the action `exit` does."""
    story = Story(warm_driver, tmp_path, pause=0.005)
    assert story.wait(story.run("event.completed_buffered=exit@9")) == 70
    story.note_crash()
    story.finish()
    assert story.judge() == []


@pytest.mark.parametrize("action", ["error:ENOSPC", "error:EIO", "raise:RuntimeError"])
def test_error_in_the_history_ends_the_flow_run(
    warm_driver: Warm, tmp_path: Path, action: str
) -> None:
    """What cannot be recorded is not reported as done; a resume makes up for it."""
    story = Story(warm_driver, tmp_path, pause=0.005)
    assert story.wait(story.run(f"history.before_commit={action}@2")) != 0
    story.note_crash()
    story.finish()
    assert story.judge() == []
