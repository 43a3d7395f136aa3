"""Take in what workers report: attempts that began and ended, log lines, requests."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from time import time_ns
from typing import TYPE_CHECKING, Any

from penstock.core.caching import HIT
from penstock.core.outcomes import raised
from penstock.core.pickling import dumps
from penstock.history.recorder import CHANGED
from penstock.remote.blackbox import Running
from penstock.remote.failures import state_from_record, state_to_record
from penstock.remote.messages import (
    BUNDLE_ENDED,
    CAME_BACK,
    CODE_MISSING,
    ENDED,
    GIVEN_BACK,
    KEPT,
    LEFT,
    LINE,
    RAW_ENDED,
    REQUEST,
    STARTED,
    STUCK,
    Header,
    Value,
)
from penstock.remote.requests import Requests
from penstock.remote.values import ArrivedState
from penstock.results.references import STORED, out_of_reach
from penstock.runtime.attempts import TASK_RUN, timed_out_state
from penstock.settings import load_settings
from penstock.states import CACHED, RETRYING, State, StateType

if TYPE_CHECKING:
    from penstock.core.bundling import Pace
    from penstock.remote.cargo import Cargo
    from penstock.remote.dispatch import Dispatcher
    from penstock.remote.engine import Bundle


logger = logging.getLogger("penstock.remote")
RUNNING = StateType.RUNNING


class Reports:
    """Takes in reports for one dispatcher, in its thread."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._header: bytes | None = None
        self._attempt = 0
        self._requests: Requests | None = None
        self._raw: dict[bytes, Callable[[State], None]] = {}
        self._takers: dict[int, Callable[..., None]] = {
            STARTED: self._started,
            ENDED: self._ended,
            GIVEN_BACK: self._given_back,
            BUNDLE_ENDED: self._bundle_ended,
            LINE: self._line,
            REQUEST: self._request,
            STUCK: self._stuck,
            RAW_ENDED: self._raw_ended,
            LEFT: self._left,
            CAME_BACK: self._came_back,
            CODE_MISSING: self._code_missing,
        }
        self._recorder: Any = None
        self._live: Any = None
        self._last_code: Any = None
        self._last_worker = ""

    def header(self, live: Any) -> bytes:
        """Give the pickled header of the flow run whose calls this dispatcher sends.

        Args:
            live: the flow run; None for a value that is made again, which came with a call before.
        """
        if self._header is None or (live is not None and self._attempt != live.flow_run.attempt):
            # Another attempt is another flow run to its workers: now they ask what is kept.
            self._attempt = live.flow_run.attempt
            settings = load_settings()
            run = live.flow_run
            header = Header(
                self._dispatcher.engine.reply_to,
                run.key,
                run.definition.name,
                run.name,
                run.created_at,
                run.preview,
                run.tags,
                run.log_prints,
                settings.log_level,
                settings.loggers,
                dumps(run.results),
                live.ledger.epoch,
                live.resumption is not None or run.attempt > 1,
                run.attempt,
            )
            self._header = pickle.dumps(tuple(header), 5)
            self._recorder = live.recorder
            self._live = live
            if self._requests is None:
                self._requests = Requests(self._dispatcher, live)
            self._requests.header = self._header
        return self._header

    def time_out(self, bundle: Bundle, running: Running, seconds: float, worker: str) -> None:
        """End a task run that has exceeded its time limit, unless its worker has told its end.

        For a worker that is killed from outside: its code may hold the interpreter, and so keep
        it from saying so itself.
        """
        cargo = self._dispatcher.open.get(running.key)
        if cargo is None or cargo.bundle is not bundle:
            return
        record = state_to_record(timed_out_state(cargo.run, seconds))
        entry = ENDED, running.key, running.attempt, running.began_at, time_ns(), None, record
        self.take(pickle.dumps((worker, [entry]), 5))

    def close(self) -> None:
        """End the thread that serves requests."""
        if self._requests is not None:
            self._requests.close()

    def close_mirrors(self, key: bytes, problem: BaseException) -> None:
        """End the runs that were called in an attempt that is lost."""
        if self._requests is not None:
            self._requests.close_mirrors(key, problem)

    def fail(self, problem: BaseException) -> None:
        """Tell the flow run that the engine is gone."""
        if self._live is not None:
            self._live.fatal = problem

    def raw_header(self) -> bytes:
        """Give the header of callables that belong to no flow run."""
        settings = load_settings()
        none: frozenset[str] = frozenset()
        header = Header(
            self._dispatcher.engine.reply_to, bytes(16), "", "", 0, "{}", none, False,
            settings.log_level, settings.loggers,
        )  # fmt: skip
        return pickle.dumps(tuple(header), 5)

    def expect_raw(self, key: bytes, function: Callable[[State], None]) -> None:
        """Have a function called with the state in which a raw call ends."""
        self._raw[key] = function

    def take(self, data: bytes) -> None:
        """Take a report."""
        worker, entries = pickle.loads(data)
        paces: dict[Pace, list[int]] = {}
        for entry in entries:
            try:
                self._takers[entry[0]](worker, paces, *entry[1:])
            except Exception:
                logger.exception("A report of worker %s could not be taken in.", worker)
        for pace, taken in paces.items():
            pace.note(sum(taken) / 1e9, len(taken))

    def begin(self, cargo: Cargo, at: int | None) -> None:
        """Enter RUNNING, at the time a worker said; None: now, for an attempt that got lost."""
        run = cargo.run
        if cargo.was_started or run.is_over:
            return
        cargo.was_started = True
        # Clocks of machines differ: nothing begins before it was made.
        at = time_ns() if at is None else max(at, run.created_at)
        run.attempt += 1
        if run.started_at is None:
            run.started_at = at
            run.type = RUNNING
        else:
            run.enter(RUNNING, max(at, run.changed_at or 0), RETRYING)

    def _started(self, worker: str, paces: Any, key: bytes, attempt: int, at: int) -> None:
        cargo = self._dispatcher.open.get(key)
        if cargo is None or cargo.was_started or attempt != cargo.run.attempt + 1:
            return
        cargo.worker = cargo.run.worker = worker
        if cargo.run.is_over:
            # A value that is made again: nothing of it is recorded.
            cargo.was_started = True
            return
        self.begin(cargo, at)
        cargo.call.live.recorder.record(CHANGED, cargo.run)
        if not cargo.is_suspect:
            # Of short ones nobody tells that they have begun: they end first.
            cargo.pace.note_long()

    def _ended(
        self,
        worker: str,
        paces: dict[Pace, list[int]],
        key: bytes,
        attempt: int,
        began_at: int,
        ended_at: int,
        place: Any,
        how: Any,
    ) -> None:
        cargo = self._dispatcher.open.get(key)
        if cargo is None:
            if place is not None and place[0] == KEPT:
                # Nobody waits for it any more: let the engine drop it.
                self._dispatcher.engine.fetcher(place[1], worker)
            return
        run = cargo.run
        if not run.is_over:
            run.worker = worker
            if not _is_cached(run, how):
                self.begin(cargo, began_at)
        if cargo.code is not self._last_code or worker != self._last_worker:
            self._last_code, self._last_worker = cargo.code, worker
            if cargo.code is not None:
                self._dispatcher.lanes.codes.note_holder(cargo.code.digest, worker)
        taken = paces.get(cargo.pace)
        if taken is None:
            taken = paces[cargo.pace] = []
        taken.append(ended_at - began_at)
        # Clocks of machines differ: nothing ends before it began.
        ended_at = max(ended_at, run.started_at or 0, run.changed_at or 0)
        if place is None:
            state = state_from_record(how, key)
            state.at = max(state.at, run.started_at or 0, run.changed_at or 0)
        else:
            value = Value(*place)
            problem = out_of_reach(value.data) if value.codec == STORED else None
            if problem is not None:
                self._dispatcher.ended(cargo, raised(problem, TASK_RUN, ended_at, key))
                return
            fetch = None
            if value.place == KEPT:
                fetch = self._dispatcher.engine.fetcher(value.data, worker)
            name, message = how or (None, None)
            state = ArrivedState(value, fetch, ended_at, key, name, message)
            if value.codec != "json" and self._requests is not None:
                state.resolver = self._requests.resolve
        self._dispatcher.ended(cargo, state)

    def _given_back(self, worker: str, paces: Any, keys: list[bytes]) -> None:
        self._dispatcher.given_back(keys)

    def _code_missing(self, worker: str, paces: Any, key: bytes, code: str) -> None:
        self._dispatcher.lanes.codes.note_lack(code, worker)
        self._dispatcher.given_back([key])

    def _bundle_ended(self, worker: str, paces: Any, bundle_id: str) -> None:
        self._dispatcher.bundle_ended(bundle_id)

    def _left(self, worker: str, paces: Any, bundle_id: str) -> None:
        self._dispatcher.waiting.add(bundle_id)

    def _came_back(self, worker: str, paces: Any, bundle_id: str) -> None:
        self._dispatcher.waiting.discard(bundle_id)

    def _line(self, worker: str, paces: Any, row: tuple[Any, ...]) -> None:
        self._recorder.record_line(row)

    def _request(self, worker: str, paces: Any, *request: Any) -> None:
        assert self._requests is not None
        self._requests.take(worker, *request)

    def _stuck(self, worker: str, paces: Any) -> None:
        self._dispatcher.engine.is_stuck(worker)

    def _raw_ended(self, worker: str, paces: Any, key: bytes, record: Any) -> None:
        self.end_raw(key, state_from_record(record, None))

    def end_raw(self, key: bytes, state: State) -> None:
        """Tell whoever waits for a raw call how it ended."""
        function = self._raw.pop(key, None)
        if function is not None:
            function(state)


def _is_cached(run: Any, how: Any) -> bool:
    """Tell whether a run ended without having run, with a value that was there."""
    return run.cache is not None and run.cache.how == HIT and how is not None and how[0] == CACHED
