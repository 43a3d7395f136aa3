"""Cache keys of task runs on workers: made there, answered by the driver's desk.

    worker: key function ──► WorkerDesk.ask ── request "cache" ──► CacheRequests ──► CacheDesk
            Consultation ◄── the kept bytes, or how it runs ◄───────────┘      (driver)

So no large argument travels to the driver for its key, and the driver alone decides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.core.caching import HIT, UNKEYED, CacheNote, Kept
from penstock.history.recorder import CHANGED
from penstock.remote.messages import REQUEST
from penstock.runs import TaskRun
from penstock.runtime.cache_desk import Answer, CacheDesk, Request, desk_for
from penstock.runtime.context import current_run

if TYPE_CHECKING:
    from penstock.remote.flow_run import FlowRunElsewhere

_PATIENCE_SECONDS = 0.25


class WorkerDesk:
    """The desk of a worker: asks that of the driver."""

    patience = _PATIENCE_SECONDS
    may_block_loops = True  # each coroutine has a loop of its own here

    def __init__(self, live: FlowRunElsewhere) -> None:
        self._live = live

    def ask(self, request: Request) -> Answer | None:
        run: Any = current_run.get()
        if run is not None and getattr(run, "item", None) is None:
            # Called directly, or in a flow that runs here: the driver may not have heard of it.
            run.recorder.record(CHANGED, run)
        what = (
            request.run_key,
            request.key,
            request.seconds,
            request.refresh,
            request.inside,
            request.unusable,
        )
        self._live.question(partial(_told, request.answer), "cache", *what)
        return None

    def leave_unkeyed(self, run: TaskRun) -> None:
        if getattr(run, "item", None) is not None:
            self._live.outbox.add(REQUEST, "unkeyed", run.key)

    def end(self, run: TaskRun) -> None:
        """Nothing: the driver hears of the end by the record of it."""

    def leader_of(self, request: Request) -> None:
        """Nothing: who waits for whom, on whatever worker, is not known here."""

    def leave(self, request: Request) -> None:
        """Nothing: see `leader_of`."""

    def who_makes(self, request: Request) -> str:
        return "another task run or process"


def _told(answer: Callable[[Answer], object], told: tuple[Any, ...]) -> None:
    how, found = told[0]
    answer(Answer(how, None if found is None else Kept(*found)))


class CacheRequests:
    """Answers the workers of one flow run.

    Args:
        live: the flow run.
        find: gives the run of a key, if it is open; else None.
        answer: sends an answer: worker, number of the question, what.
    """

    def __init__(
        self,
        live: Any,
        find: Callable[[bytes], TaskRun | None],
        answer: Callable[[str, int, Any], None],
    ) -> None:
        self._live = live
        self._find = find
        self._answer = answer

    def note_unkeyed(self, run_key: bytes) -> None:
        """Take that a run has no key."""
        run = self._find(run_key)
        if run is not None:
            run.cache = CacheNote(UNKEYED)

    def consult(
        self,
        worker: str,
        number: int,
        run_key: bytes,
        key: str,
        seconds: float | None,
        refresh: bool | None,
        inside: tuple[bytes, ...],
        unusable: bytes | None,
    ) -> None:
        """Answer the question of a run, now or once it is known."""
        desk = desk_for(self._live.recorder)
        assert isinstance(desk, CacheDesk)
        run = self._find(run_key)
        tell = partial(self._told, worker, number, run)
        request = Request(
            key,
            run_key,
            inside=inside,
            seconds=seconds,
            refresh=refresh,
            answer=lambda answer: tell(request, answer),
            unusable=unusable,
        )
        if run is None:
            # It has ended, or its value is made again: that changes nothing.
            tell(request, desk.peek(request))
            return
        run.cached_by = desk
        answer = desk.ask(request)
        if answer is not None:
            tell(request, answer)

    def _told(
        self, worker: str, number: int, run: TaskRun | None, request: Request, answer: Answer
    ) -> None:
        if run is not None:
            if answer.how == HIT:
                run.cache = CacheNote(HIT, request.key, None, None, answer.found)
            else:
                run.cache = CacheNote(answer.how, request.key, request.seconds)
                run.inside = (*request.inside, run.key)
        found = None if answer.found is None else tuple(answer.found)
        self._answer(worker, number, (answer.how, found))
