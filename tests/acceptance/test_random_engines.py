"""Random graphs of tasks, each on an engine of its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import allow_failure, flow, task
from tests.acceptance.test_mixing_engines import RUNNERS

pytestmark = pytest.mark.timeout(120)

NODES = st.lists(
    st.tuples(
        st.sampled_from([name for name in RUNNERS if name not in ("dask", "processes", "ray")]),
        st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=3),
        st.sampled_from(["value", "value", "value", "large", "fails"]),
    ),
    min_size=1,
    max_size=12,
)


@task
def node(number: int, kind: str, given: list[Any]) -> Any:
    if kind == "fails":
        raise LookupError(str(number))
    total = number + sum(-1 if isinstance(each, Exception) else int(each[0]) for each in given)
    return (total, b"." * (400_000 if kind == "large" else 10))


def expected(nodes: list[Any]) -> list[Any]:
    values: list[Any] = []
    for number, (_, parents, kind) in enumerate(nodes):
        given = [(values[parent % number], allowed) for parent, allowed in parents if number]
        if any(isinstance(value, str) and not allowed for value, allowed in given):
            values.append("NotReady")
        elif kind == "fails":
            values.append("Failed")
        else:
            values.append(number + sum(-1 if isinstance(v, str) else v for v, _ in given))
    return values


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(NODES)
def test_random_graphs_over_engines(nodes: list[Any]) -> None:
    @flow
    def example() -> Any:
        futures: list[Any] = []
        for number, (name, parents, kind) in enumerate(nodes):
            runner = RUNNERS[name]("")
            chosen = [(futures[parent % number], allowed) for parent, allowed in parents if number]
            arguments = [allow_failure(each) if allowed else each for each, allowed in chosen]
            futures.append(node.with_options(task_runner=runner).submit(number, kind, arguments))
        states = [future.wait(30) for future in futures]
        return {
            "found": [state.result()[0] if state.is_completed() else state.name for state in states]
        }

    assert example()["found"] == expected(nodes)
