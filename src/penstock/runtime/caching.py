"""Ask the cache for a task run, just before it would run: once blocking, once awaiting.

key function ──► desk: ask ──► hit: decode the value ──► Cached
     │ None                └─► runs
     └──► runs
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from time import monotonic, time_ns
from typing import Any
from uuid import UUID

from penstock.core.caching import HIT, LONGEST_KEY, MISS, UNKEYED, CacheNote
from penstock.core.outcomes import raised
from penstock.errors import CacheKeyError, DeadlockError
from penstock.results.kept import load_kept
from penstock.runs import FlowRun, TaskRun
from penstock.runtime.attempts import TASK_RUN, timed_out_state
from penstock.runtime.blocking import take
from penstock.runtime.cache_desk import Answer, Desk, Request, desk_for
from penstock.runtime.context import RunContext, current_run
from penstock.runtime.settling import catch_up
from penstock.runtime.waiting import await_signal, said_to_wait
from penstock.states import CACHED, KeptState, State, StateType, describe_exception
from penstock.task_runners.slots import slot_left

logger = logging.getLogger("penstock.caching")
KEY_FUNCTION = "Cache key function"
_SLICE = 0.25
_LONG = 5.0


class Consultation:
    """One question of a task run: may it take a value that is there already?

    Args:
        run: with its parameters resolved.
        task: what it is a run of.
        is_over: tells whether the run has been ended from outside.
        parent: the run whose code has called this one directly.
    """

    def __init__(
        self,
        run: TaskRun,
        task: Any,
        is_over: Callable[[], bool] = lambda: False,
        parent: TaskRun | FlowRun | None = None,
    ) -> None:
        self._run = run
        self._task = task
        self._is_over = is_over
        self._parent = parent
        self._desk: Desk = desk_for(run.recorder)
        self._box: SimpleQueue[Answer] = SimpleQueue()
        self._ring: Callable[[], object] | None = None
        self._limit: float | None = task.timeout_seconds

    def consult(self) -> State | None:
        """Give the state that the run ends in without running; None when it is to run."""
        return self._contained(self._consult)

    async def aconsult(self) -> State | None:
        """Do as `consult`, on the running loop."""
        token = current_run.set(self._run)
        try:
            request = self._asked()
            while request is not None:
                answer = self._at_once() or await self._await_answer(request)
                state = self._concluded(request, answer)
                if state is not None or answer is None or answer.how != HIT:
                    return state
                request = self._ask_again(request, answer)
            return None
        except BaseException as exc:
            return self._failed(exc)
        finally:
            current_run.reset(token)

    def _contained(self, function: Callable[[], State | None]) -> State | None:
        token = current_run.set(self._run)
        try:
            return function()
        except BaseException as exc:
            return self._failed(exc)
        finally:
            current_run.reset(token)

    def _failed(self, exc: BaseException) -> State:
        kind = KEY_FUNCTION if self._run.cached_by is None else TASK_RUN
        return raised(exc, kind, time_ns(), self._run.key)

    def _consult(self) -> State | None:
        request = self._asked()
        while request is not None:
            answer = self._at_once() or self._block(request)
            state = self._concluded(request, answer)
            if state is not None or answer is None or answer.how != HIT:
                return state
            request = self._ask_again(request, answer)
        return None

    def _asked(self) -> Request | None:
        """Make the key and ask; None where there is no key."""
        run = self._run
        key = self._key()
        run.cached_by = self._desk
        if key is None:
            run.cache = CacheNote(UNKEYED)
            self._desk.leave_unkeyed(run)
            return None
        return self._ask(key, None)

    def _key(self) -> str | None:
        run = self._run
        key = self._task.cache_key_fn(RunContext(run), run.parameters)
        if key is None:
            return None
        if not isinstance(key, str) or not key:
            raise CacheKeyError(
                f"The cache_key_fn of task {self._task.name!r} gave {key!r}; a key is a text, or "
                "None for a run that is not to be cached."
            )
        if len(key) > LONGEST_KEY:
            raise CacheKeyError(
                f"The cache_key_fn of task {self._task.name!r} gave a key of {len(key):,} "
                f"characters, {key[:40]!r}…; at most {LONGEST_KEY:,} can be used. Digest it."
            )
        if not key.isascii():
            key.encode()  # a lone surrogate could not be stored
        return str(key)

    def _ask(self, key: str, unusable: bytes | None) -> Request:
        request = Request(
            key,
            self._run.key,
            inside=self._run.inside,
            seconds=self._task.cache_expiration,
            refresh=self._task.refresh_cache,
            answer=self._answer,
            unusable=unusable,
            run=self._run,
        )
        answer = self._desk.ask(request)
        if answer is not None:
            self._box.put(answer)
        return request

    def _ask_again(self, request: Request, answer: Answer) -> Request:
        """Ask once more, as the value that was given as an answer cannot be used."""
        assert answer.found is not None
        return self._ask(request.key, answer.found.run_key)

    def _answer(self, answer: Answer) -> None:
        self._box.put(answer)
        ring = self._ring
        if ring is not None:
            ring()

    def _at_once(self) -> Answer | None:
        try:
            return self._box.get_nowait()
        except Empty:
            return None

    def _block(self, request: Request) -> Answer | None:
        """Wait for the answer; None when the run has been ended, or its time is over."""
        catch_up()
        # Mostly it is only the history that has to be asked.
        answer = take(self._box, self._desk.patience)
        if answer is not None:
            return answer
        with self._said_to_wait(request) as refused, slot_left():
            return refused or self._block_long(request)

    def _block_long(self, request: Request) -> Answer | None:
        began = monotonic()
        while not self._is_over():
            answer = take(self._box, self._slice(began))
            if answer is not None or self._is_late(began):
                return answer
            self._say(request, began)
        return self._at_once()

    @contextmanager
    def _said_to_wait(self, request: Request) -> Iterator[Answer | None]:
        """Say which run this one waits for; gives an answer where that would never end."""
        leader = self._desk.leader_of(request)
        with ExitStack() as stack:
            if self._parent is not None:
                # Called directly: its caller waits for it.
                token = current_run.set(self._parent)
                try:
                    stack.enter_context(said_to_wait([self._run]))
                finally:
                    current_run.reset(token)
            try:
                stack.enter_context(said_to_wait([] if leader is None else [leader]))
            except DeadlockError:
                self._desk.leave(request)
                yield self._at_once() or Answer(MISS)
            else:
                yield None

    async def _await_answer(self, request: Request) -> Answer | None:
        if self._desk.may_block_loops:
            answer = take(self._box, self._desk.patience)
            if answer is not None:
                return answer
        with self._said_to_wait(request) as refused:
            return refused or await self._await_long(request)

    async def _await_long(self, request: Request) -> Answer | None:
        signal = await_signal()
        self._ring = signal.ring
        began = monotonic()
        answer = self._at_once()
        while answer is None and not self._is_over() and not self._is_late(began):
            await signal.wait((), self._slice(began))
            answer = self._at_once()
            self._say(request, began)
        self._ring = None
        return answer

    def _slice(self, began: float) -> float:
        if self._limit is None:
            return _SLICE
        return max(0.0, min(_SLICE, began + self._limit - monotonic()))

    def _is_late(self, began: float) -> bool:
        return self._limit is not None and monotonic() >= began + self._limit

    def _say(self, request: Request, began: float) -> None:
        waited = monotonic() - began
        if _LONG <= waited < _LONG + _SLICE:
            logger.info(
                "Task run %r has waited %.0f s for the value of its cache key %r, which %s makes.",
                self._run.name,
                waited,
                request.key,
                self._desk.who_makes(request),
            )

    def _concluded(self, request: Request, answer: Answer | None) -> State | None:
        run = self._run
        if answer is None:
            return timed_out_state(run, self._limit or 0.0)
        if answer.how != HIT:
            run.cache = CacheNote(answer.how, request.key, self._task.cache_expiration)
            run.inside = (*run.inside, run.key)
            return None
        found = answer.found
        assert found is not None
        try:
            value = load_kept(found.data, found.codec)
        except Exception as exc:
            logger.warning(
                "The cached value of task run %r cannot be used, so it runs: %s",
                run.name,
                describe_exception(exc),
            )
            return None
        run.cache = CacheNote(HIT, request.key, None, None, found)
        message = f"Cached from task run '{UUID(bytes=found.run_key)}'."
        now = time_ns()
        state = State(StateType.COMPLETED, CACHED, message, now, value, run.key)
        return KeptState.of(state, found.data, found.codec, now)
