"""Kill drivers at every step and at random moments, for as long as one likes: `make soak`.

    python -m tests.faults.soak                          everything
    python -m tests.faults.soak --seed 17 --runner dask  one random case again
    python -m tests.faults.soak points --runner threads  every failpoint, each time it is reached
    python -m tests.faults.soak races --number 200       two that resume at the same instant
    python -m tests.faults.soak loss --number 30         what a kill loses

The first problem ends it; the folder with the history, the ledger and the output stays.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.crashing import (
    DRIVER_POINTS,
    RESUME_POINTS,
    crash_at,
    crash_while_resuming,
    kill_at_random,
    resume_twice,
)
from tests.faults.drivers import RUNNERS, Story, Warm
from tests.faults.loss import loss_of_kills

KILLS = {"threads": 6, "sequential": 6, "processes": 2, "dask": 1, "ray": 1}
"""Drivers that are killed at most in one case."""
SHARES = {"threads": 100, "processes": 50, "sequential": 20, "dask": 20, "ray": 10}
"""Seeds of each runner among 200."""
_POINTS_ELSEWHERE = (*DRIVER_POINTS, "task.dispatched")
_MOST_TIMES = 400


def tell_seed(seed: int, runner: str, folder: Path, warm: Warm) -> list[str]:
    """Run one random case; gives what is wrong, and how to see it again."""
    dice = random.Random(f"{seed} {runner}")
    is_quick = runner in ("threads", "sequential")
    story = Story(warm, folder, runner, seed, width=dice.choice([4, 12, 40][: 2 + is_quick]))
    story.flow = dice.choice(["mix", "mix", "amix"])
    story.pause = dice.choice([0.0, 0.002, 0.01])
    try:
        kill_at_random(story, dice, KILLS[runner])
        problems = story.judge()
    except AssertionError as exc:
        problems = [f"broken off: {exc}"]
    again = f"again by: python -m tests.faults.soak --seed {seed} --runner {runner}"
    return [*problems, again] if problems else []


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("what", nargs="?", choices=[*_PARTS, "all"], default=None)
    parser.add_argument("--seed", type=int, help="one random case")
    parser.add_argument("--first", type=int, default=0, help="the first of the random cases")
    parser.add_argument("--number", type=int, default=200, help="how many cases")
    parser.add_argument("--runner", choices=list(RUNNERS), help="this runner only")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="penstock-soak-"))
    warm = Warm()
    try:
        if options.seed is not None:
            place = folder / "case"
            problems = tell_seed(options.seed, options.runner or "threads", place, warm)
            return _tell(problems, place)
        parts = list(_PARTS) if options.what in (None, "all") else [options.what]
        for part in parts:
            code = _PARTS[part](options, folder, warm)
            if code:
                return code
    finally:
        warm.close()
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _tell(problems: list[str], folder: Path) -> int:
    for problem in problems:
        print(f"  {problem}")
    if problems:
        print(f"See {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(problems)


def _random_cases(options: argparse.Namespace, folder: Path, warm: Warm) -> int:
    """Kill drivers at random moments, also those that resume."""
    runners = [options.runner] if options.runner else list(SHARES)
    total = sum(SHARES[runner] for runner in runners)
    for runner in runners:
        number = max(1, round(options.number * SHARES[runner] / total))
        began = time.monotonic()
        for seed in range(options.first, options.first + number):
            problems = tell_seed(seed, runner, folder / "case", warm)
            if problems:
                print(f"{runner}: seed {seed}", flush=True)
                return _tell(problems, folder / "case")
            shutil.rmtree(folder / "case")
            if runner in ("dask", "ray"):
                print(f"{runner}: seed {seed} is fine", flush=True)
        seconds = time.monotonic() - began
        print(f"{runner}: {number} random cases from seed {options.first}, {seconds:.0f} s")
        sys.stdout.flush()
    return 0


def _points(options: argparse.Namespace, folder: Path, warm: Warm) -> int:
    """Kill the driver at each failpoint, each time that it is reached."""
    for runner in [options.runner] if options.runner else ["threads", "sequential", "processes"]:
        names = DRIVER_POINTS if runner in ("threads", "sequential") else _POINTS_ELSEWHERE
        tries = [(name, crash_at) for name in names]
        for name, crash in [*tries, *((name, _crash_resumed) for name in RESUME_POINTS)]:
            times = 0
            while times < _MOST_TIMES:
                story = Story(warm, folder / "case", runner, seed=times, pause=0.005)
                # Elsewhere it is a worker that stores results, and dies of that.
                story.losses = int(name.startswith("result."))
                code = crash(story, name, times + 1)
                problems = story.judge()
                if problems:
                    print(f"{runner}: time {times + 1} at {name}", flush=True)
                    return _tell(problems, story.folder)
                shutil.rmtree(story.folder)
                if code == 0:
                    break
                times += 1
            print(f"{runner}: {name} was deadly {times} times", flush=True)
    return 0


def _crash_resumed(story: Story, name: str, nth: int) -> int:
    return crash_while_resuming(story, [f"{name}=kill@{nth}"])


def _races(options: argparse.Namespace, folder: Path, warm: Warm) -> int:
    """Resume one flow run by two drivers at the same instant."""
    story = Story(warm, folder / "half_done", pause=0.005)
    assert story.wait(story.run("history.committed=kill@1")) == -signal.SIGKILL, story.output()
    for number in range(options.number):
        race = story.copy(folder / "case")
        codes = resume_twice(race)
        problems = race.judge() if codes == [0, 75] else [f"they ended with {codes}"]
        if problems:
            print(f"race {number}")
            return _tell(problems, race.folder)
        shutil.rmtree(race.folder)
    print(f"{options.number} races: one won each time", flush=True)
    return 0


def _loss(options: argparse.Namespace, folder: Path, warm: Warm) -> int:
    """Measure how much a kill loses."""
    ages = loss_of_kills(warm, folder / "loss", min(options.number, 30))
    print(
        f"{len(ages)} kills: what was lost had ended up to {max(ages) * 1e3:.0f} ms before "
        f"(median {sorted(ages)[len(ages) // 2] * 1e3:.0f} ms)",
        flush=True,
    )
    return 0


_PARTS: dict[str, Callable[[argparse.Namespace, Path, Warm], int]] = {
    "random": _random_cases,
    "points": _points,
    "races": _races,
    "loss": _loss,
}

if __name__ == "__main__":
    sys.exit(main())
