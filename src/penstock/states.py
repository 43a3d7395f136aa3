"""States of runs: type, name, message, time and data; and the table of crash messages.

    SCHEDULED ─► PENDING ─► RUNNING ─► COMPLETED | FAILED | CANCELLED | CRASHED
                    │          │ ▲
                    │          ▼ │ Retrying
                    │       SCHEDULED (AwaitingRetry)
                    └─ stays PENDING (NotReady) when an upstream did not complete

Rules look at types, never at names.
"""

from __future__ import annotations

import enum
import sys
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import Any
from uuid import UUID

from penstock.annotations import Dependency
from penstock.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    InvalidOptionError,
    LeaseLost,
    TerminationSignal,
    UnfinishedRun,
    UpstreamFailed,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StateType(enum.StrEnum):
    """What a state means to every rule."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


FINAL_TYPES = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED}
)
NOT_READY = "NotReady"
AWAITING_RETRY = "AwaitingRetry"
RETRYING = "Retrying"
CACHED = "Cached"
TIMED_OUT = "TimedOut"
_DEFAULT_NAMES = {kind: kind.value.capitalize() for kind in StateType}


def to_datetime(nanoseconds: int) -> datetime:
    """Turn integer nanoseconds since 1970 into an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _checked_type(given: Any) -> StateType:
    try:
        return StateType(given)
    except ValueError:
        known = ", ".join(StateType)
        raise InvalidOptionError(
            f"The type of a state is {given!r}; it must be one of {known}."
        ) from None


class State(Dependency):
    """What is known of a run at one moment. Not changed after it was made.

    Attributes:
        type: what rules look at.
        name: what people read; by default the capitalised type.
        message: why, in words.
        at: when, in nanoseconds since 1970 (UTC).
        data: a value, an exception, or a collection of states.
        run_key: the id of the run it belongs to as 16 bytes; None for a state of the user's own.

    Example:
        >>> str(State(StateType.COMPLETED, message="done"))
        'Completed("done")'
    """

    __slots__ = ("at", "data", "message", "name", "run_key", "type")

    def __init__(
        self,
        type: StateType,
        name: str | None = None,
        message: str | None = None,
        at: int | None = None,
        data: Any = None,
        run_key: bytes | None = None,
    ) -> None:
        if type.__class__ is not StateType:
            type = _checked_type(type)
        self.type = type
        self.name = name or _DEFAULT_NAMES[type]
        self.message = message
        self.at = time_ns() if at is None else at
        self.data = data
        self.run_key = run_key

    @property
    def run_id(self) -> UUID | None:
        """The run it belongs to; None for a state made by the user."""
        return None if self.run_key is None else UUID(bytes=self.run_key)

    @property
    def special_name(self) -> str | None:
        """The name when it is not the capitalised type, else None."""
        return None if self.name == _DEFAULT_NAMES[self.type] else self.name

    @property
    def timestamp(self) -> datetime:
        """When the state was entered, as an aware UTC datetime."""
        return to_datetime(self.at)

    @property
    def is_at_hand(self) -> bool:
        """Whether asking for the data is quick; False where that brings it from elsewhere."""
        return True

    def is_completed(self) -> bool:
        """Tell whether the type is COMPLETED."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Tell whether the type is FAILED."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Tell whether the type is CRASHED."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Tell whether the type is CANCELLED."""
        return self.type is StateType.CANCELLED

    def is_pending(self) -> bool:
        """Tell whether the type is PENDING."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Tell whether the type is RUNNING."""
        return self.type is StateType.RUNNING

    def is_final(self) -> bool:
        """Tell whether the type is one that never changes again."""
        return self.type in FINAL_TYPES

    def result(self, raise_on_failure: bool = True) -> Any:
        """Give the value, or raise what the run failed with.

        Args:
            raise_on_failure: False gives the exception (or the collection of states) instead
                of raising it.

        Raises:
            UnfinishedRun: the run is not final; raised whatever `raise_on_failure` says.
            CrashedRun, CancelledRun, UpstreamFailed, FailedRun: there is no exception of the
                user's own to raise.
        """
        if self.type is StateType.COMPLETED:
            return self.data
        if not raise_on_failure and self.data is not None and self.type in FINAL_TYPES:
            return self.data
        problem = failure_of(self)
        if raise_on_failure or isinstance(problem, UnfinishedRun):
            raise problem
        return problem

    def __str__(self) -> str:
        text = f'"{self.message}"' if self.message else ""
        if self.name != _DEFAULT_NAMES[self.type]:
            text += f"{', ' if text else ''}type={self.type.value}"
        return f"{self.name}({text})"

    def __repr__(self) -> str:
        return f"<{self!s} at {self.timestamp.isoformat()}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return (self.type, self.name, self.message, self.run_key) == (
            other.type,
            other.name,
            other.message,
            other.run_key,
        ) and (self.data is other.data or self.at == other.at)

    def __hash__(self) -> int:
        return hash((self.type, self.name, self.message, self.run_key))


class KeptState(State):
    """A COMPLETED state whose data has been kept before it is recorded.

    Attributes:
        held, codec: what the history keeps of it; None where that is nothing.
    """

    __slots__ = ("codec", "held")

    held: bytes | None
    codec: str | None

    @classmethod
    def of(cls, state: State, held: bytes | None, codec: str | None, at: int) -> KeptState:
        """Make one of a state whose data has been kept at some time."""
        made = cls(state.type, state.name, state.message, at, state.data, state.run_key)
        made.held, made.codec = held, codec
        return made

    def small(self) -> tuple[bytes | None, str | None]:
        """Give what the history keeps, and its codec."""
        return self.held, self.codec

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (self.type, self.name, self.message, self.at, self.data, self.run_key)


def failure_of(state: State) -> BaseException:
    """Give the exception that `result()` raises for a state that is not COMPLETED."""
    data = state.data
    if state.type is StateType.FAILED:
        return _failure_in(data) or FailedRun(state.message or "The run failed.")
    if state.type is StateType.CRASHED:
        return _chained(CrashedRun(state.message or "The run crashed."), data)
    if state.type is StateType.CANCELLED:
        if isinstance(data, BaseException) or not data:
            return _chained(CancelledRun(state.message or "The run was cancelled."), data)
        return _failure_in(data) or CancelledRun(state.message or "The run was cancelled.")
    if state.name == NOT_READY:
        return _chained(UpstreamFailed(state.message or "An upstream did not complete."), data)
    return UnfinishedRun(f"The run is not finished: its state is {state}.")


def _failure_in(data: Any) -> BaseException | None:
    """Find the exception in a failed state's data: itself, or the first failed state's own."""
    if isinstance(data, BaseException):
        return data
    if isinstance(data, State):
        return None if data.is_completed() else failure_of(data)
    if isinstance(data, list | tuple | set):
        problems = (_failure_in(item) for item in data if isinstance(item, State))
        return next((problem for problem in problems if problem is not None), None)
    return None


def _chained(problem: BaseException, cause: Any) -> BaseException:
    if isinstance(cause, BaseException):
        problem.__cause__ = cause
    return problem


def Completed(message: str | None = None, data: Any = None, name: str | None = None) -> State:
    """Make a COMPLETED state."""
    return State(StateType.COMPLETED, name, message, data=data)


def Failed(message: str | None = None, data: Any = None, name: str | None = None) -> State:
    """Make a FAILED state."""
    return State(StateType.FAILED, name, message, data=data)


def Crashed(message: str | None = None, data: Any = None, name: str | None = None) -> State:
    """Make a CRASHED state."""
    return State(StateType.CRASHED, name, message, data=data)


def Cancelled(message: str | None = None, data: Any = None, name: str | None = None) -> State:
    """Make a CANCELLED state."""
    return State(StateType.CANCELLED, name, message, data=data)


def Pending(message: str | None = None, data: Any = None, name: str | None = None) -> State:
    """Make a PENDING state."""
    return State(StateType.PENDING, name, message, data=data)


def Running(message: str | None = None, data: Any = None, name: str | None = None) -> State:
    """Make a RUNNING state."""
    return State(StateType.RUNNING, name, message, data=data)


def exception_to_crashed_state(exc: BaseException) -> State:
    """Make the CRASHED state for an exception, by the crash table.

    Example:
        >>> exception_to_crashed_state(KeyboardInterrupt()).message
        'Execution was aborted by an interrupt signal.'
    """
    return Crashed(_crash_message(exc), data=exc)


def _crash_message(exc: BaseException) -> str:
    if _is_cancellation(exc):
        return "Execution was cancelled by the runtime environment."
    if isinstance(exc, KeyboardInterrupt):
        return "Execution was aborted by an interrupt signal."
    if isinstance(exc, TerminationSignal):
        return "Execution was aborted by a termination signal."
    if isinstance(exc, LeaseLost):
        return f"Execution was broken off: {exc}"
    if isinstance(exc, SystemExit):
        return "Execution was aborted by Python system exit call."
    return f"Execution was interrupted by an unexpected exception: {describe_exception(exc)}"


def is_interrupt(exc: BaseException) -> bool:
    """Tell whether an exception is to end more than the code that it passes through."""
    return isinstance(exc, KeyboardInterrupt | SystemExit) or _is_cancellation(exc)


def _is_cancellation(exc: BaseException) -> bool:
    # Whoever raised a CancelledError has imported its module: no need to import it here.
    modules = (sys.modules.get("asyncio"), sys.modules.get("concurrent.futures"))
    return any(module and isinstance(exc, module.CancelledError) for module in modules)


def describe_exception(exc: BaseException) -> str:
    """Phrase an exception as "Type: text", whatever its own `__str__` does."""
    try:
        text = str(exc)
    except BaseException:  # were it SystemExit: the run has to end in some state
        text = "<its text cannot be shown>"
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
