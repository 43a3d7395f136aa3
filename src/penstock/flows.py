"""`@flow`: a function whose runs are recorded, with everything that its tasks do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from hashlib import blake2b
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from penstock.core.callables import Decorated, described
from penstock.core.retries import RetryPolicy
from penstock.core.signatures import callable_name
from penstock.options import (
    Hook,
    checked_flag,
    checked_hooks,
    checked_name,
    checked_results,
    checked_runner,
    checked_template,
    checked_text,
    checked_timeout,
    refuse_unknown,
)
from penstock.runtime.flow_calls import as_task, call_flow
from penstock.runtime.futures import FutureList, TaskFuture
from penstock.runtime.resuming import Wish, resume_flow
from penstock.states import State, StateType
from penstock.task_runners.base import BaseTaskRunner
from penstock.task_runners.concurrent import ConcurrentTaskRunner
from penstock.tasks import Task

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

__all__ = ["Flow", "flow"]


class Flow(Decorated, Generic[P, R]):
    """A function as a flow: calling it makes a recorded flow run.

    Made by `@flow`, which documents the options.

    Attributes:
        fn: the plain function.
        name: the name of the flow.
        task_runner: the runner that its runs use duplicates of; may be reassigned.
        version: given, else a digest of the function's source file.
    """

    tags: frozenset[str] = frozenset()
    task_run_name = None
    retry_condition_fn = None
    priority = 0
    # The task run that stands for a subflow has no hooks: the flow run has.
    hooks: dict[Any, Any] = {}

    def __init__(self, fn: Callable[P, R], **options: Any) -> None:
        super().__init__(fn, "@flow")
        self.options = options
        self._apply(**options)

    def _apply(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        task_runner: Any = None,
        retries: int = 0,
        retry_delay_seconds: Any = 0,
        timeout_seconds: float | None = None,
        validate_parameters: bool = True,
        persist_result: bool | None = None,
        result_storage: Any = None,
        result_serializer: Any = None,
        log_prints: bool | None = None,
        flow_run_name: str | Callable[[], str] | None = None,
        on_running: Any = None,
        on_completion: Any = None,
        on_failure: Any = None,
        on_crashed: Any = None,
        on_cancellation: Any = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown("@flow", **unknown)
        self.name = checked_name(name, callable_name(self.fn), "flow")
        self.description = checked_text("description", description, described(self.fn))
        self._version = checked_text("version", version)
        self.task_runner = task_runner
        self.retry_policy = RetryPolicy(retries, retry_delay_seconds)
        self.timeout_seconds = checked_timeout(timeout_seconds)
        self.validate_parameters = checked_flag("validate_parameters", validate_parameters)
        self.results = checked_results(persist_result, result_storage, result_serializer)
        self.log_prints = checked_flag("log_prints", log_prints)
        self.flow_run_name = checked_template("flow_run_name", flow_run_name, self.parameter_names)
        self.flow_hooks = checked_hooks(
            {
                StateType.RUNNING: on_running,
                StateType.COMPLETED: on_completion,
                StateType.FAILED: on_failure,
                StateType.CRASHED: on_crashed,
                StateType.CANCELLED: on_cancellation,
            }
        )

    @property
    def task_runner(self) -> BaseTaskRunner:
        """The runner that flow runs use duplicates of; takes an instance, a class or None."""
        return self._task_runner

    @task_runner.setter
    def task_runner(self, runner: BaseTaskRunner | type[BaseTaskRunner] | None) -> None:
        self._task_runner = checked_runner(runner) or ConcurrentTaskRunner()

    @property
    def version(self) -> str | None:
        """The version: given, else a digest of the function's source file."""
        if self._version is None:
            self._version = _source_digest(self.fn)
        return self._version

    @property
    def retries(self) -> int:
        """How many further attempts may follow a failed first one."""
        return self.retry_policy.retries

    def with_options(self, **options: Any) -> Flow[P, R]:
        """Copy the flow with other options; what is not given stays, None and 0 count as given.

        Example:
            >>> @flow(retries=2)
            ... def report(): ...
            >>> report.with_options(name="daily").retries
            2
        """
        kept = {**self.options, "task_runner": self.task_runner}
        return type(self)(self._source, **{**kept, **options})

    # A State, or a coroutine that gives one: which, cannot be told of an unannotated function.
    @overload
    def __call__(
        self, /, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> Any: ...
    @overload
    def __call__(
        self, /, *args: Any, return_state: Literal[False] = False, wait_for: Any, **kwargs: Any
    ) -> R: ...
    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def __call__(  # type: ignore[misc]
        self, /, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any
    ) -> Any:
        """Run the flow: give its result or raise its failure; a coroutine for an async flow.

        Args:
            return_state: give the final State instead, and raise nothing but interrupts.
            wait_for: futures that must have completed first.

        Raises:
            ParameterBindError: the arguments do not fit the function.
            HistoryError: the history cannot be written.
        """
        return call_flow(self, args, kwargs, return_state, wait_for)

    def resume(
        self,
        run: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        rerun_changed: bool = False,
        steal: bool = False,
        return_state: bool = False,
    ) -> Any:
        """Continue a run of this flow that did not complete.

        The flow function runs again from the top; task runs that completed and were kept are not
        run again. The runner may be another one than before.

        Args:
            run: an id, a unique prefix, a run name, `@last` or `@last-failed`.
            parameters: arguments to use instead of those the run was called with, by name. What
                was not kept, such as secrets, has to be given again.
            rerun_changed: run completed task runs again whose code has changed since.
            steal: take the run over also from a process that is still there, once it has shown
                no life for 10 seconds.
            return_state: give the final State instead, and raise nothing but interrupts.

        Returns:
            The result of the flow; of a run that has completed already, the kept one. A coroutine
            for an async flow.

        Raises:
            RunNotFound, AmbiguousRun: there is no such run, or more than one.
            LeaseHeld: another process drives it.
            ResumeError: it is no run of this flow, or an argument is missing. Nothing was changed.
        """
        wish = Wish(parameters or {}, rerun_changed, steal, return_state)
        return resume_flow(self, run, wish)

    @overload
    def submit(
        self, /, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> State: ...
    @overload
    def submit(
        self: Flow[P, Coroutine[Any, Any, T]], /, *args: Any, wait_for: Any = None, **kwargs: Any
    ) -> TaskFuture[T]: ...
    @overload
    def submit(self, /, *args: Any, wait_for: Any = None, **kwargs: Any) -> TaskFuture[R]: ...
    def submit(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the flow as a task of the current flow's runner; see `Task.submit`."""
        return self._as_task().submit(*args, **kwargs)

    @overload
    def map(
        self, /, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> list[State]: ...
    @overload
    def map(
        self: Flow[P, Coroutine[Any, Any, T]], /, *args: Any, wait_for: Any = None, **kwargs: Any
    ) -> FutureList[T]: ...
    @overload
    def map(self, /, *args: Any, wait_for: Any = None, **kwargs: Any) -> FutureList[R]: ...
    def map(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the flow once for each element, as tasks of the current flow's runner."""
        return self._as_task().map(*args, **kwargs)

    def _as_task(self) -> Task[Any, Any]:
        return SubflowTask(self)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Flow[P, R]: ...
    @overload
    def __get__(
        self: Flow[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> Flow[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return super().__get__(instance, owner)

    def __repr__(self) -> str:
        return f"<Flow {self.name!r} of {self.key}>"


class SubflowTask(Task[Any, Any]):
    """A flow as a task: its task run is the one that stands for the flow run."""

    def __init__(self, flow: Flow[Any, Any]) -> None:
        # The flow run keeps its result itself.
        super().__init__(flow.fn, name=flow.name, persist_result=False)
        # What it closes over counts as it was when the flow was decorated.
        self.held = flow.held
        self.fn = as_task(flow)


def _source_digest(fn: Any) -> str | None:
    """Give a digest of the file that a function was defined in; None when there is none."""
    fn = getattr(fn, "func", fn)
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    if code is None:
        return None
    try:
        with open(code.co_filename, "rb") as file:
            return blake2b(file.read(), digest_size=8).hexdigest()
    except OSError:
        return None


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    task_runner: Any = None,
    retries: int = 0,
    retry_delay_seconds: Any = 0,
    timeout_seconds: float | None = None,
    validate_parameters: bool = True,
    persist_result: bool | None = None,
    result_storage: Any = None,
    result_serializer: Any = None,
    log_prints: bool | None = None,
    flow_run_name: str | Callable[[], str] | None = None,
    on_running: Hook | list[Hook] | None = None,
    on_completion: Hook | list[Hook] | None = None,
    on_failure: Hook | list[Hook] | None = None,
    on_crashed: Hook | list[Hook] | None = None,
    on_cancellation: Hook | list[Hook] | None = None,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(fn: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Make a function a flow.

    Args:
        fn: the function, when used without parentheses.
        name: its name; default the function's with `_` as `-`.
        description: default the function's docstring.
        version: default a digest of the source file.
        task_runner: an instance or a class; default `ConcurrentTaskRunner()`.
        retries: further attempts when the flow fails; task runs that completed are kept.
        retry_delay_seconds: a number, a list, or `exponential_backoff(factor)`.
        timeout_seconds: the longest an attempt may take.
        validate_parameters: check and convert arguments by annotation.
        persist_result: store large results of the flow and its tasks (small ones are always
            kept); default what the flow that calls it says, else the settings.
        result_storage: where: a folder, or a URL such as `s3://bucket/prefix`.
        result_serializer: how: "pickle", "json", "compressed/pickle", or one of your own.
        log_prints: record what the flow and its tasks print.
        flow_run_name: a `str.format` template on the parameters, or a callable; default two
            random words.
        on_running, on_completion, on_failure, on_crashed, on_cancellation: hooks,
            `hook(flow, flow_run, state)`, one or a list.

    Raises:
        ReservedArgumentError: the function has a parameter `return_state` or `wait_for`.
        InvalidNameError, InvalidOptionError: the text names the option and its value.

    Example:
        >>> @flow
        ... def hello(name: str = "you"):
        ...     return f"Hello {name}!"
        >>> hello()
        'Hello you!'
    """
    if fn is None:
        return lambda function: Flow(function, **options)
    return Flow(fn, **options)
