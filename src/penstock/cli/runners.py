"""What `--runner` takes: one table of task runners."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from penstock.cli.exits import usage_error
from penstock.errors import InvalidOptionError

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """A runner of the table.

    Attributes:
        workers: gives the arguments with which so many task runs run at once; None: this runner
            has no number of workers.
        takes_address: whether `name:ADDRESS` connects to something that runs already.
        requires: the package that it needs beside Penstock.
    """

    module: str
    class_name: str
    workers: Callable[[int], Arguments] | None = None
    takes_address: bool = False
    requires: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether what it needs is there; tells without loading it."""
        return self.requires is None or importlib.util.find_spec(self.requires) is not None


RUNNERS: dict[str, Choice] = {
    "sequential": Choice("sequential", "SequentialTaskRunner"),
    "concurrent": Choice(
        "concurrent", "ConcurrentTaskRunner", workers=lambda number: {"max_workers": number}
    ),
    "process": Choice(
        "processes.runner",
        "ProcessPoolTaskRunner",
        workers=lambda number: {"max_workers": number},
    ),
    "dask": Choice(
        "dask.runner",
        "DaskTaskRunner",
        workers=lambda number: {"cluster_kwargs": {"n_workers": number, "threads_per_worker": 1}},
        takes_address=True,
        requires="distributed",
    ),
    "ray": Choice(
        "ray.runner",
        "RayTaskRunner",
        workers=lambda number: {"init_kwargs": {"num_cpus": number}},
        takes_address=True,
        requires="ray",
    ),
}


def make_runner(text: str, workers: int | None = None) -> Any:
    """Make the task runner that was asked for: `name` or `name:ADDRESS`."""
    name, colon, address = text.partition(":")
    choice = RUNNERS.get(name)
    if choice is None:
        raise usage_error(f"There is no runner {text!r}.", f"The runners are: {runner_names()}")
    arguments: Arguments = {}
    if colon and not choice.takes_address:
        raise usage_error(f"The {name} runner takes no address.", f"Use: --runner {name}")
    if colon and not address.strip():
        raise usage_error(
            f"There is no address in {text!r}.", f"Use: --runner {name}, or {name}:ADDRESS"
        )
    if address:
        arguments["address"] = address
    if workers is not None:
        given = _workers(name, choice, workers)
        if address:
            raise usage_error("--workers cannot change what runs already at an address.")
        arguments |= given
    module = importlib.import_module(f"penstock.task_runners.{choice.module}")
    return getattr(module, choice.class_name)(**arguments)


def with_workers(runner: Any, workers: int) -> Any:
    """Give a copy of a flow's own runner that runs so many task runs at once."""
    name = _name_of(runner)
    choice = RUNNERS.get(name)
    if choice is None:
        raise usage_error(
            f"--workers does not know the flow's own runner, {runner}.",
            f"Say which runner: --runner {runner_names()}",
        )
    arguments = runner._constructor_arguments()
    for argument, value in _workers(name, choice, workers).items():
        own = arguments.get(argument)
        arguments[argument] = {**own, **value} if isinstance(own, dict) else value
    try:
        return type(runner)(**arguments)
    except InvalidOptionError as exc:
        raise usage_error(
            f"--workers cannot change the flow's own runner, {runner!r}.",
            f"Say which runner: --runner {runner_names()}",
        ) from exc


def _name_of(runner: Any) -> str:
    """Give the name of a runner in the table; empty for one that is not in it."""
    kind = type(runner).__name__
    return next((name for name, choice in RUNNERS.items() if choice.class_name == kind), "")


def runner_names() -> str:
    """Name what `--runner` takes."""
    names = [*RUNNERS, *(f"{name}:ADDRESS" for name, each in RUNNERS.items() if each.takes_address)]
    return ", ".join(names)


def _workers(name: str, choice: Choice, workers: int) -> Arguments:
    if choice.workers is None:
        raise usage_error(f"The {name} runner has no number of workers.", "Leave --workers out.")
    return choice.workers(workers)


runner_option = click.option("--runner", metavar="NAME", help=f"The task runner: {runner_names()}.")
workers_option = click.option(
    "--workers", type=click.IntRange(1), help="How many task runs at once."
)
