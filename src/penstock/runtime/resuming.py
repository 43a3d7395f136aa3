"""Continue a flow run that did not complete: find it, claim it, run its flow again from the top."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.errors import ResultNotKept, ResumeError
from penstock.failpoints import FAILPOINTS, hit
from penstock.history.base import HistoryReader
from penstock.history.resumable import Resumable
from penstock.history.stores import open_reader
from penstock.results.kept import load_kept
from penstock.results.small import SMALL_RESULT_LIMIT
from penstock.runtime.arguments import unpack_arguments
from penstock.runtime.claims import claim
from penstock.runtime.context import current_run, tags
from penstock.runtime.direct import told
from penstock.runtime.flow_runs import FlowExecution
from penstock.runtime.recording import recorder_for
from penstock.runtime.resumption import RecordedResumption
from penstock.settings import Settings, load_settings
from penstock.states import State, StateType

logger = logging.getLogger("penstock.flow_runs")


class Wish(NamedTuple):
    """How a flow run is to be continued.

    Attributes:
        arguments: those that take the place of the run's own, by name.
        rerun_changed: run completed task runs again whose code has changed.
        steal: take it also from a process that is there, but shows no life.
        return_state: a state is wanted; the value need not be there.
    """

    arguments: Mapping[str, object]
    rerun_changed: bool
    steal: bool
    return_state: bool


def resume_flow(flow: Any, reference: str, wish: Wish) -> Any:
    """Continue a flow run; give its result or state, or a coroutine for an async flow."""
    if flow.is_async:
        return _aresume(flow, reference, wish)
    execution = _begin(flow, reference, wish)
    if isinstance(execution, State):
        return told(execution, wish.return_state)
    with tags(*execution.flow_run.tags):
        state = execution.execute()
    return told(state, wish.return_state)


async def _aresume(flow: Any, reference: str, wish: Wish) -> Any:
    execution = _begin(flow, reference, wish)
    if isinstance(execution, State):
        return told(execution, wish.return_state)
    with tags(*execution.flow_run.tags):
        state = await execution.aexecute()
    return told(state, wish.return_state)


def _begin(flow: Any, reference: str, wish: Wish) -> FlowExecution | State:
    """Claim a flow run and get it ready; the state of one that has completed is given instead."""
    if current_run.get() is not None:
        raise ResumeError(
            "A flow run cannot be resumed inside another one. Call .resume() outside any flow."
        )
    settings = load_settings()
    if not settings.record:
        raise ResumeError("PENSTOCK_RECORD is off: there is no history to resume from.")
    reader = open_reader(settings.database_url)
    try:
        id = reader.find_flow_run(reference)["id"]
        recorder_for(settings)  # an older history is migrated by whoever writes
        resumable = reader.resumable(id)
        _check(flow, resumable)
        if resumable.row["state"] == StateType.COMPLETED.value:
            reader.close()
            return _completed(resumable, wish.return_state)
        values = unpack_arguments(resumable.row["arguments"], flow.signature, wish.arguments)
        return _claimed(flow, values, settings, reader, resumable, wish)
    except BaseException:
        reader.close()
        raise


def _claimed(
    flow: Any,
    values: tuple[object, ...],
    settings: Settings,
    reader: HistoryReader,
    left: Resumable,
    wish: Wish,
) -> FlowExecution:
    id = left.row["id"].hex()
    if FAILPOINTS:
        hit("resume.loaded")
    epoch = claim(reader, recorder_for(settings), left, wish.steal)
    found = reader.resumable(id)
    if FAILPOINTS:
        hit("resume.requeued")
    # The states so far are those from before it was claimed.
    now = Resumable(left.row, found.tasks, found.counts, found.subflows)
    resumption = RecordedResumption(reader, now, epoch, wish.rerun_changed)
    with tags(*json.loads(left.row["tags"] or "[]")):
        return FlowExecution(flow, values, None, resumption=resumption)


def _check(flow: Any, resumable: Resumable) -> None:
    """Refuse what is no run of this flow, or only a part of one."""
    row = resumable.row
    if row["parent_task_run_id"] is not None and row["state"] != StateType.COMPLETED.value:
        raise ResumeError(
            f"{row['name']!r} is a subflow run: resume the flow run that it is a part of."
        )
    if row["flow_key"] != flow.key:
        raise ResumeError(
            f"{row['name']!r} is a run of the flow {row['flow']!r} ({row['flow_key']}), not of "
            f"{flow.name!r} ({flow.key})."
        )


def _completed(resumable: Resumable, is_value_left_out: bool) -> State:
    """Give the state of a run that has completed.

    Raises:
        ResultNotKept: its value was not kept; not where it may be left out.
    """
    row = resumable.row
    logger.info("Flow run %r has completed already; nothing is run.", row["name"])
    value = None
    if row["result"] is not None:
        value = load_kept(row["result"], row["result_codec"])
    elif not is_value_left_out:
        raise ResultNotKept(
            f"Flow run {row['name']!r} has completed already, and its result was not kept: it "
            f"takes more than {SMALL_RESULT_LIMIT // 1024} KiB and nothing asked to keep it, or "
            "it cannot be pickled. persist_result=True keeps larger ones."
        )
    return State(StateType.COMPLETED, None, row["message"], row["ended_at"], value, row["id"])
