"""ProcessPoolTaskRunner: its settings, and how its workers are started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from penstock.core.resources import checked_own_resources
from penstock.errors import InvalidOptionError
from penstock.remote.parcels import dump_value
from penstock.remote.runner import RemoteTaskRunner
from penstock.task_runners.base import Call
from penstock.task_runners.capacity import usable_cores
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
        resources: amounts of names of your own that tasks may ask for, such as
            `{"licence": 2}`. cpu, gpu and memory are the machine's.

    Raises:
        ValueError: `max_workers` is less than 1, or the initializer cannot be called.

    Example:
        >>> ProcessPoolTaskRunner(max_workers=4)
        ProcessPoolTaskRunner(max_workers=4)
    """

    is_of_this_process = True

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[object] = (),
        bundle: bool = True,
        resources: Mapping[str, Any] | None = None,
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
        self.resources = checked_own_resources(resources)

    async def _open(self, exit_stack: AsyncExitStack) -> ProcessEngine:
        initializer = None
        if self.initializer is not None:
            initializer = dump_value((self.initializer, self.initargs), "the initializer")
        engine = ProcessEngine(self.max_workers or usable_cores(), initializer, self.resources)
        exit_stack.push_async_callback(asyncio.to_thread, engine.close)
        return engine

    def check_resources(self, task_name: str, resources: Mapping[str, float]) -> None:
        if self.engine is not None:
            self.engine.account.check(task_name, resources)

    def holders(self, call: Call) -> Sequence[Call]:
        found: list[Call] = (
            [] if self.engine is None else self.engine.account.holders(call.resources)
        )
        return found

    def fits_beside(self, call: Call, holders: Sequence[Call]) -> bool:
        engine = self.engine
        return engine is None or engine.account.fits_beside(call.resources, holders)

    def __repr__(self) -> str:
        defaults: dict[str, Any] = {
            "max_workers": None, "initializer": None, "initargs": (), "bundle": True,
            "resources": {},
        }  # fmt: skip
        given = {name: getattr(self, name) for name in defaults}
        listed = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
        return f"{type(self).__name__}({', '.join(listed)})"
