"""Upstreams of a task run: which there are, whether they let it through, and their values."""

from __future__ import annotations

from collections.abc import Iterable
from time import time_ns
from typing import Any

from penstock.annotations import Dependency
from penstock.core.inputs import Found, find
from penstock.core.outcomes import not_ready
from penstock.runs import TaskRun
from penstock.states import State, StateType

Upstreams = dict[Dependency, bool]
"""Each future or state once; True where it may have failed."""


def awaited_in(wait_for: Any) -> Found | None:
    """Find the futures and states that a call is to wait for; a generator is read only once."""
    return None if wait_for is None else find((wait_for,))


def merged(found: Found | None, awaited: Found | None) -> Upstreams:
    """Give the upstreams in arguments and in `wait_for`; failures must be allowed in both."""
    upstreams = {} if found is None else dict(found.dependencies)
    if awaited is not None:
        for dependency, allowed in awaited.dependencies.items():
            upstreams[dependency] = upstreams.get(dependency, True) and allowed
    return upstreams


def run_of(dependency: Dependency) -> TaskRun | None:
    """Give the task run behind a future; None for a state."""
    return getattr(dependency, "_run", None)


def keys_of(found: Found) -> bytes:
    """Give the ids of the runs behind dependencies, one after another."""
    return b"".join([_key_of(dependency) for dependency in found.dependencies])


def _key_of(dependency: Dependency) -> bytes:
    run = run_of(dependency)
    return run.key if run is not None else (dependency.run_key or b"")  # type: ignore[attr-defined]


def state_of(dependency: Dependency) -> State:
    """Give the state of a dependency that has settled."""
    run = run_of(dependency)
    return dependency if run is None else run.outcome  # type: ignore[return-value]


def refusal(upstreams: Upstreams, key: bytes) -> State | None:
    """Give the NotReady state of a run if an upstream did not complete, once all have settled."""
    refused = None
    for dependency, allowed in upstreams.items():
        state = state_of(dependency)
        if state.type is StateType.COMPLETED:
            continue
        if allowed:
            _look_at(dependency)
        elif refused is None:
            refused = not_ready(state, state.run_id, time_ns(), key)
    return refused


def value_of(dependency: Dependency, allowed: bool) -> Any:
    """Give the value that stands for a dependency in the arguments, once it has settled."""
    return state_of(dependency).result(raise_on_failure=not allowed)


async def bring(dependencies: Iterable[Dependency]) -> None:
    """Bring values of settled runs that are on another machine, without blocking the loop."""
    far = [state for state in map(state_of, dependencies) if not state.is_at_hand]
    if far:
        import asyncio

        # What goes wrong is raised by whoever asks for the value.
        arrivals = [asyncio.to_thread(getattr, state, "data") for state in far]
        await asyncio.gather(*arrivals, return_exceptions=True)


def _look_at(dependency: Dependency) -> None:
    """Note that a failure reached somebody who allows it."""
    run = run_of(dependency)
    if run is not None:
        run.look_at()
