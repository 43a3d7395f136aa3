"""What `--runner` takes: one table of task runners."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from penstock.cli.exits import usage_error


@dataclass(frozen=True)
class Choice:
    """A runner of the table.

    Attributes:
        workers: the argument that `--workers` sets, as a path into keyword arguments; empty:
            this runner has no number of workers.
        takes_address: whether `name:ADDRESS` connects to something that runs already.
    """

    module: str
    class_name: str
    workers: tuple[str, ...] = ()
    takes_address: bool = False


RUNNERS: dict[str, Choice] = {
    "sequential": Choice("sequential", "SequentialTaskRunner"),
    "concurrent": Choice("concurrent", "ConcurrentTaskRunner", workers=("max_workers",)),
}


def make_runner(text: str, workers: int | None = None) -> Any:
    """Make the task runner that was asked for: `name` or `name:ADDRESS`."""
    name, _, address = text.partition(":")
    choice = RUNNERS.get(name)
    if choice is None:
        raise usage_error(f"There is no runner {text!r}.", f"The runners are: {runner_names()}")
    arguments: dict[str, Any] = {}
    if address and not choice.takes_address:
        raise usage_error(f"The {name} runner takes no address.", f"Use: --runner {name}")
    if address:
        arguments["address"] = address
    if workers is not None:
        if not choice.workers:
            raise usage_error(
                f"The {name} runner has no number of workers.", "Leave --workers out."
            )
        if address:
            raise usage_error("--workers cannot change what runs already at an address.")
        _set_at(arguments, choice.workers, workers)
    module = importlib.import_module(f"penstock.task_runners.{choice.module}")
    return getattr(module, choice.class_name)(**arguments)


def runner_names() -> str:
    """Name what `--runner` takes."""
    names = [*RUNNERS, *(f"{name}:ADDRESS" for name, each in RUNNERS.items() if each.takes_address)]
    return ", ".join(names)


def _set_at(arguments: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        arguments = arguments.setdefault(name, {})
    arguments[path[-1]] = value
