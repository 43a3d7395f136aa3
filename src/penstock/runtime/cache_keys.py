"""The cache key functions that come with Penstock."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from penstock.core.identity import large_digest
from penstock.runtime.context import RunContext

logger = logging.getLogger("penstock.caching")
_warned: set[tuple[str, str]] = set()
_MOST_WARNED = 10_000


def task_input_hash(context: RunContext, parameters: Mapping[str, Any]) -> str | None:
    """Give a cache key that is the same for equal inputs of one task.

    What a method is bound to and what a partial holds are inputs, too. Values count as they do
    for the identity of a task run, see `docs/caching.md`, but up to 4 GiB.

    Args:
        context: the run, as `get_run_context()` gives it.
        parameters: the values of all its parameters by name, defaults included.

    Returns:
        32 hexadecimal digits; None where an input cannot be identified: then the run is not
        cached, and one warning per task and argument says so.

    Example:
        >>> from penstock import task
        >>> from penstock.tasks import task_input_hash
        >>> @task(cache_key_fn=task_input_hash, cache_expiration=3600)
        ... def load(day): ...
    """
    task = context.task
    given = chain.from_iterable(parameters.items())
    # Flat, as that is encoded fastest; what is held is always equally much for one task.
    digest = large_digest((task.key, *task.held, *given))
    if digest is None:
        _warn(task, ", ".join(_unidentified(task, parameters)) or "its inputs together")
        return None
    return digest.hex()


def task_source_hash(context: RunContext, parameters: Mapping[str, Any]) -> str | None:
    """Give a cache key that also changes with the code of the task.

    That is the task's function and whatever it uses of the functions, classes and constants of
    the project; see `docs/caching.md` for what counts. It includes `task_input_hash`: a key made
    of code alone would give one input's value for all others.

    Args:
        context: the run, as `get_run_context()` gives it.
        parameters: the values of all its parameters by name, defaults included.

    Returns:
        The digest of the code, a dash and that of the inputs; None as in `task_input_hash`, and
        where the code cannot be digested.
    """
    inputs = task_input_hash(context, parameters)
    source = context.task.source
    if source is None:
        _warn(context.task, "its code")
    return None if inputs is None or source is None else f"{source}-{inputs}"


def _unidentified(task: Any, parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        if large_digest((value,)) is None:
            yield f"the argument {name!r} ({type(value).__name__})"
    if large_digest((task.held,)) is None:
        yield "what the function is bound to"


def _warn(task: Any, what: str) -> None:
    if (task.key, what) in _warned or len(_warned) > _MOST_WARNED:
        return
    _warned.add((task.key, what))
    logger.warning(
        "Runs of task %r are not cached: %s cannot be told from others. Pass plain data, or give "
        "a cache_key_fn of your own.",
        task.name,
        what,
    )
