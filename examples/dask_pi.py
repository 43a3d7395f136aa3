"""Estimate pi on a temporary Dask cluster: many small task runs, a large value that stays there.

    python examples/dask_pi.py                  # worker processes on this machine
    python examples/dask_pi.py --threads        # a cluster of threads: starts at once
    python examples/dask_pi.py --address tcp://10.0.0.7:8786

Needs `pip install "penstock[dask]"`. Each task run throws darts at a square and counts those in
the circle. The darts of the last one are too large for a message (0.4 MB): their worker keeps
them for the task that draws them, and this process only ever sees the drawing.
"""

from __future__ import annotations

import argparse
import random

from penstock import flow, task, unmapped
from penstock.task_runners import DaskTaskRunner

SIDE = 30  # columns of the drawing
Darts = list[tuple[float, float]]


@task
def throw(seed: int, count: int) -> Darts:
    """Throw darts at the unit square."""
    dice = random.Random(seed)
    return [(dice.random(), dice.random()) for _ in range(count)]


@task
def count_inside(seed: int, count: int) -> int:
    """Throw darts and count those within the quarter of a circle."""
    dice = random.Random(seed)
    return sum(dice.random() ** 2 + dice.random() ** 2 <= 1 for _ in range(count))


@task
def draw(darts: Darts) -> str:
    """Draw where the darts fell: `o` in the circle, `.` outside."""
    rows = [[" "] * SIDE for _ in range(SIDE // 2)]
    for x, y in darts:
        rows[int(y * SIDE / 2)][int(x * SIDE)] = "o" if x * x + y * y <= 1 else "."
    return "\n".join("".join(row).rstrip() for row in reversed(rows))


@flow
def pi(throws: int = 500, darts: int = 2_000) -> tuple[float, str]:
    """Estimate pi from many throws of some darts each, and draw one more."""
    drawing = draw.submit(throw.submit(throws, 20_000))
    inside = count_inside.map(range(throws), unmapped(darts))
    share = sum(future.result() for future in inside) / (throws * darts)
    return 4 * share, drawing.result()


def runner_for(address: str | None, threads: bool) -> DaskTaskRunner:
    """Make the runner that the command line asks for."""
    if address is not None:
        return DaskTaskRunner(address=address)
    return DaskTaskRunner(cluster_kwargs={"n_workers": 2, "processes": not threads})


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate pi on a Dask cluster.")
    parser.add_argument("--throws", type=int, default=500, help="task runs")
    parser.add_argument("--threads", action="store_true", help="workers are threads")
    parser.add_argument("--address", help="a scheduler that runs already")
    options = parser.parse_args()
    runner = runner_for(options.address, options.threads)
    estimate, drawing = pi.with_options(task_runner=runner)(throws=options.throws)
    print(drawing)
    print(f"pi is about {estimate:.2f}")


# Worker processes load this file, too: only the driver may start the flow.
if __name__ == "__main__":
    main()
