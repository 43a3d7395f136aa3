"""What is timed of kept results: each probe runs in a process of its own, as `bench.dask` does.

    python -m bench.results bytes 1000 3

Every round writes the same values to files of their own, plainly, and then has a flow run persist
them as results of its tasks, into a local folder as well. `memory` has a worker process persist a
large result, and looks at how much the process that runs the flow has grown.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.work import MEGA, MILLI, Figures, timed
from penstock import flow, task
from penstock.task_runners import ProcessPoolTaskRunner

DIFFERENT = 16  # values that take turns, so that they fit into memory


def _written(values: list[Any], count: int, write: Callable[[Any, Any], Any]) -> float:
    """Write values to files, one after another; give the seconds."""
    with tempfile.TemporaryDirectory(dir=os.environ["PENSTOCK_HOME"]) as folder:

        def work() -> None:
            for number in range(count):
                with open(f"{folder}/{number}", "wb") as file:
                    write(values[number % DIFFERENT], file)

        return timed(work)


def _persisted(values: list[Any], count: int) -> float:
    """Have a flow run persist values; give the seconds, the flow run's start and end included."""

    @task
    def give(number: int) -> Any:
        return values[number % DIFFERENT]

    with tempfile.TemporaryDirectory(dir=os.environ["PENSTOCK_HOME"]) as folder:

        @flow(persist_result=True, result_storage=folder)
        def persist() -> None:
            give.map(range(count))

        seconds = timed(persist)
        stored = sum(path.is_file() for path in Path(folder).rglob("*"))
        assert stored == count, (stored, count)
        return seconds


def _compared(
    make: Callable[[int], Any], write: Callable[[Any, Any], Any], count: int, rounds: int
) -> Figures:
    """Compare in multiples of the plain time."""
    values = [make(number) for number in range(DIFFERENT)]
    figures = Figures([1.0])
    plain, ours = [], []
    _persisted(values, DIFFERENT)
    for _ in range(rounds):
        plain.append(_written(values, count, write))
        ours.append(_persisted(values, count))
        figures.ours.append(ours[-1] / plain[-1])
    digest = timed(lambda: [hashlib.sha256(value).digest() for value in values]) / DIFFERENT
    figures.notes = (
        f"plain {min(plain) / count * MILLI:.2f} ms, ours {min(ours) / count * MILLI:.2f} ms at "
        f"best; the SHA-256 alone takes {digest * MILLI:.2f} ms"
    )
    return figures


def as_bytes(count: int, rounds: int) -> Figures:
    """Persist results of 1 MB of bytes, beside `pickle.dump`."""
    return _compared(
        lambda number: os.urandom(MEGA),
        lambda value, file: pickle.dump(value, file, 5),
        count,
        rounds,
    )


def as_arrays(count: int, rounds: int) -> Figures:
    """Persist results of 125,000 float64, beside `numpy.save`."""
    import numpy as np

    return _compared(
        lambda number: np.random.default_rng(number).random(MEGA // 8),
        lambda value, file: np.save(file, value),
        count,
        rounds,
    )


@task(persist_result=True)
def block_of(size: int) -> Any:
    """Make an array of so many bytes."""
    import numpy as np

    return np.ones(size, dtype="u1")


@task
def ends(block: Any) -> int:
    """Look at a large argument."""
    return int(block[0]) + int(block[-1])


def memory(count: int, rounds: int) -> Figures:
    """Persist a result of `count` MB on a worker, and use it on one: MB that the driver grows."""
    figures = Figures([0.0])
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=os.environ["PENSTOCK_HOME"]) as folder:

            @flow(task_runner=ProcessPoolTaskRunner(max_workers=1), result_storage=folder)
            def persist() -> float:
                block_of.submit(MEGA).result()
                _forget_peak()
                before = _peak()
                block = block_of.submit(count * MEGA)
                assert ends.submit(block).result() == 2
                return (_peak() - before) / MEGA

            figures.ours.append(persist())
    return figures


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Give the most memory that this process has had since, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


PROBES: dict[str, Callable[[int, int], Figures]] = {
    "bytes": as_bytes,
    "arrays": as_arrays,
    "memory": memory,
}


if __name__ == "__main__":
    measured = PROBES[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(vars(measured)))
