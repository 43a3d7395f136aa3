"""What is timed of resuming: each probe runs in a process of its own, as `bench.results` does.

    python -m bench.resumes done 100000 3
    python -m bench.resumes identities 10000 5

`done`: a flow run is killed when nine tenths of its task runs have ended, and continued; timed are
its calls of tasks that had ended, beside calls of the plain function. `identities`: direct calls
with and without what it takes to continue a flow run: digests of inputs, and results.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from time import perf_counter
from typing import Any
from unittest.mock import patch

import penstock
from bench.work import MICRO, Figures, plain, timed
from penstock import flow, task
from penstock.runtime import task_runs
from penstock.task_runners import SequentialTaskRunner

noop = task(plain)
SECONDS = 280.0


@flow(task_runner=SequentialTaskRunner())
def loop(count: int, dies_at: int | None) -> dict[str, Any]:
    """Call a task many times; end the process on the way, or time the calls up to there."""
    stop = count * 9 // 10
    began = perf_counter()
    for number in range(stop):
        noop(number)
    seconds = perf_counter() - began
    if dies_at is not None and os.getpid() == dies_at:
        os._exit(9)
    for number in range(stop, count):
        noop(number)
    return {"seconds": seconds, "done": stop}


def done(count: int, rounds: int) -> Figures:
    """Time calls of task runs that had ended when the driver was killed."""
    figures, again = Figures(), []
    stop = count * 9 // 10
    for _ in range(rounds):
        command = [sys.executable, "-m", "bench.resumes", "die", str(count), "1"]
        died = subprocess.run(command, timeout=SECONDS, check=False)
        assert died.returncode == 9, died
        again.append(stop - penstock.run("@last").counts.get("COMPLETED", 0))
        figures.baseline.append(timed(lambda: [plain(number) for number in range(stop)]) / stop)
        told = loop.resume("@last")
        figures.ours.append(told["seconds"] / told["done"])
    figures.baseline = [MICRO * each for each in figures.baseline]
    figures.ours = [MICRO * each for each in figures.ours]
    figures.notes = f"of {stop:,} that had ended {max(again):,} were not recorded and ran again"
    return figures


def identities(count: int, rounds: int) -> Figures:
    """Time direct calls with and without identities and kept results, in turns."""

    @flow
    def direct() -> None:
        for number in range(count):
            noop(number)

    figures = Figures()
    timed(direct)
    for _ in range(rounds):
        with (
            patch.object(task_runs, "_identity", lambda *_: None),
            patch.object(task_runs, "held_of", lambda _: (None, None)),
        ):
            bare = timed(direct)
        whole = timed(direct)
        figures.baseline.append(MICRO * bare / count)
        figures.ours.append(MICRO * (whole - bare) / count)
    return figures


def main() -> None:
    """Run one probe and print its figures as JSON."""
    name, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if name == "die":
        loop(count, os.getpid())
    else:
        print(json.dumps(vars({"done": done, "identities": identities}[name](count, rounds))))


if __name__ == "__main__":
    main()
