"""The figures of `penstock bench`: what one flow run took, and what follows from several.

worker-time     wall time of the flow run, times the task runs that ran at once at most
overhead share  the share of it in which no task function ran: starting and stopping the
                runner, placing task runs, waiting for each other, and the flow's own code
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median_low
from typing import Any

from penstock.cli.text import duration

NEARLY = 1.1
"""Up to this factor slower, the simpler runner is recommended."""
_MOSTLY = 0.5
_SMALL_SECONDS = 0.005


@dataclass
class Trial:
    """One flow run on one runner.

    Attributes:
        state: type, name and message.
        wall_seconds: from the call of the flow to its end, the runner's start and stop included.
        task_seconds: the time of all task runs together.
        workers: how many task runs ran at once at most.
        counts: task runs by state.
    """

    state: dict[str, Any]
    wall_seconds: float
    flow_run_id: str | None = None
    task_seconds: float = 0.0
    workers: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def task_runs(self) -> int:
        """How many task runs there were."""
        return sum(self.counts.values())

    @property
    def is_completed(self) -> bool:
        """Whether the flow run completed."""
        return bool(self.state["type"] == "COMPLETED")

    @property
    def overhead_share(self) -> float | None:
        """The share of worker-time in which no task function ran; None without task runs."""
        worker_seconds = self.workers * self.wall_seconds
        return max(0.0, 1 - self.task_seconds / worker_seconds) if worker_seconds else None


@dataclass
class Figures:
    """The trials of one runner."""

    runner: str
    trials: list[Trial] = field(default_factory=list)

    @property
    def typical(self) -> Trial:
        """The trial that stands for all: one that did not complete, else that of median time."""
        failed = [trial for trial in self.trials if not trial.is_completed]
        walls = [trial.wall_seconds for trial in self.trials]
        chosen = median_low(walls)
        return failed[0] if failed else self.trials[walls.index(chosen)]

    def to_dict(self) -> dict[str, Any]:
        """Give the figures as JSON has them."""
        trial = self.typical
        return {
            "runner": self.runner,
            "state": trial.state,
            "wall_seconds": trial.wall_seconds,
            "wall_seconds_of_each": [each.wall_seconds for each in self.trials],
            "task_runs": trial.task_runs,
            "task_runs_per_second": trial.task_runs / trial.wall_seconds,
            "task_seconds": trial.task_seconds,
            "workers": trial.workers,
            "overhead_share": trial.overhead_share,
            "counts": trial.counts,
            "flow_run_ids": [each.flow_run_id for each in self.trials],
        }


def take_task_runs(trial: Trial, task_runs: Iterable[dict[str, Any]]) -> None:
    """Fill in what follows from the task runs of a flow run."""
    counts: Counter[str] = Counter()
    moments: list[tuple[datetime, int]] = []
    for run in task_runs:
        counts[run["state"]["type"]] += 1
        if run.get("duration") is None:
            continue
        trial.task_seconds += run["duration"]
        moments.append((_time(run["started_at"]), 1))
        moments.append((_time(run["ended_at"]), -1))
    trial.counts = dict(counts)
    running = 0
    # An end comes before a beginning at the same moment.
    for _, change in sorted(moments):
        running += change
        trial.workers = max(trial.workers, running)
    if moments:
        trial.workers = max(trial.workers, 1)


def _time(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def recommendation(compared: Sequence[Figures]) -> tuple[str | None, str]:
    """Say which runner to take, and why.

    Args:
        compared: the figures of each runner, the simplest runner first.
    """
    completed = [figures for figures in compared if figures.typical.is_completed]
    if not completed:
        return None, "the flow did not complete on any of these runners"
    if not any(figures.typical.task_runs for figures in completed):
        return None, "the flow has no task runs, so that its runner makes no difference"
    walls = {figures.runner: figures.typical.wall_seconds for figures in completed}
    best = min(walls.values())
    chosen = next(figures for figures in completed if walls[figures.runner] <= NEARLY * best)
    return chosen.runner, f"{_comparison(chosen.runner, walls)}{_advice(chosen.typical)}"


def _comparison(chosen: str, walls: dict[str, float]) -> str:
    """Compare the chosen runner with the next best, or with the one that it beats narrowly."""
    others = {runner: wall for runner, wall in walls.items() if runner != chosen}
    if not others:
        return f"it is the only one on which the flow completed, in {duration(walls[chosen])}"
    other = min(others, key=others.__getitem__)
    factor = others[other] / walls[chosen]
    if factor > NEARLY:
        return f"it is {factor:.1f} times as fast as {other}, the next best"
    if factor > 1:
        return f"it is as fast as {other} within 10%, and simpler"
    return f"{other} gains less than 10% on it, and is more to run"


def _advice(trial: Trial) -> str:
    """Say what stands out beyond the choice of a runner."""
    share = trial.overhead_share
    if share is None:
        return ""
    each = trial.task_seconds / trial.task_runs
    if share > _MOSTLY and each < _SMALL_SECONDS:
        return (
            f"; {share:.0%} of its worker-time is not spent in tasks, which take "
            f"{duration(each)} each: fewer, larger tasks would do better"
        )
    return ""
