"""The contract of task runners, for those here and for third parties.

A minimal runner has `concurrency_type`, `submit` and `wait`. What follows them in
`BaseTaskRunner` is optional: an engine overrides it to be fast, and the defaults work.
"""

from __future__ import annotations

import abc
import enum
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from typing import Any, Protocol, Self
from uuid import UUID

from penstock.core.resources import said
from penstock.errors import ResourceError, TaskRunnerError
from penstock.states import State, exception_to_crashed_state
from penstock.task_runners.slots import Slot

_MISSING: Any = object()
NO_TICKET: list[None] = []
"""The `ticket` of a call that is in no queue. Never filled."""


class TaskConcurrencyType(enum.StrEnum):
    """How the task runs of a runner relate in time."""

    SEQUENTIAL = "SEQUENTIAL"
    CONCURRENT = "CONCURRENT"
    PARALLEL = "PARALLEL"


class Loop(Protocol):
    """The event loop of a flow run, usable from any thread."""

    def runs_here(self) -> bool:
        """Tell whether the calling thread is the one that runs the loop."""

    def current_task(self) -> Any:
        """Give the asyncio task that runs in this thread, None when there is none."""

    def spawn(
        self,
        function: Callable[..., Coroutine[Any, Any, None]],
        *arguments: Any,
        context: Context | None = None,
        keeps_itself: bool = False,
    ) -> None:
        """Start a coroutine function on the loop; many calls cost one wake-up.

        Args:
            keeps_itself: somebody else refers to the asyncio task while it runs.
        """

    def run(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function on the loop and block until it has ended."""


class Call(Protocol):
    """One attempt of a task run, ready to be executed.

    Awaiting `call()` executes it anywhere and gives its State. An in-process runner may
    instead use the quicker forms: `run()` for synchronous work, `arun()` for asynchronous.
    """

    slot: Slot | None
    ticket: list[None]
    """For queues: holds something while the call waits in one."""
    number: int
    """For queues: the place in the order of arrival."""
    cargo: Any
    """Whatever the runner keeps with the call; None at first."""

    @property
    def key(self) -> UUID:
        """What `submit` and `wait` know the attempt by."""

    @property
    def resources(self) -> Mapping[str, float]:
        """What a run of the task takes, by name; memory in bytes."""

    @property
    def is_async(self) -> bool:
        """Whether the task's function is asynchronous."""

    @property
    def priority(self) -> int:
        """Larger runs sooner."""

    @property
    def loop(self) -> Loop:
        """The event loop for asynchronous work."""

    @property
    def context(self) -> Context:
        """The context variables to execute it with."""

    def __call__(self) -> Awaitable[State]: ...

    def run(self) -> None:
        """Execute a synchronous task here and report its end."""

    async def arun(self) -> None:
        """Execute the task on the running loop and report its end."""

    def finished(self, state: State) -> None:
        """Report how the attempt ended. Thread-safe; called once."""


class BaseTaskRunner(abc.ABC):
    """Place task runs on an engine.

    A runner is started for one flow run at a time, by `async with runner.start()`. Every flow
    run uses a `duplicate()`, so that the settings can be shared and the live part cannot.

    Example:
        A runner on plain asyncio tasks::

            class AsyncioTaskRunner(BaseTaskRunner):
                def __init__(self):
                    super().__init__()
                    self.tasks = {}

                @property
                def concurrency_type(self):
                    return TaskConcurrencyType.CONCURRENT

                async def submit(self, key, call):
                    self.tasks[key] = asyncio.create_task(call())

                async def wait(self, key, timeout=None):
                    done, _ = await asyncio.wait([self.tasks[key]], timeout=timeout)
                    return self.tasks[key].result() if done else None
    """

    suspends: bool = True
    """Whether `start`, `submit` or `wait` may suspend. False lets a synchronous flow use the
    runner from its own thread, without an event loop."""

    runs_in_caller: bool = False
    """Whether `place` executes a synchronous call before it returns, in the calling thread."""

    runs_elsewhere: bool = False
    """Whether calls are executed outside this process. What waits for one then never executes it
    itself instead, in its own thread."""

    is_of_this_process: bool = False
    """Whether what a started runner works with is in this process or its children, so that a
    copy of it which has travelled is of no use."""

    foresees: bool = False
    """Whether the runner wants to know of calls that still wait for their upstreams."""

    _started: bool = False
    # Whether this is a copy, through pickle, of a runner that was started.
    _was_started: bool = False

    @property
    def logger(self) -> logging.Logger:
        """The logger "penstock.task_runner.<name>"."""
        return logging.getLogger(f"penstock.task_runner.{self.name}")

    @property
    def name(self) -> str:
        """The class name in lower case, without "taskrunner"."""
        return type(self).__name__.lower().replace("taskrunner", "")

    @property
    @abc.abstractmethod
    def concurrency_type(self) -> TaskConcurrencyType:
        """How task runs of this runner relate in time."""

    @abc.abstractmethod
    async def submit(self, key: UUID, call: Callable[[], Awaitable[State]]) -> None:
        """Place a call and return.

        Args:
            key: what `wait` will ask for; unique for each call.
            call: gives the State in which the call ended when it is called and awaited.

        Raises:
            RuntimeError: the runner is not started.
        """

    @abc.abstractmethod
    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        """Give the final State of a submitted call.

        Never raises because the call failed: whatever the call or the engine raised is a
        CRASHED state.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            The state, or None when the timeout passed first.
        """

    @asynccontextmanager
    async def start(self) -> AsyncIterator[Self]:
        """Start the runner; leaving waits for what was submitted and releases everything.

        Raises:
            RuntimeError: the runner is already started.
        """
        if self._started:
            raise TaskRunnerError("The task runner is already started!")
        self._started = True
        try:
            async with AsyncExitStack() as exit_stack:
                await self._start(exit_stack)
                yield self
        finally:
            self._started = False

    async def _start(self, exit_stack: AsyncExitStack) -> None:
        """Open what the runner needs and push its release; override in subclasses."""

    def duplicate(self) -> Self:
        """Make a runner with the same settings and nothing running.

        The default calls the class with the attributes named like its parameters.
        """
        return type(self)(**self._constructor_arguments())

    def _constructor_arguments(self) -> dict[str, Any]:
        from inspect import Parameter, signature

        variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        names = [
            p.name for p in signature(type(self)).parameters.values() if p.kind not in variadic
        ]
        held = {name: _attribute(self, name) for name in names}
        return {name: value for name, value in held.items() if value is not _MISSING}

    def place(self, calls: Sequence[Call]) -> None:
        """Place several calls of one task at once; each reports its end by `call.finished`.

        Thread-safe, and never raises because of a call. The default submits each call and
        waits for it on the flow run's event loop.
        """
        for call in calls:
            call.loop.spawn(self._follow, call)

    def check_resources(self, task_name: str, resources: Mapping[str, float]) -> None:
        """Refuse a task that asks for more than this runner can ever give; called on submission.

        The default gives no resources.

        Args:
            resources: what a run of the task takes, by name; memory in bytes.

        Raises:
            ResourceError: the text says what the task asks for, and what there is.
        """
        raise ResourceError(
            f"Task {task_name!r} asks for {said(resources)}, but {self} gives no `resources`. "
            "Leave the option out, or run the task on another runner."
        )

    def take_back(self, call: Call) -> bool:
        """Take back a placed call that has not started; tell whether that succeeded."""
        return False

    def holders(self, call: Call) -> Sequence[Call]:
        """Give the calls that hold something of what a call which has not started asks for."""
        return ()

    def fits_beside(self, call: Call, holders: Sequence[Call]) -> bool:
        """Tell whether a call could start although some of the holders never end."""
        return True

    def foresee(self, call: Call) -> None:
        """Take note of a call whose upstreams have not settled; called if `foresees` is set.

        It may be sent along with its upstreams. It is placed like any other once they have.
        """

    def is_away(self, call: Call) -> bool:
        """Tell whether a call is where it may start without anybody here knowing."""
        return False

    def recall(self, call: Call) -> None:
        """Have a placed call end CANCELLED if it has not started, wherever it is by now."""

    def interrupt(self, call: Call) -> None:
        """Have a placed call stopped, if that is possible; its run has ended already."""

    async def _follow(self, call: Call) -> None:
        try:
            await self.submit(call.key, call)
            state = await self.wait(call.key)
            if not isinstance(state, State):
                raise TaskRunnerError(
                    f"{self}.wait gave {state!r} instead of the State of a call that has ended."
                )
        except BaseException as exc:
            call.finished(exception_to_crashed_state(exc))
            if not isinstance(exc, Exception):
                raise
            return
        call.finished(state)

    def _require_started(self) -> None:
        if self._started:
            return
        if self._was_started and self.is_of_this_process:
            raise TaskRunnerError(
                f"The {self.name} task runner cannot be used to submit work after serialization."
            )
        raise TaskRunnerError("The task runner must be started before submitting work.")

    def __reduce__(self) -> tuple[Any, ...]:
        # What runs stays here: only the settings travel.
        return _rebuild, (type(self), self._constructor_arguments(), self._started)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _settings(self) == _settings(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __str__(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        settings = _settings(self).items()
        given = ", ".join(f"{name}={value!r}" for name, value in settings if value != {})
        return f"{type(self).__name__}({given})"


def _attribute(runner: BaseTaskRunner, name: str) -> Any:
    return getattr(runner, name, getattr(runner, f"_{name}", _MISSING))


def _rebuild(
    kind: type[BaseTaskRunner], arguments: dict[str, Any], was_started: bool
) -> BaseTaskRunner:
    runner = kind(**arguments)
    runner._was_started = was_started
    return runner


def _settings(runner: BaseTaskRunner) -> dict[str, Any]:
    """Give the public attributes: what makes two runners equal."""
    return {name: value for name, value in vars(runner).items() if not name.startswith("_")}
