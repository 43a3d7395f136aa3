"""Cargo: what the driver keeps with a call on its way to an engine, and its item."""

from __future__ import annotations

from typing import Any

from penstock.annotations import Dependency
from penstock.core.bundling import Pace
from penstock.remote.codes import Code
from penstock.remote.messages import KEPT
from penstock.remote.parcels import Large, Placeholder, pack
from penstock.remote.values import ArrivedState, Fetch, fetched
from penstock.runs import TaskRun
from penstock.runtime.context import current_tags
from penstock.runtime.upstreams import run_of, state_of, value_of
from penstock.shared_keys import share_keys
from penstock.states import State

HEAVY_BYTES = 4 * 2**20
"""From this size on, a value of this process is not packed in the dispatcher's thread."""
_NO_TAGS: frozenset[str] = frozenset()
_NO_PACE = Pace()


class Cargo:
    """One call on its way.

    Attributes:
        call: the call of the runtime.
        run: its task run.
        pace: how long runs of its task take.
        options: the engine's own options that were in force where it was submitted.
        code: the code of its task.
        data, large: its packed arguments; None until they can be packed.
        parts: native futures of kept values that its arguments refer to, by name.
        shared: large buffers that its arguments refer to, kept on the engine while it is open.
        bundle: the bundle it travels in; None while it waits here.
        is_early: it travels along with upstreams that have not settled.
        is_recalled: it is to end CANCELLED if it turns out not to have started.
        report: the end of an early call, held until its upstreams have settled here.
        was_started: the worker has said that the present attempt began.
        is_prepared: its arguments have been packed beforehand, with what came from elsewhere.
        brought: values from elsewhere, while its arguments are being packed.
        losses: how often it was lost without ever having been started.
        worker: the worker that executes it, as far as known.
        waits_for: keys of upstreams in the same bundle.
    """

    # Class-level defaults, so that making one assigns few attributes.
    pace = _NO_PACE
    options: Any = None
    code: Code | None = None
    data: bytes | None = None
    large: tuple[Large, ...] = ()
    parts: dict[str, Any] | None = None
    shared: list[Any] | None = None
    bundle: Any = None
    is_early = False
    is_suspect = False
    is_recalled = False
    report: Any = None
    was_started = False
    is_prepared = False
    brought: dict[int, Any] | None = None
    losses = 0
    worker: str | None = None
    waits_for: tuple[bytes, ...] = ()

    def __init__(self, call: Any) -> None:
        self.call = call
        self.run: TaskRun = call.task_run

    @property
    def size(self) -> int:
        """How many bytes its packed arguments take."""
        return 0 if self.data is None else len(self.data)

    def pack(self, memo: dict[int, Any] | None = None) -> tuple[bytes, ...]:
        """Pack the arguments; give the keys of the upstreams that have not settled.

        Raises:
            SerializationError: an argument cannot be pickled.
        """
        call = self.call
        values, found = call.values, call.found
        if self.is_prepared:
            return ()
        if not values:
            self.data = b""
            return ()
        if found is None:
            if self.data is None:
                self.data, self.large = pack(values, call.task.parameter_names, call.memo)
            return ()
        waits: list[bytes] = []

        def resolve(dependency: Dependency, allowed: bool) -> Any:
            run = run_of(dependency)
            if run is not None and run.outcome is None:
                waits.append(run.key)
                return Placeholder(("run", run.key))
            return self._settled(dependency, allowed)

        self.parts = None
        resolved = found.replace(values, resolve)
        if self.brought is not None:
            # The memo knows objects by their id, which must stay theirs.
            self.brought[id(resolved)] = resolved
        self.data, self.large = pack(resolved, call.task.parameter_names, memo)
        return tuple(waits)

    def far(self) -> list[State]:
        """Give the settled upstreams whose values take long to fetch or to pack."""
        found = self.call.found
        if found is None:
            return []
        far, engine = [], self.call.runner.engine
        for dependency in found.dependencies:
            run = run_of(dependency)
            if run is None or run.outcome is not None:
                state = state_of(dependency)
                if _is_far(state, engine):
                    far.append(state)
        return far

    def prepare(self, brought: dict[int, Any], memo: dict[int, Any]) -> None:
        """Pack the arguments, fetching what they need from elsewhere; blocks.

        Args:
            brought: what has been fetched for other calls that need the same.
            memo: what has been packed for them.

        Raises:
            SerializationError: an argument cannot be pickled.
            CrashedRun: a value is lost.
        """
        for state in self.far():
            if id(state) not in brought:
                brought[id(state)] = fetched(state)
        self.brought = brought
        try:
            self.pack(memo)
        finally:
            self.brought = None
        self.is_prepared = True

    def let_go_of_large(self) -> None:
        """Drop the large contents, which are on the engine: they would be packed again."""
        if self.call.found is not None:
            self.large = tuple(Large(each.digest, b"") for each in self.large)

    def _settled(self, dependency: Dependency, allowed: bool) -> Any:
        """Give what stands for the value of an upstream that has settled."""
        state = state_of(dependency)
        if self.brought is not None and id(state) in self.brought:
            return self.brought[id(state)]
        if isinstance(state, ArrivedState) and not state.is_here:
            value = state.value
            if value.place == KEPT:
                assert state.fetch is not None
                if self.parts is None:
                    self.parts = {}
                self.parts[value.data] = state.fetch
                return Placeholder(("kept", value.data))
            return Placeholder(("value", tuple(value)))
        return value_of(dependency, allowed)

    def item(self) -> tuple[Any, ...]:
        """Give the fields of the `Item` that travels."""
        call, run, code = self.call, self.run, self.code
        assert self.data is not None
        assert code is not None
        return (
            run.key,
            code.digest,
            run.attempt,
            run.number,
            run.custom_name,
            run.created_at,
            run.started_at,
            run.tags,
            call.context.get(current_tags, _NO_TAGS),
            run.log_prints,
            self.data,
            self.waits_for,
            self.is_suspect or not call.task.worker_loss_retries,
            run.inside,
        )

    def homes(self) -> frozenset[str]:
        """Give the workers that hold kept values which the arguments refer to."""
        found, engine = self.call.found, self.call.runner.engine
        if found is None:
            return frozenset()
        kept = [_kept(state_of(dependency)) for dependency in found.dependencies]
        return frozenset(each.worker for each in kept if each is not None and each.engine is engine)

    @property
    def is_over(self) -> bool:
        """Whether the task run has ended meanwhile, by a cancellation or otherwise."""
        return self.run.is_over


share_keys(
    Cargo,
    "call", "run", "options", "data", "large", "pace", "code", "waits_for", "bundle",
    "was_started", "worker", "is_early", "is_suspect", "is_recalled", "parts", "shared",
    "losses", "report", "is_prepared", "brought",
)  # fmt: skip


def _kept(state: State) -> Fetch | None:
    """Give how a value is fetched that an engine keeps; None for any other."""
    is_kept = isinstance(state, ArrivedState) and state.value.place == KEPT
    return state.fetch if is_kept else None  # type: ignore[attr-defined]


def _is_far(state: State, engine: Any) -> bool:
    """Tell whether a value has to come from another engine, or is large and in this process."""
    if isinstance(state, ArrivedState) and not state.is_here:
        return state.fetch is not None and state.fetch.engine is not engine
    try:
        return _size_of(state.data) >= HEAVY_BYTES
    except Exception:
        return False  # a kept value that cannot be rebuilt: packing it refuses the call


def _size_of(value: Any) -> int:
    """Give how large a value is, where it says so itself."""
    if isinstance(value, bytes | bytearray | str):
        return len(value)
    try:
        size = value.nbytes
    except Exception:  # an object of the user's may raise anything
        return 0
    return size if isinstance(size, int) else 0
