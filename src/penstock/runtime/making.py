"""Make flow runs: new ones, and those that are continued."""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import Any

from penstock.core.previews import preview_parameters
from penstock.errors import ParameterTypeError
from penstock.history.leases import Lease
from penstock.history.ledgers import Ledger
from penstock.history.recorder import Recorder
from penstock.ids import new_flow_run_key
from penstock.runs import FlowRun, Run, TaskRun
from penstock.runtime.arguments import pack_arguments
from penstock.runtime.context import current_tags
from penstock.runtime.names import random_name
from penstock.runtime.origins import origin_of
from penstock.runtime.resumption import Resumption
from penstock.runtime.task_runs import named


def make_flow_run(
    flow: Any,
    values: tuple[object, ...],
    name: str,
    parent: Run | None,
    stand_in: TaskRun | None,
    resumption: Resumption | None,
) -> FlowRun:
    """Make a run of a flow; one that is continued goes on under its own id and name.

    Args:
        parent: the run in which it is called.
        stand_in: the task run that stands for it there.
    """
    if resumption is None:
        run = FlowRun(flow, new_flow_run_key(), time_ns(), name)
    else:
        run = FlowRun(flow, resumption.row["id"], time_ns(), resumption.row["name"])
        resumption.continue_run(run)
    run.preview = preview_parameters(flow.parameter_names, values)
    run.runner = str(flow.task_runner)
    run.version = flow.version
    run.tags = current_tags.get() | (parent.tags if parent is not None else frozenset())
    run.parent = stand_in
    if stand_in is None:
        run.arguments = pack_arguments(flow.signature, values)
        run.origin = origin_of(flow)
    else:
        stand_in.subflow_key = run.key
    return run


def make_ledger(
    flow_run: FlowRun, parent: Run | None, recorder: Recorder, resumption: Resumption | None
) -> Ledger:
    """Make what the recorder knows of a flow run; an outermost one is claimed by this process."""
    if parent is None or parent.live is None:
        epoch = 0 if resumption is None else resumption.epoch
        lease = Lease(flow_run.key, epoch)
        recorder.hold(lease)
        ledger = Ledger(flow_run.key, epoch, lease)
    elif parent.live.ledger is None:
        return Ledger(flow_run.key)  # on a worker: the driver numbers what it records
    else:
        ledger = Ledger(flow_run.key, parent.live.ledger.epoch, parent.live.ledger.lease)
    if resumption is not None:
        ledger.take_up(resumption.counts)
    return ledger


def flow_run_name(flow: Any, parameters: Callable[[], dict[str, object]]) -> str:
    """Give the name of a flow run, made of the parameters as the function will see them."""
    if flow.flow_run_name is None:
        return random_name()
    try:
        values = tuple(parameters().values())
    except ParameterTypeError:
        return random_name()  # the run is about to fail with that
    return named(flow.flow_run_name, flow.parameter_names, values) or random_name()
