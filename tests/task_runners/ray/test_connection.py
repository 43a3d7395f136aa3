"""Connecting to Ray that goes wrong: what is tried again, and what is left in the process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray._private import client_mode_hook

from penstock import flow, task
from penstock.errors import EngineError
from penstock.task_runners import RayTaskRunner
from penstock.task_runners.ray import connection
from tests.task_runners.ray.driving import no_ray_left

LOGGER = logging.getLogger("penstock.tests")
NOT_STARTED = "Initialization failure from server: Starting Ray client server failed."


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with no_ray_left():
        yield


@task
def one() -> int:
    return 1


class Attempts:
    """What Ray's initialisation does, one after the other: an error, or a context to give."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)

    def __call__(self, kwargs: dict[str, Any]) -> Any:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.mark.parametrize("failures", [1, 2])
def test_a_server_that_did_not_start_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failures: int
) -> None:
    attempts = Attempts(*[ConnectionAbortedError(NOT_STARTED)] * failures, "context")
    monkeypatch.setattr(connection, "_init", attempts)
    assert connection._init_patiently({}, LOGGER) == "context"
    assert caplog.text.count("once more") == failures


@pytest.mark.parametrize(
    "problems",
    [[NOT_STARTED] * 3, ["Initialization failure from server: no such runtime_env"]],
    ids=["too often", "for another reason"],
)
def test_what_does_not_help_ends(monkeypatch: pytest.MonkeyPatch, problems: list[str]) -> None:
    attempts = Attempts(*map(ConnectionAbortedError, problems))
    monkeypatch.setattr(connection, "_init", attempts)
    with pytest.raises(ConnectionAbortedError, match=problems[-1]):
        connection._init_patiently({}, LOGGER)
    assert not attempts.outcomes


def test_a_client_that_cannot_connect_leaves_no_client_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_check_answer", lambda address: None)

    # Ray fails on these only once it has turned to its client.
    @flow(task_runner=RayTaskRunner(address="ray://127.0.0.1:1", init_kwargs={"_credentials": 1}))
    def example() -> int:
        return one.submit().result()

    with pytest.raises(EngineError, match="'ray://127.0.0.1:1' failed: AttributeError"):
        example()
    assert not client_mode_hook.is_client_mode_enabled
    assert not ray.is_initialized()
