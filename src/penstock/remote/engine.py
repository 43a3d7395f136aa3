"""What an engine is to the driver's side: something that carries bundles to workers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from time import time_ns
from typing import Any, NamedTuple, Protocol

from penstock.ids import new_task_run_key
from penstock.remote.cargo import Cargo

given_elsewhere: ContextVar[tuple[type, Any] | None] = ContextVar("penstock_options", default=None)
"""The kind of engine on whose worker a call was submitted, and the options in force there."""


def options_elsewhere(call: Any, engine: Engine) -> Any:
    """Give what `Port.options` gave where a call was submitted on a worker of such an engine."""
    kind, options = call.context.get(given_elsewhere) or (None, None)
    return options if kind is type(engine) else None


class Options(NamedTuple):
    """The engine's own options for a call.

    Attributes:
        places: what says where it may run: calls that agree in it compete for the same places.
        others: the rest.
    """

    places: Hashable
    others: Hashable


class Engine(Protocol):
    """What carries bundles to workers. Thread-safe, and never blocks for long.

    Attributes:
        reply_to: how workers address this driver.
        knows_starts: whether a worker that has died leaves behind for certain what had begun.
        looks_ahead: how many bundles of long calls it wants to see beyond those that can be
            executed at once, so that it can place them well.
    """

    reply_to: Any
    knows_starts: bool = False
    looks_ahead: int = 64

    def listen(self, dispatcher: Any) -> None:
        """Report to a dispatcher from now on."""

    def send(self, bundle: Bundle, data: bytes) -> None:
        """Send a bundle; its end comes through `Dispatcher.sent_ended`."""

    def tell(self, worker: str, data: bytes) -> None:
        """Send a word to a worker."""

    def tell_about(self, bundle: Bundle, data: bytes) -> None:
        """Send a word to the worker that has a bundle.

        If none has it yet, no one ever will: `Dispatcher.unsent` takes it back.
        """

    def workers(self) -> int:
        """Give how many bundles can be executed at the same time; at least 1."""

    def names(self) -> frozenset[str]:
        """Give the names of all workers there are; empty where that is not known."""

    def share(self, digest: str, buffer: Any) -> Any:
        """Put a large buffer where every worker can get it; released when it is dropped."""

    def put(self, value: Any) -> Any:
        """Put a value on the engine, where a worker has kept it before; gives its native."""

    def fetcher(self, name: str | None, worker: str) -> Any:
        """Make the `Fetch` of a value that a worker keeps; None for one that is lost."""

    def options_of(self, call: Any) -> Options | None:
        """Give the options of the engine's own that were in force where a call was submitted.

        In this process, or on a worker: see `options_elsewhere`. A priority among them becomes
        that of the call.
        """

    def is_stuck(self, worker: str) -> None:
        """Take note that a worker's thread cannot be stopped."""


class Bundle:
    """Several calls that travel together.

    Attributes:
        id: in hex.
        name: what the engine calls it.
        options: the engine's own options for it.
        cargo: what is in it and has not ended, by the key of the task run.
        parts: native futures that it needs, by name.
    """

    def __init__(self, options: Options | None, cargo: Sequence[Cargo]) -> None:
        self.id = new_task_run_key(time_ns()).hex()
        self.options = options
        self.cargo = {each.run.key: each for each in cargo}
        self.parts: dict[str, Any] = {}
        self.native: Any = None
        self.watch: Any = None
        self.raw_key: bytes | None = None
        self.name = f"call-{self.id}"
        if len(cargo) == 1:
            run = cargo[0].run
            self.name = f"{run.name}-{run.key.hex()}-{run.attempt + 1}"
        elif cargo:
            self.name = f"{cargo[0].run.definition.name}-bundle-{self.id}"

    @property
    def places(self) -> Hashable:
        """Say where it may run; None for anywhere."""
        return None if self.options is None else self.options.places

    @classmethod
    def of_raw(cls, key: bytes) -> Bundle:
        """Make the bundle of a callable that belongs to no flow run."""
        bundle = cls(None, ())
        bundle.raw_key = key
        return bundle
