"""Recovery: values that were kept on a worker and died with it are made again when asked for.

    task run completed, value kept ──► Recipe: its packed item, and where its inputs came from
                                          │
    somebody asks, and it is lost ──► recover ──► its inputs first ──► the item is sent again
                                          │                                │
                 asked for meanwhile ─────┘         told, once it is there ◄┘

A recipe keeps no values alive: an input that nobody holds any more is made again by the recipe
of its own.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from penstock.errors import CrashedRun, EngineLost, WorkerLost
from penstock.remote.cargo import Cargo
from penstock.remote.codes import Code
from penstock.remote.messages import KEPT, Item
from penstock.remote.values import ArrivedState, Fetch, decode
from penstock.runtime.blocking import take
from penstock.runtime.upstreams import run_of, state_of
from penstock.states import State, StateType, describe_exception

if TYPE_CHECKING:
    from collections.abc import Hashable

    from penstock.remote.dispatch import Dispatcher

MOST_BYTES = 256 * 2**20
"""How much packed arguments may take, in all, for values to be made again."""
Done = Callable[[BaseException | None], Any]
logger = logging.getLogger("penstock.remote")


class Unrun(WorkerLost):
    """The engine gave up a bundle that, as far as is known, no worker had begun."""


class Source:
    """Where an input of a task run came from: a kept value, and how to make it again."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = weakref.ref(fetch)
        self._recipe: Recipe | None = fetch.recipe

    def fetch(self, engine: Any) -> Fetch:
        """Give what fetches it: the one there is, or one that has yet to be made again."""
        fetch = self._fetch()
        if fetch is None:
            fetch = engine.fetcher(None, "")
            fetch.recipe = self._recipe
            self._fetch = weakref.ref(fetch)
        return fetch


class Recipe:
    """What it takes to execute a completed task run once more.

    Attributes:
        name: the name of the task run.
        item: what travels, with the arguments as they were packed.
        sources: kept values that the arguments refer to, by name.
        given: values of task runs that travelled in the same bundle, by key.
        shared: large buffers that the arguments refer to, by digest, as far as anybody holds them.
        left: how many more executions may be lost or fail.
    """

    def __init__(self, cargo: Cargo, code: Code, options: Hashable) -> None:
        self.name = cargo.run.name
        self.item = Item(*cargo.item())
        self.code = code
        self.options = options
        self.sources = {name: Source(fetch) for name, fetch in (cargo.parts or {}).items()}
        self.given: dict[bytes, tuple[Any, ...]] = {}
        self.shared = {
            large.digest: weakref.ref(shared)
            for large, shared in zip(cargo.large, cargo.shared or (), strict=True)
        }
        self.left: int = cargo.call.task.worker_loss_retries
        if cargo.waits_for:
            self._take_given(cargo)

    def _take_given(self, cargo: Cargo) -> None:
        for dependency in cargo.call.found.dependencies:
            run = run_of(dependency)
            if run is not None and run.key in cargo.waits_for:
                state = state_of(dependency)
                assert isinstance(state, ArrivedState)
                self.given[run.key] = tuple(state.value)
                if state.fetch is not None:
                    self.sources[state.value.data] = Source(state.fetch)


class _Run:
    """Stands where a `Cargo` has its task run; the real one has ended long ago."""

    is_over = True
    custom_name = None
    started_at = changed_at = 0

    def __init__(self, recipe: Recipe) -> None:
        self.name = recipe.name
        self.key = recipe.item.key
        self.attempt = recipe.item.attempt
        self.worker: str | None = None


class _Call:
    """Stands where a `Cargo` has its call."""

    live = None

    def __init__(self, run: _Run) -> None:
        self.task_run = run


class Recovery(Cargo):
    """A value that is being made again."""

    __slots__ = ("done", "fetch", "missing", "problem", "recipe")

    def __init__(self, fetch: Fetch, recipe: Recipe, done: Done) -> None:
        super().__init__(_Call(_Run(recipe)))
        self.fetch = fetch
        self.recipe = recipe
        self.done = [done]
        self.missing = 0
        self.problem: BaseException | None = None
        self.code = recipe.code
        self.data = b""

    def item(self) -> tuple[Any, ...]:
        # A name of its own for what is kept, and for the engine's own task.
        item = self.recipe.item._replace(
            attempt=self.run.attempt, is_suspect=self.is_suspect, waits_for=()
        )
        return tuple(item)


class _Held:
    """How many bytes recipes hold."""

    bytes = 0

    def release(self, size: int) -> None:
        self.bytes -= size


class Recoveries:
    """Makes lost values again for one dispatcher, in its thread."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._going_on: dict[Fetch, Recovery] = {}
        self._held = _Held()

    def note(self, cargo: Cargo, fetch: Fetch) -> None:
        """Remember how a value was made that a worker keeps."""
        code, size = cargo.code, cargo.size
        if code is None or self._held.bytes + size > MOST_BYTES or isinstance(cargo, Recovery):
            return
        options = cargo.options
        recipe = fetch.recipe = Recipe(cargo, code, options)
        self._held.bytes += size
        # Not a method of this object: what it refers to would keep the recipe, and stay for ever.
        weakref.finalize(recipe, self._held.release, size).atexit = False

    def holds_up(self, cargo: Cargo) -> bool:
        """Tell whether arguments of a call are lost; it goes on once they have been made again."""
        if not cargo.parts:
            return False
        parts = cargo.parts.values()
        lost = [fetch for fetch in parts if isinstance(fetch, Fetch) and fetch.is_lost]
        missing = len(lost)

        def arrived(problem: BaseException | None) -> None:
            nonlocal missing
            missing -= 1
            if problem is not None and not cargo.is_over:
                missing = -1
                self._dispatcher.crash(cargo, problem)
            elif missing == 0:
                self._dispatcher.again(cargo)

        for fetch in lost:
            self.recover(fetch, arrived)
        return bool(lost)

    def wait_for(self, fetch: Fetch) -> None:
        """Block until a kept value that was lost has been made again. From any other thread.

        Raises:
            CrashedRun: it cannot be.
        """
        why_not = self._dispatcher.refuses_to_block()
        if why_not is not None:
            raise CrashedRun(f"A value is lost: the worker that kept it has died, and {why_not}.")
        answers: SimpleQueue[tuple[BaseException | None]] = SimpleQueue()
        self._dispatcher.post(self.recover, fetch, lambda problem: answers.put((problem,)))
        answer = take(answers)
        if answer is not None and answer[0] is not None:
            raise answer[0]

    def recover(self, fetch: Fetch, done: Done) -> None:
        """See that a kept value is there, making it again if it is lost.

        Args:
            done: called with None once it is there, or with why it cannot be.
        """
        recovery = self._going_on.get(fetch)
        if recovery is not None:
            recovery.done.append(done)
            return
        problem: BaseException | None = None
        if fetch.is_lost:
            recipe = fetch.recipe
            problem = self._dispatcher.failure or _refusal(recipe)
            if problem is None and recipe is not None:
                self._begin(Recovery(fetch, recipe, done))
                return
        done(problem)

    def _begin(self, recovery: Recovery) -> None:
        recipe, fetch = recovery.recipe, recovery.fetch
        self._going_on[fetch] = recovery
        recipe.left -= 1
        logger.warning(
            "The value of task run %r was lost with the worker that kept it: it is executed again.",
            recipe.name,
        )
        self._gather(recovery)

    def _gather(self, recovery: Recovery) -> None:
        """See that the inputs are there, then send it."""
        recipe, engine = recovery.recipe, self._dispatcher.engine
        parts = {name: source.fetch(engine) for name, source in recipe.sources.items()}
        for digest, shared in recipe.shared.items():
            held = shared()
            if held is None or held.is_lost:
                self._end(recovery, _beyond(recipe.name, "a large argument of it is gone, too"))
                return
            parts[digest] = held
        recovery.parts = parts
        fetches = [parts[name] for name in recipe.sources]
        # One more than there are: what is there already answers at once.
        recovery.missing = len(fetches) + 1
        for fetch in fetches:
            self.recover(fetch, partial(self._arrived, recovery))
        self._arrived(recovery, None)

    def _arrived(self, recovery: Recovery, problem: BaseException | None) -> None:
        recovery.problem = recovery.problem or problem
        recovery.missing -= 1
        if recovery.missing:
            return
        if recovery.problem is not None:
            self._end(recovery, recovery.problem)
        elif self._dispatcher.failure is not None:
            self._end(recovery, self._dispatcher.failure)
        else:
            recovery.run.attempt += 1
            self._dispatcher.send_alone(recovery, recovery.recipe.options, recovery.recipe.given)

    def ended(self, recovery: Recovery, state: State) -> None:
        """Take how the execution ended."""
        fetch = recovery.fetch
        if state.type is not StateType.COMPLETED:
            problem = state.result(raise_on_failure=False)
            self._failed(recovery, describe_exception(problem))
            return
        assert isinstance(state, ArrivedState)
        if state.value.place == KEPT:
            assert state.fetch is not None
            fetch.native, fetch.worker = state.fetch.native, state.fetch.worker
        else:
            # It has become small: what refers to it expects it on the engine.
            fetch.native = self._dispatcher.engine.put(decode(state.value))
        self._end(recovery, None)

    def lost(self, recovery: Recovery, problem: BaseException) -> None:
        """Take that the execution was lost, or that it was not begun."""
        recovery.bundle = None
        if isinstance(problem, EngineLost):
            self._end(recovery, problem)
        elif recovery.was_started:
            self._failed(recovery, str(problem))
        else:
            recovery.losses += 1
            recovery.is_suspect = True
            if recovery.losses > self._dispatcher.most_losses:
                self._end(recovery, problem)
            else:
                self._gather(recovery)

    def _failed(self, recovery: Recovery, said: str) -> None:
        recipe = recovery.recipe
        if recipe.left <= 0:
            self._end(recovery, _beyond(recipe.name, f"executing it again failed: {said}"))
            return
        recipe.left -= 1
        recovery.is_suspect = True
        self._gather(recovery)

    def fail(self, problem: BaseException) -> None:
        """Give everything up: the engine is gone."""
        for recovery in list(self._going_on.values()):
            self._end(recovery, problem)

    def _end(self, recovery: Recovery, problem: BaseException | None) -> None:
        self._going_on.pop(recovery.fetch, None)
        # Inputs that were only made for it are released.
        recovery.parts = None
        for done in recovery.done:
            done(problem)


def _refusal(recipe: Recipe | None) -> BaseException | None:
    if recipe is None:
        return CrashedRun(
            "A value is lost: the worker that kept it has died, and what it takes to make it "
            "again was too much to be remembered. Run the flow again."
        )
    if recipe.left <= 0:
        return _beyond(recipe.name, "its `worker_loss_retries` are used up")
    return None


def _beyond(name: str, why: str) -> BaseException:
    problem = CrashedRun(
        f"The value of task run {name!r} is lost: the worker that kept it has died, and {why}. "
        "Run the flow again."
    )
    problem.__cause__ = WorkerLost("The worker that kept the value has died.")
    return problem
