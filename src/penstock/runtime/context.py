"""The current run, and the tags in force: the two context variables of Penstock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from penstock.errors import InvalidOptionError, MissingContextError
from penstock.runs import FlowRun, TaskRun

current_run: ContextVar[TaskRun | FlowRun | None] = ContextVar("penstock_run", default=None)
current_tags: ContextVar[frozenset[str]] = ContextVar("penstock_tags", default=frozenset())


@contextmanager
def tags(*names: str) -> Iterator[frozenset[str]]:
    """Add tags to every run created inside the block.

    Args:
        names: the tags to add; blocks inside each other add up.

    Example:
        >>> with tags("nightly", "eu") as in_force:
        ...     sorted(in_force)
        ['eu', 'nightly']
    """
    token = current_tags.set(current_tags.get() | checked_tags(names))
    try:
        yield current_tags.get()
    finally:
        current_tags.reset(token)


def checked_tags(names: object) -> frozenset[str]:
    """Check tags: texts; a single text counts as one.

    Raises:
        InvalidOptionError: something else; recorded runs could not hold it.
    """
    if names is None:
        return frozenset()
    given = (names,) if isinstance(names, str) else names
    if not isinstance(given, Iterable):
        raise InvalidOptionError(f"tags are texts, not {names!r}.")
    listed = tuple(given)
    for name in listed:
        if not isinstance(name, str):
            raise InvalidOptionError(f"A tag must be a text, not {name!r}.")
    # Plain texts: they travel to other processes.
    return frozenset(str(name) for name in listed)


class RunContext:
    """What the code of a run can know of itself.

    Attributes:
        flow_run: the flow run; None in a task called outside a flow.
        task_run: the task run; None in a flow's own code.
        flow, task: their definitions.
        task_runner: the task runner of the flow run; None in a task.
    """

    def __init__(self, run: TaskRun | FlowRun) -> None:
        in_task = isinstance(run, TaskRun)
        live = run.live
        # Typed as what code of that kind of run finds: nobody should have to test for None
        # what cannot be None where they ask.
        self.task_run: TaskRun = run if in_task else None  # type: ignore[assignment]
        self.flow_run: FlowRun = None if live is None else live.flow_run  # type: ignore[assignment]
        self.flow: Any = None if live is None else live.flow
        self.task: Any = run.definition if in_task else None
        self.task_runner: Any = None if in_task or live is None else live.task_runner

    def __repr__(self) -> str:
        return f"<RunContext flow_run={self.flow_run!r} task_run={self.task_run!r}>"


def get_run_context() -> RunContext:
    """Give the context of the run whose code is running.

    Raises:
        MissingContextError: no flow or task is running here.

    Example:
        >>> from penstock import flow
        >>> @flow
        ... def report():
        ...     return get_run_context().flow_run.definition.name
        >>> report()
        'report'
    """
    run = current_run.get()
    if run is None:
        raise MissingContextError(
            "There is no run here: get_run_context() works inside a flow or a task only."
        )
    return RunContext(run)
