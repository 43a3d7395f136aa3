"""What caching costs: runs that take a value, and runs that find none, beside uncached ones.

python -m bench.cached hit-direct 2000
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial

from bench.probes import Figures, call_each, per_task, plain, submit_each
from bench.rows import Rounds, Row, Size, run_probe
from penstock import flow, task
from penstock.tasks import task_input_hash

hit = task(name="hit", cache_key_fn=lambda context, parameters: "one")(plain)
hashed = task(name="hashed", cache_key_fn=task_input_hash)(plain)
missed = task(name="missed", cache_key_fn=task_input_hash, refresh_cache=False)(plain)


@flow
def call_cached(count: int) -> None:
    """Call a task whose value is there."""
    for number in range(count):
        hit(number)


@flow
def call_hashed(count: int) -> None:
    """Call a task whose value is there, with a key made of its inputs."""
    for _ in range(count):
        hashed(1)


@flow
def submit_cached(count: int) -> None:
    """Submit a task whose value is there, then ask for every result."""
    futures = [hit.submit(number) for number in range(count)]
    for future in futures:
        future.result()


class Missing:
    """Calls a task whose values are not there, always others."""

    def __init__(self) -> None:
        self.first = 0

    def __call__(self, count: int) -> None:
        @flow
        def call_missed() -> None:
            for number in range(self.first, self.first + count):
                missed(number)

        call_missed()
        self.first += count


def beside(baseline: Callable[[int], object], ours: Callable[[int], object], count: int) -> Figures:
    """Time a flow beside the same one without caching."""
    return {"baseline": per_task(baseline, count), "ours": per_task(ours, count)}


PROBES: dict[str, Callable[[int], Figures]] = {
    "hit-direct": partial(beside, call_each, call_cached),
    "hashed-direct": partial(beside, call_each, call_hashed),
    "hit-submit": partial(beside, submit_each, submit_cached),
    "miss-direct": partial(beside, call_each, Missing()),
}


def measured(probe: str, most: int, size: Size) -> Rounds:
    """Measure a probe of this module, every round in a fresh process."""
    count = min(size.tasks, most)
    rounds = [run_probe(probe, count, module="bench.cached") for _ in range(size.rounds)]
    return Rounds([one["baseline"] for one in rounds], [one["ours"] for one in rounds])


def _row(probe: str, what: str, most: int = 10_000) -> Row:
    return Row(f"cache-{probe}", what, "uncached", "µs", None, partial(measured, probe, most))


CACHE_ROWS = [
    _row("hit-direct", "direct call of a no-op task whose value is there"),
    _row("hashed-direct", "the same with task_input_hash"),
    _row("hit-submit", "submit + result of a no-op task whose value is there"),
    _row("miss-direct", "direct call of a no-op task whose value is not there", 1_000),
]


if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](int(sys.argv[2]))))
