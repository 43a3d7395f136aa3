"""DaskTaskRunner: its settings. What needs `distributed` is loaded when the runner is used."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

from penstock.errors import InvalidOptionError, MissingDependencyError
from penstock.remote.runner import RemoteTaskRunner
from penstock.task_runners.base import TaskConcurrencyType, _rebuild

_MISSING_TEXT = (
    "Using the `DaskTaskRunner` requires `distributed`; "
    'install it with: pip install "penstock[dask]"'
)


class DaskTaskRunner(RemoteTaskRunner):
    """Run tasks on a Dask cluster: a temporary one, or one that runs already.

    Without arguments every flow run gets a `distributed.LocalCluster` of its own, on this
    machine, which is closed after it. A flow run that itself runs on a worker of such a cluster
    uses that cluster.

    Args:
        cluster: a running cluster object, made with `asynchronous=True`. It is not closed.
        address: the address of a running scheduler, such as "tcp://10.0.0.7:8786".
        cluster_class: what makes the temporary cluster: a class, a callable, or an import path
            such as "dask_cloudprovider.aws.FargateCluster".
        cluster_kwargs: keyword arguments for it.
        adapt_kwargs: turns on adaptive scaling: keyword arguments for the cluster's `adapt`,
            such as `minimum` and `maximum`.
        client_kwargs: keyword arguments for `distributed.Client`; `timeout` is how many seconds
            to try to connect.
        performance_report_path: where to write Dask's performance report, an HTML file.
        bundle: whether small task runs may travel several in one message.

    Raises:
        ValueError: settings that contradict each other, or a `cluster_class` that cannot be
            imported.

    Example:
        >>> DaskTaskRunner(cluster_kwargs={"n_workers": 2}, adapt_kwargs={"maximum": 4})
        DaskTaskRunner(cluster_kwargs={'n_workers': 2}, adapt_kwargs={'maximum': 4})
    """

    def __init__(
        self,
        cluster: Any = None,
        address: str | None = None,
        cluster_class: str | Callable[..., Any] | None = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        adapt_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        performance_report_path: str | os.PathLike[str] | None = None,
        bundle: bool = True,
    ) -> None:
        _check_place(cluster, address, cluster_class, cluster_kwargs, adapt_kwargs)
        self.cluster = cluster
        self.address = address
        self.client_kwargs = _copied("client_kwargs", client_kwargs)
        self.cluster_kwargs = _copied("cluster_kwargs", cluster_kwargs)
        self.adapt_kwargs = _copied("adapt_kwargs", adapt_kwargs)
        _check_managed("client_kwargs", self.client_kwargs)
        _check_managed("cluster_kwargs", self.cluster_kwargs)
        _check_kinds(address, bundle)
        self.cluster_class = _imported(cluster_class)
        self.performance_report_path = _path(performance_report_path)
        self.bundle = bundle
        self._client: Any = None
        self._scheduler_address: str | None = None
        self._security: Any = None

    @property
    def concurrency_type(self) -> TaskConcurrencyType:
        threads = TaskConcurrencyType.CONCURRENT
        if self.cluster is not None:
            processes = getattr(self.cluster, "processes", True)
        elif self.address is not None:
            processes = not self.address.startswith("inproc://")
        else:
            processes = self.cluster_kwargs.get("processes", True)
        return threads if processes is False else TaskConcurrencyType.PARALLEL

    @property
    def scheduler_address(self) -> str | None:
        """The address of the scheduler; None before the start.

        A copy that travelled keeps the address that the original had.
        """
        return self._scheduler_address

    @property
    def security(self) -> Any:
        """The `distributed.Security` that connections to the scheduler need; None before start."""
        return self._security

    async def _open(self, exit_stack: AsyncExitStack) -> Any:
        engine: Any = await load("engine").open_engine(self, exit_stack)
        return engine

    def check_resources(self, task_name: str, resources: Mapping[str, float]) -> None:
        if self._dispatcher is not None:
            load("resources").check(self, self._dispatcher.engine, task_name, resources)

    async def connect(self, exit_stack: AsyncExitStack) -> Any:
        """Open the cluster and a client of it; know its address until the stack unwinds.

        Returns:
            The client, and what has yet to be awaited: the check of the workers.
        """
        dask = load("cluster")
        self._client = await dask.connect(self, exit_stack, self.logger)
        self._scheduler_address = self._client.scheduler.address
        self._security = self._client.security
        exit_stack.callback(self._forget)
        return self._client, dask.check_workers(self._client, self.logger)

    def _forget(self) -> None:
        self._client = self._scheduler_address = self._security = None

    def __reduce__(self) -> tuple[Any, ...]:
        live = {"_scheduler_address": self._scheduler_address, "_security": self._security}
        arguments = self._constructor_arguments()
        if self.cluster is not None:
            cluster = self.cluster
            arguments["cluster"] = ClusterElsewhere(
                cluster.scheduler_address,
                getattr(cluster, "security", None),
                getattr(cluster, "processes", True),
            )
            live["_scheduler_address"] = cluster.scheduler_address
        return _rebuild, (type(self), arguments, self._started), live

    def __eq__(self, other: object) -> bool:
        # A Dask cluster equals nothing of another type: what stands for it has to be asked.
        return super().__eq__(other) or (
            isinstance(other, DaskTaskRunner) and super(DaskTaskRunner, other).__eq__(self)
        )

    __hash__ = RemoteTaskRunner.__hash__

    def __repr__(self) -> str:
        given = {
            name: value
            for name, value in self._constructor_arguments().items()
            if (value is not True if name == "bundle" else value not in (None, {}))
        }
        listed = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{type(self).__name__}({listed})"


def load(name: str) -> ModuleType:
    """Load the file of this folder that imports `distributed`: the one place that does.

    Raises:
        MissingDependencyError: `distributed` is not installed.
    """
    try:
        return importlib.import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as exc:
        if (exc.name or "").split(".")[0] not in ("distributed", "dask"):
            raise
        raise MissingDependencyError(_MISSING_TEXT) from exc


def _check_place(
    cluster: Any, address: Any, cluster_class: Any, cluster_kwargs: Any, adapt_kwargs: Any
) -> None:
    has_cluster = cluster is not None
    if address and (has_cluster or cluster_class or cluster_kwargs or adapt_kwargs):
        raise InvalidOptionError(
            "Cannot specify `address` and `cluster`/`cluster_class`/`cluster_kwargs`/`adapt_kwargs`"
        )
    if has_cluster and (cluster_class or cluster_kwargs):
        raise InvalidOptionError("Cannot specify `cluster` and `cluster_class`/`cluster_kwargs`")
    if has_cluster and not _is_asynchronous(cluster):
        raise InvalidOptionError(
            "The cluster must have `asynchronous=True` to be used with `DaskTaskRunner`. "
            "For a synchronous one pass `address=cluster.scheduler_address` instead."
        )


def _is_asynchronous(cluster: Any) -> bool:
    # The public property says True in the thread of the cluster's loop only; what the cluster
    # was made with is kept under a private name.
    made = getattr(cluster, "_Cluster__asynchronous", None) is True
    return made or bool(getattr(cluster, "asynchronous", False))


def _copied(name: str, kwargs: Any) -> dict[str, Any]:
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InvalidOptionError(
            f"`{name}` is {kwargs!r}; it must be a dictionary of keyword arguments."
        )
    return dict(kwargs or {})


def _check_managed(name: str, kwargs: dict[str, Any]) -> None:
    if "asynchronous" in kwargs:
        raise InvalidOptionError(
            f"`{name}` cannot set `asynchronous`. This option is managed by Penstock."
        )


def _check_kinds(address: Any, bundle: Any) -> None:
    if address is not None and (not isinstance(address, str) or not address.strip()):
        raise InvalidOptionError(
            f"`address` is {address!r}; it must be a scheduler's address as text, "
            "such as 'tcp://127.0.0.1:8786'."
        )
    if not isinstance(bundle, bool):
        raise InvalidOptionError(f"`bundle` is {bundle!r}; it must be True or False.")


def _imported(cluster_class: Any) -> Callable[..., Any] | None:
    made = _import(cluster_class) if isinstance(cluster_class, str) else cluster_class
    if made is not None and not callable(made):
        raise InvalidOptionError(
            f"`cluster_class` is {cluster_class!r}; it must be a class, a callable, or an "
            "import path such as 'dask_cloudprovider.aws.FargateCluster'."
        )
    checked: Callable[..., Any] | None = made
    return checked


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        if not module:
            raise ImportError("it names no module, as 'package.module.ClassName' does")
        return getattr(importlib.import_module(module), name)
    except Exception as exc:  # a module may raise anything while it is imported
        raise InvalidOptionError(
            f"`cluster_class` is {path!r}, which cannot be imported: {type(exc).__name__}: {exc}."
        ) from exc


def _path(path: Any) -> str | None:
    if path is None:
        return None
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str) or not text:
        raise InvalidOptionError(
            f"`performance_report_path` is {path!r}; it must be the path of a file to write."
        )
    return text


class ClusterElsewhere:
    """Stands for a cluster object in another process: it cannot travel, its address can.

    Equal to whatever has the same scheduler. It adapts where it lives.
    """

    asynchronous = True

    def __init__(self, scheduler_address: str, security: Any, processes: bool) -> None:
        self.scheduler_address = scheduler_address
        self.security = security
        self.processes = processes

    def __eq__(self, other: object) -> bool:
        return getattr(other, "scheduler_address", None) == self.scheduler_address

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ClusterElsewhere({self.scheduler_address!r})"
