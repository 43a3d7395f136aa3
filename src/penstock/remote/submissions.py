"""Submissions from inside a task: packed on the worker, submitted by the driver.

task.submit(…) on a worker ──► code of the task, the first time ──► REQUEST "code"
                           ──► arguments, options, tags         ──► REQUEST "submit"
                                       the driver's side is `Requests` ◄──┘
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from time import time_ns
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from penstock.core.inputs import Found
from penstock.core.outcomes import raised
from penstock.core.previews import preview_parameters
from penstock.errors import SerializationError
from penstock.ids import new_task_run_key
from penstock.remote.messages import REQUEST
from penstock.remote.parcels import Parcel, dump_value, pack, pack_code
from penstock.remote.payloads import Payloads
from penstock.remote.worker_runs import WorkerTaskRun
from penstock.runs import TaskRun
from penstock.runtime.attempts import TASK_RUN
from penstock.runtime.context import current_run, current_tags
from penstock.runtime.task_runs import settle
from penstock.runtime.upstreams import run_of, state_of

if TYPE_CHECKING:
    from penstock.remote.flow_run import FlowRunElsewhere

Calls = list[tuple[Any, Any]]
_MOST_BYTES = 32 * 2**20
"""Arguments above which further calls are asked for by a message of their own."""


class _Request:
    """Calls of one task that the driver is asked to submit; each large content once."""

    def __init__(self) -> None:
        self.wanted: list[tuple[bytes, bytes]] = []
        self.large: dict[str, bytes] = {}
        self.size = 0

    def add(self, key: bytes, parcel: Parcel) -> None:
        """Add a call: the key of its run, and its arguments."""
        self.wanted.append((key, parcel.data))
        self.size += len(parcel.data)
        for part in parcel.large:
            if part.digest not in self.large:
                self.large[part.digest] = content = bytes(part.buffer)
                self.size += len(content)


class Submissions:
    """What the task runs of one flow run submit on one worker. Thread-safe."""

    def __init__(self, live: FlowRunElsewhere) -> None:
        self._live = live
        self._payloads = Payloads()
        # A task, with what it closes over, is packed when it is first submitted here.
        self._digests: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._sent: set[str] = set()

    def ask(self, task: Any, calls: Calls, awaited: Found | None) -> list[WorkerTaskRun]:
        """Ask the driver to submit runs of a task; give what stands for them here."""
        code, options, problem = self._packed(task)
        waited = () if awaited is None else tuple(_told_of(awaited))
        runs: list[WorkerTaskRun] = []
        request = _Request()
        memo: dict[int, Any] = {}
        for args, kwargs in calls:
            values = task.signature.values(args, kwargs)
            runs.append(run := self._new_run(task))
            try:
                if problem is not None:
                    raise problem
                parcel = pack(values, task.parameter_names, memo)
                if parcel.large:
                    self._payloads.note(task, *parcel, is_one_of_many=len(calls) > 1)
                    self._payloads.refuse(task, *parcel)
            except SerializationError as exc:
                self._refuse(run, values, exc)
                continue
            self._live.expect(run)
            if request.size > _MOST_BYTES:
                self._send(request, code, waited, options)
                request = _Request()
            request.add(run.key, parcel)
        self._send(request, code, waited, options)
        return runs

    def _new_run(self, task: Any) -> WorkerTaskRun:
        now = time_ns()
        run = WorkerTaskRun(task, new_task_run_key(now), now)
        run.live, run.recorder = self._live, self._live.recorder
        run.is_numbered = False
        return run

    def _send(
        self, request: _Request, code: str, waited: tuple[Any, ...], options: bytes | None
    ) -> None:
        parent = current_run.get()
        parent_key = parent.key if isinstance(parent, TaskRun) else None
        log_prints = parent.log_prints if parent is not None else False
        if request.wanted:
            self._live.outbox.add(
                REQUEST, "submit", parent_key, code, request.wanted, request.large, waited,
                options, current_tags.get(), log_prints,
            )  # fmt: skip
        self._live.outbox.flush()

    def _packed(self, task: Any) -> tuple[str, bytes | None, SerializationError | None]:
        """Give the digest of a task's code, the engine's options in force, or why neither can."""
        try:
            options = self._live.outbox.port.options()
            packed = None if options is None else dump_value(options, "the options in force")
            return self._digest_of(task), packed, None
        except SerializationError as exc:
            return "", None, exc

    def _digest_of(self, task: Any) -> str:
        """Give the digest of a task's code, which the driver has or is sent before all else."""
        digest = self._digests.get(task)
        if digest is None:
            code = pack_code(task)
            digest = blake2b(code, digest_size=16).hexdigest()
            if digest not in self._sent:
                # In this order: who finds it noted may be sure that it is on its way.
                self._live.outbox.add(REQUEST, "code", digest, code)
                self._sent.add(digest)
            self._digests[task] = digest
        return digest

    def _refuse(self, run: WorkerTaskRun, values: tuple[Any, ...], exc: SerializationError) -> None:
        """End a run that cannot be submitted: the driver hears of it as of one that ended here."""
        parent = current_run.get()
        run.preview = preview_parameters(run.definition.parameter_names, values)
        run.tags = current_tags.get() | run.definition.tags  # type: ignore[attr-defined]
        run.parent_key = parent.key if isinstance(parent, TaskRun) else None
        state = raised(exc, TASK_RUN, time_ns(), run.key)
        settle(run, state, self._live.recorder)  # type: ignore[arg-type]
        run.outcome = state


def _told_of(awaited: Found) -> Iterable[tuple[bytes | None, Any, bool]]:
    """Give what a call waits for: the key of a run, or a state without its data; may it fail?"""
    for dependency, allowed in awaited.dependencies.items():
        run = run_of(dependency)
        if run is not None:
            yield run.key, None, allowed
        else:
            state = state_of(dependency)
            told = state.type.value, state.special_name, state.message, state.at, state.run_key
            yield None, told, allowed
