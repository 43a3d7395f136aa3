"""`penstock bench`: its figures with plain values, and the command in a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.figures import Figures, Trial, recommendation, take_task_runs
from penstock.cli.runners import RUNNERS, Choice
from tests.cli.histories import penstock

FLOW = """
from penstock import flow, task

@task
def double(n):
    return 2 * n

@flow
def main(n: int = 5, wrong: bool = False):
    print("this is no figure")
    if wrong:
        double.submit("a").result()
        raise ValueError("this flow never works")
    return double.map(range(n))
"""
COMPLETED = {"type": "COMPLETED", "name": "Completed", "message": None}
FAILED = {"type": "FAILED", "name": "Failed", "message": "wrong"}


@pytest.fixture
def file(tmp_path: Path) -> str:
    file = tmp_path / "doubling.py"
    file.write_text(FLOW)
    return str(file)


def task_run(started: float, ended: float, state: str = "COMPLETED") -> dict[str, Any]:
    def at(second: float) -> str:
        return f"2026-01-01T00:00:{second:09.6f}+00:00"

    return {
        "state": {"type": state},
        "duration": ended - started,
        "started_at": at(started),
        "ended_at": at(ended),
    }


def test_what_follows_from_task_runs() -> None:
    trial = Trial(COMPLETED, wall_seconds=4.0)
    runs = [task_run(0, 2), task_run(1, 3), task_run(2, 4), task_run(3, 4, "FAILED")]
    take_task_runs(trial, [*runs, {"state": {"type": "PENDING"}, "duration": None}])
    assert trial.counts == {"COMPLETED": 3, "FAILED": 1, "PENDING": 1}
    assert (trial.task_seconds, trial.workers, trial.task_runs) == (7, 2, 5)
    assert trial.overhead_share == 1 - 7 / 8


def test_no_task_runs_have_no_overhead() -> None:
    trial = Trial(COMPLETED, wall_seconds=4.0)
    take_task_runs(trial, [])
    assert trial.overhead_share is None


def figures(runner: str, *walls: float, state: Any = COMPLETED, each: float = 1.0) -> Figures:
    trials = [Trial(state, wall, None, 10 * each, 2, {"COMPLETED": 10}) for wall in walls]
    return Figures(runner, trials)


@pytest.mark.parametrize(
    ("compared", "runner", "reason"),
    [
        ([figures("a", 9, 3, 5), figures("b", 20)], "a", "it is 4.0 times as fast as b"),
        ([figures("a", 10), figures("b", 9.5)], "a", "b gains less than 10% on it"),
        ([figures("a", 10), figures("b", 10.5)], "a", "as fast as b within 10%, and simpler"),
        ([figures("a", 1, state=FAILED), figures("b", 8)], "b", "it is the only one"),
        ([figures("a", 1, state=FAILED)], None, "did not complete on any of these"),
        ([figures("a", 1, each=0.001)], "a", "which take 1.0 ms each: fewer, larger tasks"),
    ],
)
def test_recommendation(compared: list[Figures], runner: str | None, reason: str) -> None:
    found, said = recommendation(compared)
    assert found == runner
    assert reason in said


def test_without_task_runs_no_runner_is_recommended() -> None:
    # Whichever was faster, it was so by chance.
    compared = [Figures("a", [Trial(COMPLETED, 2.0)]), Figures("b", [Trial(COMPLETED, 1.0)])]
    runner, reason = recommendation(compared)
    assert runner is None
    assert reason == "the flow has no task runs, so that its runner makes no difference"


def test_the_median_stands_for_all_unless_one_failed() -> None:
    assert figures("a", 5, 1, 3).typical.wall_seconds == 3
    several = figures("a", 5, 1)
    several.trials.append(Trial(FAILED, 2.0))
    assert several.to_dict()["state"] == FAILED


def test_table_and_recommendation(file: str) -> None:
    done = penstock("bench", file, "--runner", "concurrent", "--runner", "sequential")
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == "RUNNER"
    assert [line.split()[0] for line in lines[1:3]] == ["sequential", "concurrent"]
    assert all("5" in line.split() and line.endswith("completed") for line in lines[1:3])
    assert lines[-1].startswith("Recommended: ")
    assert "this is no figure" not in done.stdout
    assert "this is no figure" in done.stderr
    assert "concurrent 3/3" in done.stderr
    listed = json.loads(penstock("ls", "--json").stdout)["flow_runs"]
    assert len(listed) == 6


def test_json(file: str) -> None:
    done = penstock("bench", file, "-p", "n=3", "--runner", "sequential", "--repeat", "2", "--json")
    told = json.loads(done.stdout)
    (one,) = told["runners"]
    assert (told["flow"], one["runner"], one["task_runs"]) == ("main", "sequential", 3)
    assert one["counts"] == {"COMPLETED": 3}
    assert len(one["wall_seconds_of_each"]) == len(one["flow_run_ids"]) == 2
    assert one["wall_seconds"] == min(one["wall_seconds_of_each"])
    assert one["workers"] == 1
    assert 0 <= one["overhead_share"] <= 1
    assert told["recommendation"]["runner"] == "sequential"


def test_a_flow_that_fails_says_so_in_its_row(file: str) -> None:
    done = penstock("bench", file, "-p", "wrong=true", "--runner", "sequential", check=1)
    row = done.stdout.splitlines()[1]
    assert "failed: Flow run encountered an exception. ValueError: this flow never works" in row
    assert done.stdout.splitlines()[-1] == (
        "Recommended: none, because the flow did not complete on any of these runners."
    )
    assert "sequential 2/3" not in done.stderr


def test_what_cannot_be_compared_is_said_first(file: str) -> None:
    done = penstock("bench", file, "--runner", "sequential", "--runner", "carrier", check=2)
    assert "There is no runner 'carrier'" in done.stderr
    env = {**os.environ, "PENSTOCK_RECORD": "off"}
    done = penstock("bench", file, check=2, env=env)
    assert "recording is off" in done.stderr


def test_runners_that_are_not_installed_are_left_out_by_default() -> None:
    assert not Choice("nowhere", "NoTaskRunner", requires="no_such_package").is_installed
    assert all(choice.is_installed for choice in RUNNERS.values())
