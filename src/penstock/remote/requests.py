"""What task runs on workers ask of the flow run: to submit, to cancel, to be told of an end.

Requests that may take long, such as a submission that starts another runner, are done in a
thread of their own, in order.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from penstock.annotations import allow_failure
from penstock.core.inputs import Found, find
from penstock.errors import CrashedRun, WorkerLost
from penstock.remote.caching import CacheRequests
from penstock.remote.engine import given_elsewhere
from penstock.remote.failures import state_to_record
from penstock.remote.kept_here import KeptHere
from penstock.remote.messages import ANSWER, END
from penstock.remote.parcels import unpack, unpack_code
from penstock.remote.snapshots import Mirrors
from penstock.remote.values import ArrivedState, fetched, whole
from penstock.runs import TaskRun
from penstock.runtime.blocking import ServiceThread, take
from penstock.runtime.context import current_run, current_tags
from penstock.runtime.futures import TaskFuture
from penstock.states import State, StateType, exception_to_crashed_state

if TYPE_CHECKING:
    from penstock.remote.dispatch import Dispatcher

logger = logging.getLogger("penstock.remote")
_PATIENCE_SECONDS = 3.0


class Requests:
    """Serves the requests of the task runs of one flow run.

    Args:
        dispatcher: whose workers ask.
        live: the flow run.

    Attributes:
        header: how workers know the present attempt of the flow run.
    """

    def __init__(self, dispatcher: Dispatcher, live: Any) -> None:
        self._dispatcher = dispatcher
        self._live = live
        self.header = b""
        self._mirrors = Mirrors(live, self._run_that_is_open)
        self._caching = CacheRequests(live, self._mirrors.run_of, self._answer)
        self._known: dict[bytes, TaskRun] = live.exported
        kept = KeptHere(live, self._mirrors)
        self._kept_questions: dict[str, Callable[..., Any]] = {
            "kept": kept.kept,
            "kept in": kept.kept_in,
            "below": kept.below,
            "below in": kept.below_in,
        }
        self._queue: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None]
        self._queue = SimpleQueue()
        self._thread: threading.Thread | None = None
        # The code of tasks that are submitted on workers, by digest; unpacked when it is used.
        self._codes: dict[str, bytes] = {}
        self._tasks: dict[str, Any] = {}

    def take(self, worker: str, kind: str, *what: Any) -> None:
        """Take a request, in the dispatcher's thread."""
        if kind == "record":
            self._mirrors.take(*what)
        elif kind == "code":
            digest, code = what
            if digest not in self._tasks:
                self._codes[digest] = code
        elif kind == "submit":
            self._later(self._submit, worker, *what)
        elif kind == "looked":
            # At once: the end of the task run that looked comes next.
            self._look_at(*what)
        elif kind == "unkeyed":
            self._caching.note_unkeyed(*what)
        elif kind == "watch":
            self._later(self._watch, worker, *what)
        else:
            number, question, asked_by, *rest = what
            if question == "number":
                self._tell_number(asked_by, number, *rest)
            elif question == "value":
                self._find_value(asked_by, number, *rest)
            elif question in self._kept_questions:
                self._later(self._tell_kept, asked_by, number, question, *rest)
            elif question == "cache":
                self._later(self._caching.consult, asked_by, number, *rest)
            elif question == "parameters":
                self._later(self._tell_parameters, asked_by, number)
            else:
                self._later(self._cancel, asked_by, number, *rest)

    def _tell_kept(self, worker: str, number: int, question: str, *what: Any) -> None:
        """Answer whether something need not run again."""
        self._answer(worker, number, self._kept_questions[question](*what))

    def _find_value(self, worker: str, number: int, key: bytes) -> None:
        """Tell a worker, which could not find a kept value, where it is once it is there."""
        run = self._known.get(key)
        state = None if run is None else run.outcome
        fetch = state.fetch if isinstance(state, ArrivedState) else None
        if fetch is None or fetch.engine is not self._dispatcher.engine:
            self._answer(worker, number, (None, "It is not kept on this engine."))
            return

        def done(problem: BaseException | None) -> None:
            self._answer(worker, number, (None, str(problem)) if problem else (fetch.name, None))

        self._dispatcher.recoveries.recover(fetch, done)

    def _later(self, function: Callable[..., None], *arguments: Any) -> None:
        self._queue.put((function, arguments))
        if self._thread is None:
            self._thread = ServiceThread(target=self._serve, name="penstock-requests", daemon=True)
            self._thread.start()

    def close_mirrors(self, key: bytes, problem: BaseException) -> None:
        """End the runs that were called in an attempt that is lost, in the dispatcher's thread."""
        self._mirrors.lose(key, problem)

    def close(self) -> None:
        """End the thread, and the runs of which no worker will tell the end any more."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_PATIENCE_SECONDS)
        problem = WorkerLost("Its worker never told how it ended.")
        self._dispatcher.post(self._mirrors.close, problem)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work[0](*work[1])
            except Exception:
                logger.exception("A request of a worker failed.")

    def _answer(self, worker: str, number: int, answer: Any) -> None:
        self._tell(worker, (ANSWER, number, answer))

    def _tell(self, worker: str, word: tuple[Any, ...]) -> None:
        self._dispatcher.engine.tell(worker, pickle.dumps((self.header, word), 5))

    def _tell_number(self, worker: str, number: int, key: bytes, again: bool = True) -> None:
        run = self._known.get(key)
        found = self._mirrors.number_of(key) if run is None else run.number
        if found is None and again:
            # Its submission is in the queue.
            self._later(self._tell_number, worker, number, key, False)
        else:
            self._answer(worker, number, found or 0)

    def _run_that_is_open(self, key: bytes) -> TaskRun | None:
        cargo = self._dispatcher.open.get(key)
        run = None if cargo is None else cargo.run
        # A value that is made again has a stand-in there, which is no task run.
        return run if isinstance(run, TaskRun) else None

    def _look_at(self, key: bytes) -> None:
        run = self._known.get(key)
        if run is not None:
            run.look_at()

    def _cancel(self, worker: str, number: int, key: bytes) -> None:
        run = self._known.get(key)
        self._answer(worker, number, run is not None and self._live.cancel(run))

    def _tell_parameters(self, worker: str, number: int) -> None:
        """Answer with the parameters of the flow run, each packed on its own."""
        given = self._live.flow_run.parameters
        packed = {name: self._packed(name, value) for name, value in given.items()}
        self._answer(worker, number, packed)

    def _packed(self, name: str, value: Any) -> tuple[Any, ...]:
        try:
            return "value", tuple(whole(value, name))
        except Exception as exc:
            return "state", state_to_record(exception_to_crashed_state(exc))

    def _watch(self, worker: str, key: bytes) -> None:
        run = self._known.get(key)
        if run is not None:
            self._live.when_over(run, lambda run: self._tell_end(worker, run))
            return
        unknown = CrashedRun("The flow run knows no such task run: its future is of another one.")
        self._tell(worker, (END, key, self._outcome(exception_to_crashed_state(unknown))))

    def _submit(
        self,
        worker: str,
        parent_key: bytes | None,
        code: str,
        wanted: list[tuple[bytes, bytes]],
        large: dict[str, bytes],
        waited: tuple[tuple[bytes | None, Any, bool], ...],
        options: bytes | None,
        tags: frozenset[str],
        log_prints: bool,
    ) -> None:
        def enter() -> None:
            current_tags.set(tags)
            current_run.set(self._parent(parent_key, log_prints))
            given = None if options is None else pickle.loads(options)
            given_elsewhere.set((type(self._dispatcher.engine), given))

        try:
            task = self._task_of(code)
            context = Context()
            context.run(enter)
        except Exception as exc:
            for key, _ in wanted:
                self._tell_problem(worker, key, exc)
            return
        awaited = self._awaited(waited)
        known: dict[Any, Any] = {}
        memo: dict[int, Any] = {}

        def submit(key: bytes, data: bytes) -> None:
            values = unpack(data, large, self.resolve, known=known)
            args, kwargs = task.signature.call_arguments(values)
            run = self._live.submit_after(task, args, kwargs, awaited, key, memo)
            self._known[key] = run
            self._live.when_over(run, lambda run: self._tell_end(worker, run, key))

        for key, data in wanted:
            try:
                context.copy().run(submit, key, data)
            except Exception as exc:
                self._tell_problem(worker, key, exc)

    def _parent(self, key: bytes | None, log_prints: bool) -> Any:
        """Give the run in which a request was made."""
        if key is None:
            return self._live.flow_run
        run = self._mirrors.run_of(key)
        if run is not None:
            return run
        parent = TaskRun(self._live.flow, key, 0)
        parent.live, parent.recorder = self._live, self._live.recorder
        parent.log_prints = log_prints
        return parent

    def _task_of(self, digest: str) -> Any:
        task = self._tasks.get(digest)
        if task is None:
            task = self._tasks[digest] = unpack_code(self._codes[digest], self.resolve)
            del self._codes[digest]
        return task

    def _awaited(self, waited: tuple[tuple[bytes | None, Any, bool], ...]) -> Found | None:
        listed: list[Any] = []
        for key, told, allowed in waited:
            if key is not None and key not in self._known:
                continue
            dependency: Any = _state_told(*told) if key is None else TaskFuture(self._known[key])
            listed.append(allow_failure(dependency) if allowed else dependency)
        return find((listed,)) if listed else None

    def resolve(self, token: Any) -> Any:
        """Give the future that a placeholder stands for. Thread-safe."""
        kind, what = token
        if what not in self._known:
            self._catch_up()
        if kind != "future" or what not in self._known:
            raise KeyError(f"There is no task run {what!r} here.")
        return TaskFuture(self._known[what])

    def _catch_up(self) -> None:
        """Wait until what has been asked for so far is done: the submission of a run, perhaps."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            done: SimpleQueue[Any] = SimpleQueue()
            self._later(done.put, True)
            take(done, _PATIENCE_SECONDS)

    def _tell_end(self, worker: str, run: TaskRun, key: bytes | None = None) -> None:
        """Tell a worker how a run ended that it waits for."""
        state = run.outcome
        assert state is not None
        if self._is_elsewhere(state):
            # It has to be fetched from another engine first, which takes its time.
            self._later(self._tell_value, worker, key or run.key, state)
        else:
            self._tell_value(worker, key or run.key, state)

    def _tell_value(self, worker: str, key: bytes, state: State) -> None:
        self._tell(worker, (END, key, self._outcome(state)))

    def _is_elsewhere(self, state: State) -> bool:
        """Tell whether a value is kept on an engine where this one's workers cannot get it."""
        fetch = state.fetch if isinstance(state, ArrivedState) else None
        return fetch is not None and fetch.engine is not self._dispatcher.engine

    def _tell_problem(self, worker: str, key: bytes, exc: Exception) -> None:
        """Tell a worker that what it wanted to be submitted could not be."""
        self._tell(worker, (END, key, ("state", state_to_record(exception_to_crashed_state(exc)))))

    def _outcome(self, state: State) -> tuple[Any, ...]:
        if state.type is not StateType.COMPLETED:
            return ("state", state_to_record(state))
        try:
            if isinstance(state, ArrivedState) and not self._is_elsewhere(state):
                value = state.value
            else:
                value = whole(fetched(state))
        except Exception as exc:
            # It was made in this process, and cannot leave it.
            return ("state", state_to_record(exception_to_crashed_state(exc)))
        return ("value", tuple(value), state.at, state.special_name, state.message)


def _state_told(
    type: str, name: str | None, message: str | None, at: int, run_key: bytes | None
) -> State:
    return State(StateType(type), name, message, at, run_key=run_key)
