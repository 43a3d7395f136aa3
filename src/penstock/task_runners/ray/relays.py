"""Find or start the relay that a flow run uses.

A process keeps the one it has started, for as long as that lives; a task uses that of its driver.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from penstock.task_runners.ray.connection import is_client
from penstock.task_runners.ray.relay import Relay
from penstock.task_runners.ray.worker import relay_here

_HEAD = "node:__internal_head__"
_ANSWER_SECONDS = 2.0
_lock = threading.Lock()
_known: dict[str, Any] = {}


def open_relay(driver: str, nodes: list[dict[str, Any]]) -> Any:
    """Give a relay that knows a driver; a new one is not waited for.

    Args:
        nodes: what Ray knows of its nodes.
    """
    session = _session()
    with _lock:
        for relay in (_known.get(session), relay_here()):
            if relay is not None and _answers(relay, driver):
                return relay
        relay = _start(driver, nodes)
        _known.clear()
        if session:
            _known[session] = relay
        return relay


def close_relay(relay: Any, driver: str) -> None:
    """Tell a relay that a driver leaves; end one that nobody can find again."""
    relay.close.remote(driver)
    if not _session():
        with suppress(Exception):
            ray.kill(relay)


def _start(driver: str, nodes: list[dict[str, Any]]) -> Any:
    # A node may go; the head goes with everything.
    heads = [node["NodeID"] for node in nodes if _HEAD in node["Resources"]]
    where: Any = NodeAffinitySchedulingStrategy(heads[0], soft=False) if heads else "DEFAULT"
    options: dict[str, Any] = {
        # Not counted by Ray: a reference that is left of an earlier Ray in this process, where an
        # actor had the same id, would take this one along. It ends by itself.
        "name": f"penstock-relay-{uuid4().hex}",
        "lifetime": "detached",
        "num_cpus": 0,
        "max_restarts": 0,
        "max_concurrency": 1_000_000,
        "scheduling_strategy": where,
    }
    actor: Any = ray.remote(Relay)
    return actor.options(**options).remote(driver)


def _answers(relay: Any, driver: str) -> bool:
    try:
        ray.get(relay.open.remote(driver), timeout=_ANSWER_SECONDS)
    except (RayActorError, GetTimeoutError):
        return False
    return True


def _session() -> str:
    """Say which Ray this process is in; empty where that cannot be told."""
    if is_client():
        return ""
    context = ray.get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"
