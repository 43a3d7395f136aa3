"""TaskFuture, and waiting for several: `wait`, `wait_async`, `as_completed`."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from penstock.annotations import Dependency
from penstock.errors import InvalidOptionError, ParameterTypeError
from penstock.runs import TaskRun
from penstock.runtime.upstreams import bring
from penstock.runtime.waiting import await_signal, block_until, steps_until, wait_for_run
from penstock.states import State, StateType, failure_of

T = TypeVar("T")
_ENDED_BADLY = frozenset({StateType.FAILED, StateType.CRASHED})


class TaskFuture(Dependency, Generic[T]):
    """What stands for the outcome of a submitted task run. Thread-safe.

    In synchronous code ask it for its `result()`; in asynchronous code `await` it. Passed to
    another task it makes that one wait for this one, and arrives there as the value.

    Example:
        >>> from penstock import flow, task
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> @flow
        ... def total():
        ...     return double.submit(double.submit(1)).result()
        >>> total()
        4
    """

    __slots__ = ("__weakref__", "_run")

    def __init__(self, run: TaskRun) -> None:
        self._run = run

    @property
    def name(self) -> str:
        """The name of the task run."""
        return self._run.name

    @property
    def key(self) -> UUID:
        """The id of the task run."""
        return self._run.id

    @property
    def task_run(self) -> TaskRun:
        """The task run itself: its id, name, tags, attempt, state."""
        return self._run

    @property
    def state(self) -> State:
        """The current state. Reading it once it is final counts as looking at a failure."""
        if self._run.outcome is not None:
            self._run.look_at()
        return self._run.state

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> T:
        """Give the value, waiting for it.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.
            raise_on_failure: False gives the exception instead of raising it.

        Raises:
            TimeoutError: the run had not ended in time. It goes on.
            BlockingWaitError: this thread runs the loop that must produce the value: `await` it.
            DeadlockError: the awaited run waits, in the end, for the run that asks.
        """
        if self._run.outcome is None and not wait_for_run(self._run, timeout):
            raise TimeoutError(
                f"Task run {self.name!r} had no result within {timeout} seconds; "
                f"its state is {self._run.state}."
            )
        return self._told(raise_on_failure)

    def wait(self, timeout: float | None = None) -> State | None:
        """Give the final state, waiting for it; None when the timeout passed first."""
        if self._run.outcome is None and not wait_for_run(self._run, timeout):
            return None
        self._run.look_at()
        return self._run.outcome

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Give what `result` would raise, waiting for it; None for a value.

        Raises:
            TimeoutError: the run had not ended in time.
        """
        if self._run.outcome is None and not wait_for_run(self._run, timeout):
            raise TimeoutError(f"Task run {self.name!r} had not ended in {timeout} seconds.")
        state = self._outcome()
        return None if state.type is StateType.COMPLETED else failure_of(state)

    def done(self) -> bool:
        """Tell whether nothing more will happen to the run."""
        return self._run.outcome is not None

    def cancel(self) -> bool:
        """Cancel the run; tell whether it is or will be cancelled.

        What has not started never starts. What runs is stopped where that is possible: async
        tasks at their next await, threads at their next bytecode.
        """
        cancelled: bool = self._run.live.cancel(self._run)
        return cancelled

    def cancelled(self) -> bool:
        """Tell whether the run ended CANCELLED."""
        outcome = self._run.outcome
        return outcome is not None and outcome.type is StateType.CANCELLED

    def add_done_callback(self, function: Callable[[TaskFuture[T]], object]) -> None:
        """Call a function with this future once it is done; at once if it is.

        The function is called in the thread that ends the run and should be quick. What it
        raises is logged.
        """
        self._run.live.when_over(self._run, lambda run: function(self))

    def __await__(self) -> Generator[Any, None, T]:
        if self._run.outcome is None:
            yield from steps_until(self._run)
        if not self._run.outcome.is_at_hand:  # type: ignore[union-attr]
            yield from bring([self]).__await__()
        return self._told(True)

    def __bool__(self) -> bool:
        warnings.warn(
            "A TaskFuture is always true. Ask for its result() to test the value.",
            UserWarning,
            stacklevel=2,
        )
        return True

    def __repr__(self) -> str:
        return f"<TaskFuture {self.name!r} {self._run.state}>"

    def _repr_html_(self) -> str:
        return self._run._repr_html_()

    def _outcome(self) -> State:
        self._run.look_at()
        outcome = self._run.outcome
        assert outcome is not None
        return outcome

    def _told(self, raise_on_failure: bool) -> T:
        outcome = self._run.outcome
        assert outcome is not None
        if outcome.type is StateType.COMPLETED:
            value: T = outcome.data
            return value
        self._run.look_at()
        failed: T = outcome.result(raise_on_failure)
        return failed


class FutureList(list[TaskFuture[T]]):
    """The futures of a `map`, in the order of what was mapped."""

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[T]:
        """Give the values in order, waiting for all of them.

        Args:
            timeout: seconds to wait at most for all of them together.
            raise_on_failure: False gives exceptions in the place of values.

        Raises:
            TimeoutError: not all had ended in time.
        """
        deadline = None if timeout is None else monotonic() + timeout
        return [future.result(_left(deadline), raise_on_failure) for future in self]

    def wait(self, timeout: float | None = None) -> DoneAndNotDone[T]:
        """Wait for all of them; see `penstock.wait`."""
        return wait(self, timeout)


class DoneAndNotDone(NamedTuple, Generic[T]):
    """What `wait` gives: two sets."""

    done: set[TaskFuture[T]]
    not_done: set[TaskFuture[T]]


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - monotonic())


def _distinct(futures: Iterable[TaskFuture[T]]) -> list[TaskFuture[T]]:
    """List futures, each once, in their order."""
    if isinstance(futures, TaskFuture) or not isinstance(futures, Iterable):
        raise ParameterTypeError(f"Give a list of futures, not {futures!r}.")
    distinct = list(dict.fromkeys(futures))
    for future in distinct:
        if not isinstance(future, TaskFuture):
            raise ParameterTypeError(f"Only futures can be waited for, not {future!r}.")
    return distinct


class _Watch:
    """Watches futures until enough of them are done, then calls `ring` once."""

    def __init__(
        self, futures: Iterable[TaskFuture[Any]], return_when: str, ring: Callable[[], object]
    ) -> None:
        if return_when not in ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"):
            raise InvalidOptionError(
                f"return_when is {return_when!r}; it must be 'ALL_COMPLETED', "
                "'FIRST_COMPLETED' or 'FIRST_EXCEPTION'."
            )
        self.futures = _distinct(futures)
        self._return_when = return_when
        self._ring = ring
        # list.pop is atomic: whoever takes the last token knows that all are done.
        self._tokens = [None] * len(self.futures)
        if not self.futures:
            ring()
        for future in self.futures:
            future._run.live.when_over(future._run, self._arrive)

    def _arrive(self, run: TaskRun) -> None:
        self._tokens.pop()
        badly = run.outcome is not None and run.outcome.type in _ENDED_BADLY
        if (
            not self._tokens
            or self._return_when == "FIRST_COMPLETED"
            or (badly and self._return_when == "FIRST_EXCEPTION")
        ):
            self._ring()

    def split(self) -> DoneAndNotDone[Any]:
        done = {future for future in self.futures if future.done()}
        return DoneAndNotDone(done, set(self.futures) - done)


def wait(
    futures: Iterable[TaskFuture[T]],
    timeout: float | None = None,
    return_when: str = "ALL_COMPLETED",
) -> DoneAndNotDone[T]:
    """Block until futures are done. It does not look at failures.

    Args:
        futures: what to wait for.
        timeout: seconds to wait at most; None waits as long as it takes.
        return_when: "ALL_COMPLETED", "FIRST_COMPLETED" or "FIRST_EXCEPTION" (a run that failed
            or crashed).

    Returns:
        A named tuple `(done, not_done)` of sets.
    """
    bell: SimpleQueue[None] = SimpleQueue()
    watch = _Watch(futures, return_when, lambda: bell.put(None))
    block_until(bell, [future._run for future in watch.futures], timeout)
    return watch.split()


async def wait_async(
    futures: Iterable[TaskFuture[T]],
    timeout: float | None = None,
    return_when: str = "ALL_COMPLETED",
) -> DoneAndNotDone[T]:
    """Wait for futures without blocking the loop; otherwise like `wait`."""
    signal = await_signal()
    watch = _Watch(futures, return_when, signal.ring)
    await signal.wait([future._run for future in watch.futures], timeout)
    return watch.split()


class as_completed(Generic[T]):
    """Iterate over futures in the order in which they end, with `for` or `async for`.

    It does not look at failures.

    Args:
        futures: what to iterate over; each is given once.
        timeout: seconds from now that all of them may take.

    Raises:
        TimeoutError: while iterating, when the time is over.
    """

    def __init__(self, futures: Iterable[TaskFuture[T]], timeout: float | None = None) -> None:
        self._futures = _distinct(futures)
        self._deadline = None if timeout is None else monotonic() + timeout
        self._timeout = timeout

    def __iter__(self) -> Iterator[TaskFuture[T]]:
        ended: SimpleQueue[TaskFuture[T]] = SimpleQueue()
        open_futures = dict.fromkeys(self._futures)
        for future in self._futures:
            future.add_done_callback(ended.put)
        while open_futures:
            runs = [future._run for future in open_futures]
            first = block_until(ended, runs[:1], _left(self._deadline))
            if first is None:
                raise self._too_late(len(open_futures))
            del open_futures[first]
            yield first

    async def __aiter__(self) -> AsyncIterator[TaskFuture[T]]:
        ended: SimpleQueue[TaskFuture[T]] = SimpleQueue()
        signal = await_signal()

        def arrive(future: TaskFuture[T]) -> None:
            ended.put(future)
            signal.ring()

        for future in self._futures:
            future.add_done_callback(arrive)
        left = len(self._futures)
        while left:
            with suppress(Empty):
                yield ended.get_nowait()
                left -= 1
                continue
            if not await signal.wait([], _left(self._deadline)) and ended.empty():
                raise self._too_late(left)

    def _too_late(self, left: int) -> TimeoutError:
        return TimeoutError(
            f"{left} of {len(self._futures)} futures had not ended in {self._timeout} seconds."
        )
