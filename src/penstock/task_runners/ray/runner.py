"""RayTaskRunner: its settings. What needs `ray` is loaded when the runner is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

from penstock.errors import InvalidOptionError, MissingDependencyError
from penstock.remote.runner import RemoteTaskRunner

_MISSING_TEXT = (
    'Using the `RayTaskRunner` requires `ray`; install it with: pip install "penstock[ray]"'
)
NAMESPACE = "penstock"


class RayTaskRunner(RemoteTaskRunner):
    """Run tasks on Ray: a local instance, or a cluster that runs already.

    Without arguments every flow run gets a Ray instance on this machine, which is shut down after
    it. Where Ray is initialised already, in this process or because this is a task on Ray, that
    Ray is used and left running.

    Args:
        address: of a running cluster: "auto", "ray://10.0.0.7:10001" or "10.0.0.7:6379". It is
            only disconnected from.
        init_kwargs: keyword arguments for `ray.init`; `namespace` is "penstock" unless given.
        bundle: whether small task runs may travel several in one message.

    Raises:
        ValueError: settings of the wrong kind.

    Example:
        >>> RayTaskRunner(init_kwargs={"num_cpus": 4})
        RayTaskRunner(init_kwargs={'num_cpus': 4, 'namespace': 'penstock'})
    """

    def __init__(
        self,
        address: str | None = None,
        init_kwargs: Mapping[str, Any] | None = None,
        bundle: bool = True,
    ) -> None:
        _check(address, init_kwargs, bundle)
        self.address = address
        self.init_kwargs = dict(init_kwargs or {})
        self.init_kwargs.setdefault("namespace", NAMESPACE)
        self.bundle = bundle

    async def _open(self, exit_stack: AsyncExitStack) -> Any:
        engine: Any = await load("engine").open_engine(self, exit_stack)
        return engine

    def check_resources(self, task_name: str, resources: Mapping[str, float]) -> None:
        if self._dispatcher is not None:
            self._dispatcher.engine.check(task_name, resources)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        given = {
            name: value
            for name, value in self._constructor_arguments().items()
            if (value is not True if name == "bundle" else value not in (None, {}))
        }
        listed = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{type(self).__name__}({listed})"


def load(name: str) -> ModuleType:
    """Load a file of this folder that imports `ray`.

    Raises:
        MissingDependencyError: `ray` is not installed.
    """
    try:
        return importlib.import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as exc:
        if (exc.name or "").split(".")[0] != "ray":
            raise
        raise MissingDependencyError(_MISSING_TEXT) from exc


def _check(address: Any, init_kwargs: Any, bundle: Any) -> None:
    if address is not None and (not isinstance(address, str) or not address.strip()):
        raise InvalidOptionError(
            f"`address` is {address!r}; it must be a cluster's address as text, "
            "such as 'auto' or 'ray://127.0.0.1:10001'."
        )
    if init_kwargs is not None and not isinstance(init_kwargs, Mapping):
        raise InvalidOptionError(
            f"`init_kwargs` is {init_kwargs!r}; it must be a dictionary of keyword arguments."
        )
    if "address" in (init_kwargs or {}):
        raise InvalidOptionError(
            "`init_kwargs` cannot set `address`. Use RayTaskRunner(address=…)."
        )
    if not isinstance(bundle, bool):
        raise InvalidOptionError(f"`bundle` is {bundle!r}; it must be True or False.")
