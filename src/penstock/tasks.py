"""`@task`: a function whose executions are placed, retried and recorded."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from penstock.annotations import Dependency, allow_failure
from penstock.core.callables import Decorated, described
from penstock.core.mapping import list_arguments, zip_arguments
from penstock.core.resources import checked_resources
from penstock.core.retries import RetryPolicy, exponential_backoff
from penstock.core.signatures import callable_name
from penstock.errors import OutsideFlowError
from penstock.options import (
    Hook,
    checked_caching,
    checked_flag,
    checked_function,
    checked_hooks,
    checked_name,
    checked_results,
    checked_runner,
    checked_storage_key,
    checked_template,
    checked_text,
    checked_timeout,
    checked_whole,
    refuse_unknown,
)
from penstock.results.policy import ResultOptions
from penstock.runtime.cache_keys import task_input_hash, task_source_hash
from penstock.runtime.context import RunContext, checked_tags, current_run
from penstock.runtime.direct import call_directly
from penstock.runtime.futures import FutureList, TaskFuture
from penstock.runtime.mapping import map_lazily
from penstock.runtime.upstreams import run_of, state_of
from penstock.runtime.waiting import wait_for_run
from penstock.states import State, StateType

if TYPE_CHECKING:
    from datetime import timedelta  # not loaded where nobody needs it

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

_HOOK_STATES = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED)

__all__ = ["Task", "exponential_backoff", "task", "task_input_hash", "task_source_hash"]


class Task(Decorated, Generic[P, R]):
    """A function as a task: call it, `submit` it or `map` it.

    Made by `@task`, which documents the options. Immutable; `with_options` makes a changed copy.

    Attributes:
        fn: the plain function.
        name: the name of the task.
        key: module and qualified name of the function: what identifies the task.
        resources: what a run takes, by name; memory in bytes.
    """

    def __init__(self, fn: Callable[P, R], **options: Any) -> None:
        super().__init__(fn, "@task")
        self.options = options
        self._apply(**options)

    def _apply(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        version: str | None = None,
        task_runner: Any = None,
        resources: Any = None,
        priority: int = 0,
        retries: int = 0,
        retry_delay_seconds: Any = 0,
        retry_jitter_factor: float | None = None,
        retry_condition_fn: Callable[..., bool] | None = None,
        worker_loss_retries: int = 2,
        bundle: bool = True,
        timeout_seconds: float | None = None,
        cache_key_fn: Callable[..., str | None] | None = None,
        cache_expiration: timedelta | float | None = None,
        refresh_cache: bool | None = None,
        task_run_name: str | Callable[[], str] | None = None,
        persist_result: bool | None = None,
        result_storage: Any = None,
        result_serializer: Any = None,
        result_storage_key: Any = None,
        log_prints: bool | None = None,
        on_completion: Any = None,
        on_failure: Any = None,
        on_crashed: Any = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown("@task", **unknown)
        self.name = checked_name(name, callable_name(self.fn), "task")
        self.description = checked_text("description", description, described(self.fn))
        self.tags = checked_tags(tags)
        self.version = checked_text("version", version)
        self.task_runner = checked_runner(task_runner)
        self.resources = checked_resources(resources)
        self.priority = checked_whole("priority", priority)
        self.retry_policy = RetryPolicy(retries, retry_delay_seconds, retry_jitter_factor)
        self.retry_condition_fn = checked_function("retry_condition_fn", retry_condition_fn)
        self.worker_loss_retries = checked_whole("worker_loss_retries", worker_loss_retries, 0)
        self.bundle = bool(checked_flag("bundle", bundle))
        # Of a run that must not be lost even once it has to be certain whether it began.
        self.is_bundled = self.bundle and self.worker_loss_retries > 0
        self.timeout_seconds = checked_timeout(timeout_seconds)
        caching = checked_caching(cache_key_fn, cache_expiration, refresh_cache)
        self.cache_key_fn, self.cache_expiration, self.refresh_cache = caching
        self.task_run_name = checked_template("task_run_name", task_run_name, self.parameter_names)
        results = checked_results(persist_result, result_storage, result_serializer)
        key = checked_storage_key(result_storage_key, self.parameter_names)
        self.results = results if key is None else (results or ResultOptions())._replace(key=key)
        self.log_prints = checked_flag("log_prints", log_prints)
        hooks = (on_completion, on_failure, on_crashed)
        self.hooks = checked_hooks(dict(zip(_HOOK_STATES, hooks, strict=True)))

    @property
    def retries(self) -> int:
        """How many further attempts may follow a failed first one."""
        return self.retry_policy.retries

    def with_options(self, **options: Any) -> Task[P, R]:
        """Copy the task with other options; what is not given stays, None and 0 count as given.

        Example:
            >>> @task(retries=3)
            ... def load(path): ...
            >>> load.with_options(retries=0).retries
            0
        """
        return type(self)(self._source, **{**self.options, **options})

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
        """Run the task now, in the caller; give the value, or a coroutine in async code.

        Args:
            return_state: give the final State instead, and raise nothing but interrupts.
            wait_for: futures that must have completed first.
        """
        return call_directly(self, args, kwargs, return_state, wait_for)

    @overload
    def submit(
        self, /, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> State: ...
    @overload
    def submit(
        self: Task[P, Coroutine[Any, Any, T]], /, *args: Any, wait_for: Any = None, **kwargs: Any
    ) -> TaskFuture[T]: ...
    @overload
    def submit(self, /, *args: Any, wait_for: Any = None, **kwargs: Any) -> TaskFuture[R]: ...
    def submit(
        self, /, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any
    ) -> Any:
        """Place a run of the task on the flow's runner and give its future at once.

        Args:
            return_state: block, and give the final State instead of a future.
            wait_for: futures that must have completed first.

        Raises:
            OutsideFlowError: no flow is running here.
            ParameterBindError: the arguments do not fit the function.
            ResourceError: the task's `resources` are more than its runner can ever give.
        """
        live = _live_flow_run(self.name, "submit")
        future: TaskFuture[R] = TaskFuture(live.submit(self, args, kwargs, wait_for))
        return future.wait() if return_state else future

    @overload
    def map(
        self, /, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> list[State]: ...
    @overload
    def map(
        self: Task[P, Coroutine[Any, Any, T]],
        /,
        *args: Any,
        max_in_flight: int,
        wait_for: Any = None,
        **kwargs: Any,
    ) -> Iterator[TaskFuture[T]]: ...
    @overload
    def map(
        self, /, *args: Any, max_in_flight: int, wait_for: Any = None, **kwargs: Any
    ) -> Iterator[TaskFuture[R]]: ...
    @overload
    def map(
        self: Task[P, Coroutine[Any, Any, T]], /, *args: Any, wait_for: Any = None, **kwargs: Any
    ) -> FutureList[T]: ...
    @overload
    def map(self, /, *args: Any, wait_for: Any = None, **kwargs: Any) -> FutureList[R]: ...
    def map(
        self,
        /,
        *args: Any,
        return_state: bool = False,
        wait_for: Any = None,
        max_in_flight: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Submit the task once for each element of its iterable arguments, zipped.

        Strings, bytes, mappings and what is wrapped in `unmapped` are the same for every call.

        Args:
            return_state: block, and give the list of final States.
            wait_for: futures that must have completed before any of them.
            max_in_flight: read the iterables lazily, and keep at most this many runs open at a
                time; gives an iterator over the futures, in order.

        Returns:
            A list of futures with `result()` and `wait()`.

        Raises:
            MappingMissingIterable: nothing can be iterated.
            MappingLengthMismatch: the iterables differ in length.
            ResourceError: the task's `resources` are more than its runner can ever give.
        """
        live = _live_flow_run(self.name, "map")
        most = None if max_in_flight is None else checked_whole("max_in_flight", max_in_flight, 1)
        args, kwargs = _without_futures(args, kwargs)
        named = {"names": self.parameter_names, "function": repr(self.name)}
        if most is not None:
            calls = zip_arguments(args, kwargs, **named)  # type: ignore[arg-type]
            return map_lazily(live, self, calls, wait_for, most)
        listed = list_arguments(args, kwargs, **named)  # type: ignore[arg-type]
        runs = live.submit_all(self, listed, wait_for)
        futures: FutureList[R] = FutureList(map(TaskFuture, runs))
        return [future.wait() for future in futures] if return_state else futures

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Task[P, R]: ...
    @overload
    def __get__(
        self: Task[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> Task[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return super().__get__(instance, owner)

    def __repr__(self) -> str:
        return f"<Task {self.name!r} of {self.key}>"


def _live_flow_run(name: str, what: str) -> Any:
    run = current_run.get()
    if run is not None and run.live is not None:
        return run.live
    raise OutsideFlowError(
        f"Task {name!r} cannot be used with .{what}() here: no flow is running. Call "
        f"{name}(...) to run it now, or use .{what}() inside a function decorated with @flow."
    )


def _without_futures(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Resolve the futures that stand for whole arguments of `map`: their values are mapped."""
    return tuple(map(_resolved, args)), {name: _resolved(value) for name, value in kwargs.items()}


def _resolved(value: Any) -> Any:
    if isinstance(value, allow_failure) and isinstance(value.value, Dependency):
        return allow_failure(_value_of(value.value, raise_on_failure=False))
    return _value_of(value, raise_on_failure=True) if isinstance(value, Dependency) else value


def _value_of(dependency: Dependency, raise_on_failure: bool) -> Any:
    run = run_of(dependency)
    if run is not None:
        wait_for_run(run, None)
        run.look_at()
    return state_of(dependency).result(raise_on_failure)


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    version: str | None = None,
    task_runner: Any = None,
    resources: Any = None,
    priority: int = 0,
    retries: int = 0,
    retry_delay_seconds: Any = 0,
    retry_jitter_factor: float | None = None,
    retry_condition_fn: Callable[..., bool] | None = None,
    worker_loss_retries: int = 2,
    bundle: bool = True,
    timeout_seconds: float | None = None,
    cache_key_fn: Callable[[RunContext, dict[str, Any]], str | None] | None = None,
    cache_expiration: timedelta | float | None = None,
    refresh_cache: bool | None = None,
    persist_result: bool | None = None,
    result_storage: Any = None,
    result_serializer: Any = None,
    result_storage_key: Any = None,
    log_prints: bool | None = None,
    task_run_name: str | Callable[[], str] | None = None,
    on_completion: Hook | list[Hook] | None = None,
    on_failure: Hook | list[Hook] | None = None,
    on_crashed: Hook | list[Hook] | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Make a function a task.

    Args:
        fn: the function, when used without parentheses. Any callable: a closure, a lambda, a
            method, a `functools.partial`, an `async def`; in a class, write `@task` above
            `@classmethod`.
        name: its name; default the function's with `_` as `-`.
        description: default the function's docstring.
        tags: added to those in force where a run is created.
        task_runner: run this task on another runner than the flow's.
        resources: what a run takes while it runs: a number for each name, such as "cpu", "gpu" or
            a name of your own; "memory" in bytes or as a text such as "4GB".
        priority: larger numbers run sooner when calls have to wait for a slot.
        retries: further attempts when the function raises or exceeds its time limit.
        retry_delay_seconds: a number, a list, or `exponential_backoff(factor)`.
        retry_jitter_factor: lengthen each delay by a random share of itself, up to this factor.
        retry_condition_fn: `condition(task, task_run, state)` decides whether to try again.
        worker_loss_retries: further attempts when the infrastructure lost the task.
        bundle: False sends every run to its engine in a message of its own; by default small
            runs travel together.
        timeout_seconds: the longest an attempt may take.
        persist_result: store a large result (a small one is always kept); default what the flow
            says.
        result_storage: where: a folder, or a URL such as `s3://bucket/prefix`.
        result_serializer: how: "pickle", "json", "compressed/pickle", or one of your own.
        result_storage_key: the name that the result is stored under, also a small one: a
            `str.format` template on the parameters, such as "totals/{day}".
        cache_key_fn: `key(context, parameters)` gives a text; a run with the key of one that has
            completed takes its value and is not run. `task_input_hash` and `task_source_hash`
            are such functions. None for a key: the run is not cached.
        cache_expiration: how long a value may be used: a timedelta, or seconds; default for ever.
        refresh_cache: True runs in any case, and replaces the value; default what the setting
            `PENSTOCK_REFRESH_CACHE` says.
        log_prints: record what the task prints; default what the flow says.
        task_run_name: a `str.format` template on the parameters, or a callable.
        on_completion, on_failure, on_crashed: hooks, `hook(task, task_run, state)`, one or a list.

    Raises:
        ReservedArgumentError: the function has a parameter `return_state` or `wait_for`.
        InvalidNameError, InvalidOptionError: the text names the option and its value.

    Example:
        >>> @task(retries=2)
        ... def double(x):
        ...     return 2 * x
        >>> double(21)
        42
    """
    if fn is None:
        return lambda function: Task(function, **options)
    return Task(fn, **options)
