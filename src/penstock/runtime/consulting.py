"""Load what asks the cache with the first task that has a cache key: most programs have none."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.runs import FlowRun, TaskRun

if TYPE_CHECKING:
    from penstock.runtime.caching import Consultation


def consultation(
    run: TaskRun,
    task: Any,
    is_over: Callable[[], bool] = lambda: False,
    parent: TaskRun | FlowRun | None = None,
) -> Consultation:
    """Give what asks the cache for a task run; see `Consultation`."""
    module = importlib.import_module("penstock.runtime.caching")
    made: Consultation = module.Consultation(run, task, is_over, parent)
    return made
