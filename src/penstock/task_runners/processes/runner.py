"""ProcessPoolTaskRunner: its settings, and how its workers are started."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from penstock.errors import InvalidOptionError, TaskRunnerError
from penstock.remote.parcels import dump_value
from penstock.remote.runner import RemoteTaskRunner
from penstock.task_runners.base import Call
from penstock.task_runners.processes.engine import ProcessEngine


class ProcessPoolTaskRunner(RemoteTaskRunner):
    """Run tasks on worker processes of this machine.

    The workers are started as work needs them and end with the flow run. One that dies costs the
    attempt that it was at; a task run that is cancelled or exceeds its time limit is stopped,
    whatever it is doing.

    Args:
        max_workers: how many task runs run at a time; default: the number of usable cores.
        initializer: called in each worker before anything else, as with
            `concurrent.futures.ProcessPoolExecutor`.
        initargs: its arguments.
        bundle: whether small task runs may travel several in one message.

    Raises:
        ValueError: `max_workers` is less than 1, or the initializer cannot be called.

    Example:
        >>> ProcessPoolTaskRunner(max_workers=4)
        ProcessPoolTaskRunner(max_workers=4)
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[object] = (),
        bundle: bool = True,
    ) -> None:
        if max_workers is not None and (type(max_workers) is not int or max_workers < 1):
            raise InvalidOptionError(
                f"max_workers is {max_workers!r}; it must be a whole number of at least 1."
            )
        if initializer is not None and not callable(initializer):
            raise InvalidOptionError(f"initializer is {initializer!r}; it must be callable.")
        if not isinstance(bundle, bool):
            raise InvalidOptionError(f"`bundle` is {bundle!r}; it must be True or False.")
        self.max_workers = max_workers
        self.initializer = initializer
        self.initargs = tuple(initargs)
        self.bundle = bundle

    async def _open(self, exit_stack: AsyncExitStack) -> ProcessEngine:
        initializer = None
        if self.initializer is not None:
            initializer = dump_value((self.initializer, self.initargs), "the initializer")
        engine = ProcessEngine(self.max_workers or usable_cores(), initializer)
        exit_stack.push_async_callback(asyncio.to_thread, engine.close)
        return engine

    async def submit(self, key: Any, call: Any) -> None:
        self._check_serialized()
        await super().submit(key, call)

    def place(self, calls: Sequence[Call]) -> None:
        self._check_serialized()
        super().place(calls)

    def _check_serialized(self) -> None:
        if self._was_started and not self._started:
            raise TaskRunnerError(
                f"The {self.name} task runner cannot be used to submit work after serialization."
            )

    def __repr__(self) -> str:
        defaults = {"max_workers": None, "initializer": None, "initargs": (), "bundle": True}
        given = {name: getattr(self, name) for name in defaults}
        listed = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
        return f"{type(self).__name__}({', '.join(listed)})"


def usable_cores() -> int:
    """Give the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
