"""Task runners: where task runs execute. Each name is loaded on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.task_runners.base import BaseTaskRunner, TaskConcurrencyType
    from penstock.task_runners.concurrent import ConcurrentTaskRunner
    from penstock.task_runners.dask.clients import get_async_dask_client, get_dask_client
    from penstock.task_runners.dask.runner import DaskTaskRunner
    from penstock.task_runners.processes.runner import ProcessPoolTaskRunner
    from penstock.task_runners.ray.options import remote_options
    from penstock.task_runners.ray.runner import RayTaskRunner
    from penstock.task_runners.sequential import SequentialTaskRunner

_MODULES = {
    "BaseTaskRunner": "base",
    "ConcurrentTaskRunner": "concurrent",
    "DaskTaskRunner": "dask.runner",
    "ProcessPoolTaskRunner": "processes.runner",
    "RayTaskRunner": "ray.runner",
    "SequentialTaskRunner": "sequential",
    "TaskConcurrencyType": "base",
    "get_async_dask_client": "dask.clients",
    "get_dask_client": "dask.clients",
    "remote_options": "ray.options",
}

__all__ = [
    "BaseTaskRunner",
    "ConcurrentTaskRunner",
    "DaskTaskRunner",
    "ProcessPoolTaskRunner",
    "RayTaskRunner",
    "SequentialTaskRunner",
    "TaskConcurrencyType",
    "get_async_dask_client",
    "get_dask_client",
    "remote_options",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
