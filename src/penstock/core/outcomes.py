"""From what a function returned or raised to a State, and from many states to one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import CoroutineType, GeneratorType
from typing import Any

from penstock.annotations import Dependency, quote
from penstock.core.inputs import SCALARS, find
from penstock.errors import SerializationError
from penstock.states import (
    NOT_READY,
    TIMED_OUT,
    KeptState,
    State,
    StateType,
    describe_exception,
    exception_to_crashed_state,
)

COMPLETED = StateType.COMPLETED
_FOREIGN_NAMES = frozenset({"Future", "Task"})
FAILURES = frozenset({StateType.FAILED, StateType.CRASHED})


def returned(value: Any, at: int, key: bytes) -> State:
    """Give the state of a run whose function returned a value."""
    if type(value) in SCALARS:
        return State(COMPLETED, None, None, at, value, key)
    if isinstance(value, State):
        return _adopted(value, at, key)
    return State(COMPLETED, None, None, at, value, key)


def _adopted(state: State, at: int, key: bytes) -> State:
    """Make a state of the user's own that of a run; its texts are recorded, so texts they are."""
    message = None if state.message is None else str(state.message)
    adopted = State(state.type, str(state.name), message, at, state.data, key)
    # That of a subflow run: its task run refers to the same kept result.
    return KeptState.of(adopted, *state.small(), at) if isinstance(state, KeptState) else adopted


def settled_value(value: Any) -> Any:
    """Turn what a function returned into what can be kept: generators become lists.

    Raises:
        SerializationError: a coroutine, which nobody would ever await, or a future of another
            library, whose value nobody would ever get.
    """
    if isinstance(value, GeneratorType):
        return list(value)
    if isinstance(value, CoroutineType):
        value.close()
        raise SerializationError(
            f"The function returned a coroutine ({value.__qualname__!r}) instead of a value. "
            "Declare it with 'async def' and await inside it."
        )
    if type(value).__name__ in _FOREIGN_NAMES and _is_foreign_future(value):
        raise SerializationError(
            f"The function returned a future of another library ({type(value).__qualname__!r}) "
            "instead of a value. Return its result; in an 'async def', await it."
        )
    return value


def _is_foreign_future(value: Any) -> bool:
    # Whoever made such a future has imported its module: no need to import it here.
    modules = (sys.modules.get("asyncio"), sys.modules.get("concurrent.futures"))
    return any(module and isinstance(value, module.Future) for module in modules)


def raised(exc: BaseException, kind: str, at: int, key: bytes) -> State:
    """Give the state of a run whose function raised.

    Args:
        kind: "Task run" or "Flow run", for the message.
    """
    if isinstance(exc, Exception):
        message = f"{kind} encountered an exception. {describe_exception(exc)}"
        return State(StateType.FAILED, None, message, at, exc, key)
    crashed = exception_to_crashed_state(exc)
    return State(StateType.CRASHED, None, crashed.message, at, exc, key)


def timed_out(problem: BaseException, kind: str, seconds: float, at: int, key: bytes) -> State:
    """Give the state of a run that exceeded its time limit; `problem` is what `result` raises."""
    return State(StateType.FAILED, TIMED_OUT, timeout_message(kind, seconds), at, problem, key)


def timeout_message(kind: str, seconds: float) -> str:
    """Phrase that a run exceeded its time limit."""
    return f"{kind} exceeded timeout of {seconds} seconds"


def not_ready(upstream: State, upstream_id: object, at: int, key: bytes) -> State:
    """Give the state of a task run one of whose upstreams did not complete."""
    message = f"Upstream task run '{upstream_id}' did not reach a 'COMPLETED' state."
    # The root of a chain of runs that were not ready is what people want to see.
    root = upstream.data if upstream.name == NOT_READY else _problem(upstream)
    return State(StateType.PENDING, NOT_READY, message, at, root, key)


def _problem(state: State) -> BaseException | None:
    problem = state.result(raise_on_failure=False) if state.is_final() else None
    return problem if isinstance(problem, BaseException) else None


class FlowFacts:
    """What the final state of a flow run is decided on, once everything in it has settled.

    Args:
        state_of: gives the state of a future (a state gives itself).
        unseen: the failed and crashed states nobody looked at, first one first.
        total: how many task runs and subflow runs there are directly in the flow run.
    """

    def __init__(
        self,
        state_of: Callable[[Dependency], State],
        unseen: Sequence[State],
        total: int,
    ) -> None:
        self.state_of = state_of
        self.unseen = unseen
        self.total = total


def flow_state(value: Any, facts: FlowFacts, at: int, key: bytes) -> State:
    """Decide the final state of a flow run whose function returned a value."""
    if isinstance(value, State) and value.run_key is None:
        return _adopted(value, at, key)
    if isinstance(value, Dependency) or _only_dependencies(value):
        return _aggregated(value, facts, at, key)
    if value is None:
        return _of_all_runs(facts, at, key)
    if isinstance(value, quote):
        return State(COMPLETED, None, None, at, value, key)
    return _of_data(value, facts, at, key)


def _only_dependencies(value: Any) -> bool:
    return (
        isinstance(value, list | tuple | set)
        and len(value) > 0
        and all(isinstance(item, Dependency) for item in value)
    )


def _aggregated(value: Any, facts: FlowFacts, at: int, key: bytes) -> State:
    members = [value] if isinstance(value, Dependency) else list(value)
    states = [facts.state_of(member) for member in members]
    type, message = aggregate(states)
    data: Any
    if type is COMPLETED:
        data = _same_shape(value, [state.data for state in states])
    else:
        data = _same_shape(value, states)
    return State(type, None, message, at, data, key)


def aggregate(states: Sequence[State]) -> tuple[StateType, str]:
    """Give the type and message that many states come to."""
    total = len(states)
    completed = sum(state.type is COMPLETED for state in states)
    if completed == total:
        return COMPLETED, "All states completed."
    cancelled = sum(state.type is StateType.CANCELLED for state in states)
    if cancelled:
        return StateType.CANCELLED, f"{cancelled}/{total} states cancelled."
    failed = sum(state.type in FAILURES for state in states)
    if failed:
        return StateType.FAILED, f"{failed}/{total} states failed."
    return StateType.FAILED, f"{total - completed}/{total} states are not final."


def _same_shape(value: Any, items: list[Any]) -> Any:
    if isinstance(value, Dependency):
        return items[0]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*items)
    if isinstance(value, set):
        return _set_of(items)
    return tuple(items) if isinstance(value, tuple) else items


def _set_of(items: list[Any]) -> Any:
    try:
        return set(items)
    except TypeError:
        # Values that cannot be in a set are given as a list rather than not at all.
        return items


def _of_all_runs(facts: FlowFacts, at: int, key: bytes) -> State:
    if not facts.unseen:
        return State(
            COMPLETED, None, "All states completed." if facts.total else None, at, None, key
        )
    message = f"{len(facts.unseen)}/{facts.total} task runs failed."
    return State(StateType.FAILED, None, message, at, list(facts.unseen), key)


def _of_data(value: Any, facts: FlowFacts, at: int, key: bytes) -> State:
    found = find((value,))
    if found is None:
        return State(COMPLETED, None, None, at, value, key)
    futures = [item for item in found.dependencies if not isinstance(item, State)]
    for future in futures:
        state = facts.state_of(future)
        if state.type is not COMPLETED and not found.dependencies[future]:
            problem = state.result(raise_on_failure=False)
            return (
                raised(problem, "Flow run", at, key)
                if isinstance(problem, Exception)
                else State(StateType.FAILED, None, state.message, at, [state], key)
            )
    return State(COMPLETED, None, None, at, _with_values(found, value, facts), key)


def _with_values(found: Any, value: Any, facts: FlowFacts) -> Any:
    def value_of(dependency: Dependency, allowed: bool) -> Any:
        if isinstance(dependency, State):
            return dependency
        return facts.state_of(dependency).result(raise_on_failure=False)

    return found.replace((value,), value_of)[0]


def crashed_by(fatal: BaseException | None, state: State) -> State:
    """Give CRASHED for the failure of a flow run whose engine is gone.

    Args:
        fatal: what has become of the engine; None when nothing has.
        state: how the flow run has ended.
    """
    if fatal is None or state.type is not StateType.FAILED:
        return state
    crashed = exception_to_crashed_state(fatal)
    crashed.run_key = state.run_key
    return crashed


def problem_in(state: State) -> BaseException | None:
    """Give the exception that a state holds or stands for; None when there is none."""
    if isinstance(state.data, BaseException):
        return state.data
    if state.type in (StateType.FAILED, StateType.CRASHED) and state.data is not None:
        try:
            state.result()
        except BaseException as exc:
            return exc
    return None
