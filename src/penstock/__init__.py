"""Penstock: run ordinary Python functions as recorded flows of tasks.

Each name is loaded on first use, so `import penstock` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penstock.version import __version__

if TYPE_CHECKING:
    from penstock.annotations import allow_failure, quote, unmapped
    from penstock.flows import Flow, flow
    from penstock.records import run, runs
    from penstock.runtime.context import get_run_context, tags
    from penstock.runtime.futures import TaskFuture, as_completed, wait, wait_async
    from penstock.runtime.logs import get_run_logger
    from penstock.states import State, StateType
    from penstock.tasks import Task, task

_MODULES = {
    "Flow": "flows",
    "State": "states",
    "StateType": "states",
    "Task": "tasks",
    "TaskFuture": "runtime.futures",
    "allow_failure": "annotations",
    "as_completed": "runtime.futures",
    "flow": "flows",
    "get_run_context": "runtime.context",
    "get_run_logger": "runtime.logs",
    "quote": "annotations",
    "run": "records",
    "runs": "records",
    "tags": "runtime.context",
    "task": "tasks",
    "unmapped": "annotations",
    "wait": "runtime.futures",
    "wait_async": "runtime.futures",
}

__all__ = [
    "Flow",
    "State",
    "StateType",
    "Task",
    "TaskFuture",
    "__version__",
    "allow_failure",
    "as_completed",
    "flow",
    "get_run_context",
    "get_run_logger",
    "quote",
    "run",
    "runs",
    "tags",
    "task",
    "unmapped",
    "wait",
    "wait_async",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """The package: its `runs` is the function, also once the module of that name is loaded."""

    @property
    def runs(self) -> Any:
        return importlib.import_module(f"{__name__}.records").runs

    @runs.setter
    def runs(self, module: ModuleType) -> None:
        """Take no notice: this is how the import system tells of the module."""


sys.modules[__name__].__class__ = _Package
