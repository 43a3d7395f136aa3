"""remote_options: Ray's own options for the task runs that are submitted in a block."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from penstock.errors import InvalidOptionError

MANAGED = frozenset({"name", "num_returns", "_metadata"})
"""Options of Ray that Penstock sets itself."""


def _comparable(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return "map", tuple(sorted((str(key), _comparable(each)) for key, each in value.items()))
    if isinstance(value, list | tuple | set):
        return "list", tuple(_comparable(each) for each in value)
    try:
        hash(value)
    except TypeError:
        # Equal to itself alone.
        return id(value)
    return value  # type: ignore[no-any-return]


class Given(Mapping[str, Any]):
    """Options that can be compared and hashed, whatever they hold."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._key = _comparable(self._options)

    def __getitem__(self, name: str) -> Any:
        return self._options[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Given({self._options!r})"


NOTHING = Given({})
current_options: ContextVar[Given] = ContextVar("penstock_ray_options", default=NOTHING)


@contextmanager
def remote_options(**options: Any) -> Iterator[None]:
    """Give Ray options for the task runs that are submitted inside the block.

    Blocks may be nested: the options are merged, and where two blocks name the same option the
    inner one counts. Runners other than the RayTaskRunner take no notice.

    Args:
        options: what Ray's `remote_function.options(…)` takes, such as `num_cpus`, `num_gpus`,
            `memory`, `resources`, `max_retries`, `scheduling_strategy` or `runtime_env`. What
            Ray cannot do with them is told when a task run is submitted.

    Raises:
        ValueError: an option that Penstock sets itself.

    Example:
        Let one task run have two processors::

            with remote_options(num_cpus=2):
                future = train.submit(model)
    """
    for name in sorted(MANAGED.intersection(options)):
        raise InvalidOptionError(
            f"`remote_options` cannot set `{name}`. This option is managed by Penstock."
        )
    token = current_options.set(Given({**current_options.get(), **options}))
    try:
        yield
    finally:
        current_options.reset(token)
