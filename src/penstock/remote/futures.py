"""How a future travels: as the id of its task run. Where it arrives it stands for the same run."""

from __future__ import annotations

import copyreg
from typing import Any

from penstock.remote.parcels import resolve
from penstock.runtime.futures import TaskFuture


def _reduce(future: TaskFuture[Any]) -> tuple[Any, ...]:
    run = future.task_run
    run.live.export(run)
    return resolve, (("future", run.key),)


def let_futures_travel() -> None:
    """Have futures pickled as what they stand for, from now on in this process."""
    copyreg.pickle(TaskFuture, _reduce)
