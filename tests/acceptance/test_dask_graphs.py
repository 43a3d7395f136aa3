"""Random graphs of small task runs on Dask give what plain Python gives.

What travels together, what waits in the driver, what fails and is tried again differs from run to
run; the values and the states must not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import allow_failure, flow, task
from penstock.task_runners import DaskTaskRunner
from penstock.testing.ledger import Ledger
from tests.task_runners.dask.external import external_cluster

NODES = 120


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Give the address of a scheduler with two single-threaded workers."""
    with external_cluster(workers=2) as cluster:
        yield cluster.address


@task
def combine(ledger: Ledger, node: int, fails: int, values: list[Any], large: bool) -> Any:
    """Sum up values; the first attempts fail."""
    ledger.add(str(node))
    if ledger.lines().count(str(node)) <= fails:
        raise ValueError(f"node {node}")
    total = node + sum(
        -1 if isinstance(value, Exception) else value[0] if isinstance(value, list) else value
        for value in values
    )
    return [total] * 20_000 if large else total


class Graph:
    """A random graph: node n depends on some nodes before it."""

    def __init__(self, seed: int) -> None:
        random_ = random.Random(seed)
        self.parents: list[list[tuple[int, bool]]] = []
        self.fails: list[int] = []
        self.retries: list[int] = []
        self.large: list[bool] = []
        for node in range(NODES):
            known = range(max(0, node - random_.choice([2, 10, 60])), node)
            some = random_.sample(known, min(len(known), random_.choice([0, 1, 1, 1, 2, 3])))
            self.parents.append([(parent, random_.random() < 0.4) for parent in some])
            self.fails.append(random_.choice([0] * 12 + [1, 2]))
            self.retries.append(random_.choice([0, 1, 1, 2]))
            self.large.append(random_.random() < 0.05)

    def expected(self) -> list[Any]:
        """Give the value of each node; "failed" or "not ready" for those without one."""
        values: list[Any] = []
        for node, parents in enumerate(self.parents):
            if any(isinstance(values[parent], str) and not allowed for parent, allowed in parents):
                values.append("not ready")
            elif self.fails[node] > self.retries[node]:
                values.append("failed")
            else:
                given = [values[parent] for parent, _ in parents]
                values.append(node + sum(-1 if isinstance(v, str) else v for v in given))
        return values


@pytest.mark.parametrize("seed", range(6))
def test_random_graph(address: str, tmp_path: Path, seed: int) -> None:
    graph, ledger = Graph(seed), Ledger(tmp_path / "ledger")

    @flow(task_runner=DaskTaskRunner(address=address))
    def example() -> list[Any]:
        futures: list[Any] = []
        for node, parents in enumerate(graph.parents):
            given = [
                allow_failure(futures[parent]) if allowed else futures[parent]
                for parent, allowed in parents
            ]
            one = combine.with_options(retries=graph.retries[node])
            futures.append(one.submit(ledger, node, graph.fails[node], given, graph.large[node]))
        found: list[Any] = []
        for future in futures:
            state = future.wait()
            if state.is_completed():
                value = state.result()
                found.append(value[0] if isinstance(value, list) else value)
            else:
                found.append("failed" if state.is_failed() else "not ready")
        return found

    assert example() == graph.expected()
    calls = [int(line) for line in ledger.lines()]
    for node, value in enumerate(graph.expected()):
        wanted = 0 if value == "not ready" else min(graph.fails[node], graph.retries[node]) + 1
        assert calls.count(node) == wanted, f"node {node} ran {calls.count(node)} times"
