"""Resources: what tasks ask for, against what Dask's workers declare.

@task(resources={"gpu": 1})        names without regard to case, memory in bytes
            │
            ▼  spelled as the workers spell them
dask worker --resources "GPU=2"    a worker that declares nothing of a name never gets it
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dask.system import CPU_COUNT
from dask.utils import format_bytes
from distributed.system import MEMORY_LIMIT
from distributed.worker_memory import parse_memory_limit

from penstock.errors import ResourceError

Resources = Mapping[str, float]
logger = logging.getLogger("distributed.worker.memory")


def declare(cluster: Any) -> None:
    """Have the workers of a LocalCluster declare their threads as cpu, and their memory limit."""
    for worker in (cluster.new_spec, *cluster.worker_spec.values()):
        options = worker["options"]
        threads = options.get("nthreads") or CPU_COUNT
        options["resources"] = {"cpu": threads, "memory": _memory(options, threads)}


def _memory(options: Mapping[str, Any], threads: int) -> int:
    given = options.get("memory_limit", "auto")
    limit = parse_memory_limit(given, threads, logger=logger)
    return limit or MEMORY_LIMIT


def check(runner: Any, engine: Any, task_name: str, request: Resources) -> None:
    """Refuse a request that no worker can meet; where workers may still come, say so and let it be.

    Raises:
        ResourceError: no worker of the cluster declares as much.
    """
    # The last word of the relay may be on its way: only the scheduler itself is believed.
    if spelled(request, engine.declared) or spelled(request, declared := engine.look_up_declared()):
        return
    is_ours = runner.cluster is None and runner.address is None
    if declared and not _may_grow(runner):
        raise refusal(task_name, request, declared, is_ours)
    if engine.is_first_to_wait((task_name, *request.items())):
        runner.logger.warning("%s", waiting(task_name, request, declared))


def _may_grow(runner: Any) -> bool:
    return bool(runner.adapt_kwargs) or getattr(runner.cluster, "_adaptive", None) is not None


def spelled(request: Resources, declared: Iterable[Resources]) -> dict[str, float] | None:
    """Give a request with its names spelled as workers do that can meet it; None: none can."""
    spellings: Counter[tuple[str, ...]] = Counter()
    for held in declared:
        names = {name.casefold(): name for name in held}
        there = tuple(names.get(name.casefold(), "") for name in request)
        if all(
            held.get(name, 0) >= request[each] for each, name in zip(request, there, strict=True)
        ):
            spellings[there] += 1
    if not spellings:
        return None
    return dict(zip(spellings.most_common(1)[0][0], request.values(), strict=True))


def merged(first: Resources, last: Resources) -> dict[str, float]:
    """Put two requests together; where both name the same, the last one counts."""
    names = {name.casefold() for name in last}
    return {**{name: first[name] for name in first if name.casefold() not in names}, **last}


def refusal(
    task_name: str, request: Resources, declared: list[Resources], is_ours: bool
) -> ResourceError:
    """Make the error for a request that no worker can meet."""
    remedy = (
        f'Let the cluster declare more: cluster_kwargs={{"resources": {dict(request)}}}'
        if is_ours
        else f"Start workers that do: {command(request)}"
    )
    return ResourceError(
        f"Task {task_name!r} asks for {_said(request)}, and no Dask worker declares as much; "
        f"the workers declare {_listed(declared)}. {remedy}"
    )


def waiting(task_name: str, request: Resources, declared: list[Resources]) -> str:
    """Say that a task waits for a worker that is not there yet."""
    return (
        f"Task {task_name!r} waits for a Dask worker that declares {_said(request)}; "
        f"now the workers declare {_listed(declared)}. It runs once there is one: "
        f"{command(request)}"
    )


def command(request: Resources) -> str:
    """Give the command that starts a worker with what is asked for."""
    listed = " ".join(f"{name}={amount:g}" for name, amount in request.items())
    return f'dask worker --resources "{listed}"'


def _listed(declared: list[Resources]) -> str:
    said = dict.fromkeys(_said(held) for held in declared if held)
    return "; ".join(said) or "nothing"


def _said(resources: Resources) -> str:
    return ", ".join(
        f"{name}={format_bytes(int(amount)) if name.casefold() == 'memory' else f'{amount:g}'}"
        for name, amount in resources.items()
    )
