"""What an engine is to the driver's side: something that carries bundles to workers."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from penstock.remote.cargo import Cargo


class Engine(Protocol):
    """What carries bundles to workers. Thread-safe, and never blocks for long.

    Attributes:
        reply_to: how workers address this driver.
    """

    reply_to: Any

    def send(self, bundle: Bundle, data: bytes) -> None:
        """Send a bundle; its end comes through `Dispatcher.sent_ended` or `lost`."""

    def tell(self, worker: str, data: bytes) -> None:
        """Send a word to a worker."""

    def tell_about(self, bundle: Bundle, data: bytes) -> None:
        """Send a word to the worker that has a bundle.

        If none has it yet, no one ever will: `Dispatcher.unsent` takes it back.
        """

    def workers(self) -> int:
        """Give how many bundles can be executed at the same time; at least 1."""

    def share(self, digest: str, buffer: Any) -> Any:
        """Put a large buffer where every worker can get it; released when it is dropped."""

    def fetcher(self, name: str, worker: str) -> Any:
        """Make the `Fetch` of a value that a worker keeps."""

    def options_of(self, call: Any) -> Hashable:
        """Give the options of the engine's own that were in force where a call was submitted."""

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

    def __init__(self, options: Hashable, cargo: Sequence[Cargo]) -> None:
        self.id = os.urandom(16).hex()
        self.options = options
        self.cargo = {each.run.key: each for each in cargo}
        self.parts: dict[str, Any] = {}
        self.native: Any = None
        self.raw_key: bytes | None = None
        self.name = f"call-{self.id}"
        if len(cargo) == 1:
            run = cargo[0].run
            self.name = f"{run.name}-{run.key.hex()}-{run.attempt + 1}"
        elif cargo:
            self.name = f"{cargo[0].run.definition.name}-bundle-{self.id}"

    @classmethod
    def of_raw(cls, key: bytes) -> Bundle:
        """Make the bundle of a callable that belongs to no flow run."""
        bundle = cls(None, ())
        bundle.raw_key = key
        return bundle
