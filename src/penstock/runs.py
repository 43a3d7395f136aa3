"""Task runs and flow runs: what is known of one execution, live in memory.

The history stores them as rows (`history/rows.py`); users meet them through
`get_run_context()` and `future.task_run`. Only the engine changes them.

Most attributes have class-level defaults, so that making a run assigns few of them: a task
run is made in about half a microsecond and its size is what it really uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Protocol
from uuid import UUID

from penstock.cards import live_card
from penstock.ids import to_uuid
from penstock.shared_keys import share_keys
from penstock.states import FINAL_TYPES, State, StateType


class Definition(Protocol):
    """What a run needs to know of the flow or task that it executes."""

    name: str
    key: str
    is_async: bool
    parameter_names: tuple[str, ...]
    hooks: Mapping[StateType, Sequence[Callable[..., Any]]]


class Run:
    """What flow runs and task runs have in common.

    Attributes:
        key: the run's id as 16 bytes.
        type: the type of the current state.
        is_over: nothing more will happen to the run; set before its last state is recorded.
        last: the last state, set before `is_over`: what is recorded of the end is read here,
            whatever a late attempt still does to the other attributes.
        outcome: the last state, set after it was recorded and is about to be told; None before.
        created_at: nanoseconds since 1970, like every time here.
        live: the live flow run it belongs to (a flow run: its own); None for a task called
            outside a flow.
    """

    definition: Definition
    key: bytes
    created_at: int
    type: StateType = StateType.PENDING
    state_name: str | None = None
    message: str | None = None
    last: State | None = None
    outcome: State | None = None
    is_over: bool = False
    started_at: int | None = None
    ended_at: int | None = None
    changed_at: int | None = None
    attempt: int = 0
    tags: frozenset[str] = frozenset()
    error: dict[str, Any] | None = None
    transitions: list[tuple[str, str | None, int, str | None]] | None = None
    recorded: StateType | None = None
    log_budget: Any = None
    is_async: bool = False
    log_prints: bool = False
    is_task_run: bool = False
    live: Any = None
    recorder: Any = None

    @property
    def id(self) -> UUID:
        """The id of the run."""
        return to_uuid(self.key)

    @property
    def state(self) -> State:
        """The current state."""
        if self.outcome is not None:
            return self.outcome
        at = self.changed_at or self.started_at or self.created_at
        return State(self.type, self.state_name, self.message, at, run_key=self.key)

    def enter(
        self, type: StateType, at: int, name: str | None = None, message: str | None = None
    ) -> None:
        """Enter a state that is not the last one."""
        if self.transitions is None:
            self.transitions = self.ordinary_transitions()
        self.transitions.append((type.value, name, at, message))
        self.type = type
        self.state_name = name
        self.message = message
        self.changed_at = at

    def close(self, state: State) -> None:
        """Take over the last state, all but `outcome`: the next step is to record it."""
        self.last = state
        self.is_over = True
        if state.type in FINAL_TYPES:
            self.ended_at = state.at
        self.changed_at = state.at
        self.type = state.type
        self.message = state.message
        self.state_name = state.special_name

    def _words(self) -> tuple[str, str | None, str | None]:
        """Give type, special name and message of the current state."""
        last = self.outcome
        if last is not None:
            return last.type.value, last.special_name, last.message
        return self.type.value, self.state_name, self.message

    def ordinary_transitions(self) -> list[tuple[str, str | None, int, str | None]]:
        """Give the states that the times tell of, up to RUNNING."""
        passed: list[tuple[str, str | None, int, str | None]] = [
            (StateType.PENDING.value, None, self.created_at, None)
        ]
        if self.started_at is not None:
            passed.append((StateType.RUNNING.value, None, self.started_at, None))
        return passed


class TaskRun(Run):
    """One execution of a task (or of a flow inside a flow).

    Attributes:
        number: n of the name "<task>-<n>".
        task_number: which task of the flow run this is, in order of first use.
        upstream: ids of the task runs that it depends on, 16 bytes each.
        identity: digest of task, inputs and ordinal; None when the inputs have none.
        preview: its parameters as a JSON object of previews.
        looked_at: user code has received its failure, or will.
        values: the values of its parameters; None once the run let go of them.
        cache: what caching did for it; None where it has no part in it.
        cached_by: who decides on its cache key, once that is asked for.
        inside: ids of the cached runs in which it was called or submitted, itself included.
        waits: groups of task runs that its code waits for right now.
    """

    is_task_run = True
    number: int = 0
    task_number: int = 0
    custom_name: str | None = None
    upstream: bytes = b""
    identity: bytes | None = None
    preview: str = "{}"
    parent: TaskRun | None = None
    parent_key: bytes | None = None
    subflow_key: bytes | None = None
    worker: str | None = None
    looked_at: bool = False
    cache: Any = None
    cached_by: Any = None
    inside: tuple[bytes, ...] = ()
    kept: bytes | None = None
    kept_codec: str | None = None
    callbacks: list[Callable[[TaskRun], object]] | None = None
    values: tuple[object, ...] | None = None

    waits: Sequence[Sequence[TaskRun]] = ()

    def __init__(self, definition: Definition, key: bytes, created_at: int) -> None:
        self.definition = definition
        self.key = key
        self.created_at = created_at
        self.is_async = definition.is_async

    @property
    def name(self) -> str:
        """The name of the run: "<task>-<n>" or what its template gave."""
        return self.custom_name or f"{self.definition.name}-{self.number}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The arguments by name; empty once the run has ended and let go of them."""
        if self.values is None:
            return {}
        return dict(zip(self.definition.parameter_names, self.values, strict=False))

    def look_at(self) -> None:
        """Note that user code has received how the run ended."""
        if not self.looked_at:
            self.looked_at = True
            if self.live is not None and self.type in FINAL_TYPES:
                self.live.looked_at(self)

    def __repr__(self) -> str:
        return f"<TaskRun {self.name!r} {self.state}>"

    def _repr_html_(self) -> str:
        # Showing a run in a notebook is no look at its failure.
        return live_card("task run", self.name, self._words(), self.id)


share_keys(
    TaskRun,
    "definition", "key", "created_at", "is_async", "identity", "live", "recorder", "task_number",
    "number", "values", "preview", "recorded", "worker", "attempt", "started_at", "type", "last",
    "is_over", "ended_at", "changed_at", "message", "state_name", "kept", "kept_codec", "outcome",
    "upstream", "callbacks", "tags", "parent_key", "error",
)  # fmt: skip


class FlowRun(Run):
    """One execution of a flow.

    Attributes:
        parameters: the arguments by name, coerced by annotation.
        runner: the name of its task runner.
        parent: the task run that stands for it in the flow run that called it.
        kept, kept_codec: its kept result.
        arguments: its arguments, pickled, to continue it with; None where they could not be.
        origin: where the flow's function comes from, as JSON.
        results: which results are kept where, in this flow run.
    """

    arguments: bytes | None = None
    origin: str | None = None
    results: Any = None

    def __init__(self, definition: Definition, key: bytes, created_at: int, name: str) -> None:
        self.definition = definition
        self.key = key
        self.created_at = created_at
        self.name = name
        self.is_async = definition.is_async
        self.parameters: Mapping[str, Any] = {}
        self.preview = "{}"
        self.runner = ""
        self.version: str | None = None
        self.parent: TaskRun | None = None
        self.kept: bytes | None = None
        self.kept_codec: str | None = None

    def __repr__(self) -> str:
        return f"<FlowRun {self.name!r} of {self.definition.name!r} {self.state}>"

    def _repr_html_(self) -> str:
        kind = f"flow run of {self.definition.name}"
        return live_card(kind, self.name, self._words(), self.id)


def as_begun(run: Run) -> Any:
    """Give a copy of a run as it was when it had just begun."""
    begun = copy(run)
    begun.is_over = False
    begun.last = begun.outcome = begun.ended_at = begun.changed_at = None
    begun.state_name = begun.message = begun.error = begun.transitions = None
    begun.type = StateType.PENDING if run.started_at is None else StateType.RUNNING
    begun.attempt = min(run.attempt, 1)
    if isinstance(begun, TaskRun | FlowRun):
        begun.kept = begun.kept_codec = None
    return begun
