"""The loss window: how long ago what a kill has lost had ended."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.faults.drivers import LIMIT, Story, Warm


def loss_of_kills(warm: Warm, folder: Path, number: int) -> list[float]:
    """Kill a driver at random moments while tasks finish steadily.

    Returns:
        For each kill, how many seconds before it the oldest task body had ended of which the
        history knows no end; 0 where nothing was lost.
    """
    return [_loss_of_kill(warm, folder / str(kill), random.Random(kill)) for kill in range(number)]


def _loss_of_kill(warm: Warm, folder: Path, dice: random.Random) -> float:
    story = Story(warm, folder, width=1000, pause=0.002)
    pid = story.run()
    ledger = folder / "ledger"
    give_up_at = time.monotonic() + LIMIT
    while not ledger.exists() and time.monotonic() < give_up_at:
        time.sleep(0.001)
    time.sleep(0.2 + dice.random())
    killed_at = time.time_ns()
    os.kill(pid, signal.SIGKILL)
    assert story.wait(pid) == -signal.SIGKILL, story.output()
    rows = story.crashes[-1].history.task_runs
    lost = [
        effect.at
        for effect in story.case().effects
        if effect.kind == "end"
        and effect.at <= killed_at
        and rows.get(effect.task_run_id, {}).get("state") != "COMPLETED"
    ]
    return (killed_at - min(lost)) / 1e9 if lost else 0.0
