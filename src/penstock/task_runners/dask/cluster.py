"""Open what a DaskTaskRunner asks for: a cluster, a client of it, Dask's performance report.

Everything runs on one event loop, and everything opened is released by the exit stack:

    settings ─► cluster (ours, or handed to us) ─► client by the scheduler's address ─► report
                └─ a given cluster keeps its own loop, in whatever thread that runs

Nothing that was handed to us is closed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
import distributed
from dask.utils import parse_timedelta

from penstock.errors import (
    EngineError,
    EngineUnreachable,
    InvalidOptionError,
    MissingDependencyError,
)
from penstock.task_runners.dask import terminal
from penstock.task_runners.dask.default_client import as_default
from penstock.task_runners.dask.resources import declare
from penstock.task_runners.dask.script import check_guard
from penstock.task_runners.dask.workers import check_workers

if TYPE_CHECKING:
    from penstock.task_runners.dask.runner import DaskTaskRunner

__all__ = ["check_workers", "connect"]

LOOPBACK = "127.0.0.1"
ANY_PORT = f"{LOOPBACK}:0"
GRACE = 0.5  # seconds


@dataclass(frozen=True)
class Place:
    """Where a scheduler is.

    Attributes:
        address: the scheduler's address.
        security: what a connection to it needs; None is Dask's own choice.
        dashboard: the dashboard's address; None asks the scheduler, "" is none.
        hint: what to do when it does not answer, beside the general advice.
    """

    address: str
    security: Any = None
    dashboard: str | None = None
    hint: str = ""


async def connect(
    settings: DaskTaskRunner, exit_stack: AsyncExitStack, logger: logging.Logger
) -> distributed.Client:
    """Open what the settings ask for and give a connected client.

    Args:
        exit_stack: gets the release of everything opened, also when opening fails half-way.
        logger: gets INFO lines that say what is opened.

    Raises:
        EngineUnreachable: the scheduler does not answer within the connection time limit.
        EngineError: the cluster cannot be started.
    """
    report = _report_path(settings.performance_report_path)
    place = await _place(settings, exit_stack, logger)
    client = await _client(place, settings.client_kwargs, exit_stack)
    dashboard = _dashboard(client) if place.dashboard is None else place.dashboard
    if dashboard:
        logger.info("The Dask dashboard is available at %s", dashboard)
    if report is not None:
        await _write_report(client, report, exit_stack, logger)
    return client


# --- the cluster ---------------------------------------------------------------------------------


async def _place(
    settings: DaskTaskRunner, exit_stack: AsyncExitStack, logger: logging.Logger
) -> Place:
    if settings.cluster is not None:
        return await _given(settings, logger)
    address = settings.address or _address_of_this_worker(settings)
    if address is not None:
        logger.info("Connecting to an existing Dask cluster at %s", address)
        return Place(address)
    return await _temporary(settings, exit_stack, logger)


def _address_of_this_worker(settings: DaskTaskRunner) -> str | None:
    """Give the scheduler's address on a worker that cannot have a cluster of its own.

    Dask's worker processes are daemonic: they may have no children. A runner that travelled from
    another flow run means that run's cluster anyway.
    """
    own = settings.cluster_class or settings.cluster_kwargs or settings.adapt_kwargs
    here = list(distributed.Worker._instances)
    if not here or not (settings._was_started or (current_process().daemon and not own)):
        return None
    address: str = here[0].scheduler.address
    return address


async def _temporary(
    settings: DaskTaskRunner, exit_stack: AsyncExitStack, logger: logging.Logger
) -> Place:
    cluster_class = settings.cluster_class or distributed.LocalCluster
    name = _import_path(cluster_class)
    logger.info("Creating a new Dask cluster with `%s`", name)
    is_local = isinstance(cluster_class, type) and issubclass(
        cluster_class, distributed.LocalCluster
    )
    kwargs = _local_kwargs(settings.cluster_kwargs) if is_local else settings.cluster_kwargs
    if is_local:
        if _has_processes(kwargs):
            check_guard()
        terminal.block_in_this_thread()
    try:
        cluster: Any = cluster_class(asynchronous=True, **kwargs)
        if inspect.iscoroutine(cluster):
            cluster = await cluster
        if is_local:
            _keep_workers_on_loopback(cluster, kwargs)
            if "resources" not in kwargs:
                declare(cluster)
        await _enter(cluster, exit_stack)
        if settings.adapt_kwargs:
            await _adapt(cluster, settings.adapt_kwargs)
    except Exception as exc:
        raise EngineError(
            f"The Dask cluster could not be started with `{name}`: {_said(exc)}."
        ) from exc
    dashboard = _local_dashboard(cluster, settings.cluster_kwargs) if is_local else None
    return Place(cluster.scheduler_address, getattr(cluster, "security", None), dashboard)


async def _enter(cluster: Any, exit_stack: AsyncExitStack) -> None:
    """Start a cluster, which the stack closes; one whose start is interrupted as well."""
    try:
        await exit_stack.enter_async_context(cluster)
    except asyncio.CancelledError:
        with suppress(Exception):
            await cluster.close()
        raise


def _import_path(cluster_class: Any) -> str:
    name = getattr(cluster_class, "__qualname__", type(cluster_class).__qualname__)
    return f"{getattr(cluster_class, '__module__', '')}.{name}".lstrip(".")


def _local_kwargs(given: dict[str, Any]) -> dict[str, Any]:
    """Complete the keywords of a LocalCluster: loopback only, deaf to the terminal."""
    kwargs = dict(given)
    address = kwargs.get("dashboard_address", ANY_PORT)
    if address is None:
        # Its HTTP server listens nevertheless, and without an address on every interface.
        kwargs["scheduler_kwargs"] = {"dashboard": False, **(kwargs.get("scheduler_kwargs") or {})}
    kwargs["dashboard_address"] = _on_loopback(address)
    if _has_processes(kwargs):
        kwargs |= _preloads(kwargs)
    return kwargs


def _on_loopback(address: Any) -> Any:
    """Complete an address that has no host."""
    if address is None:
        return ANY_PORT
    if isinstance(address, list | tuple):
        return [_on_loopback(one) for one in address]
    text = str(address)
    if "," in text:
        return ",".join(str(_on_loopback(one)) for one in text.split(","))
    return f"{LOOPBACK}:{text.removeprefix(':')}" if text.lstrip(":").isdecimal() else address


def _has_processes(kwargs: dict[str, Any]) -> bool:
    processes = kwargs.get("processes")
    if processes is not None:
        return bool(processes)
    worker_class = kwargs.get("worker_class")
    return worker_class is None or issubclass(worker_class, distributed.Nanny)


def _preloads(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Put our preload before the user's."""
    given = kwargs.get("preload")
    if given is None:
        given = dask.config.get("distributed.worker.preload")
    argv = kwargs.get("preload_argv")
    if argv is None:
        argv = dask.config.get("distributed.worker.preload-argv")
    listed = [given] if isinstance(given, str) else list(given or [])
    if argv and isinstance(argv[0], str):
        argv = [argv] * len(listed)
    argvs = list(argv) if argv else [[] for _ in listed]
    return {"preload": [terminal.__name__, *listed], "preload_argv": [[], *argvs]}


def _keep_workers_on_loopback(cluster: Any, kwargs: dict[str, Any]) -> None:
    # A worker's HTTP server takes the host of the worker; one in this process has none, and
    # would listen on every interface. The keyword for it would turn on the worker's dashboard.
    if kwargs.get("worker_dashboard_address") is None:
        for worker in (cluster.new_spec, *cluster.worker_spec.values()):
            worker["options"]["dashboard_address"] = ANY_PORT


def _local_dashboard(cluster: Any, kwargs: dict[str, Any]) -> str:
    """Give the dashboard's address by what it listens on; "" where there is none."""
    if kwargs.get("dashboard_address", ANY_PORT) is None or not _has_bokeh():
        return ""
    server = cluster.scheduler.http_server
    host = LOOPBACK if server.address in ("0.0.0.0", "::", "") else server.address
    link: str = distributed.utils.format_dashboard_link(host, server.port)
    return link


def _has_bokeh() -> bool:
    return importlib.util.find_spec("bokeh") is not None


# --- a cluster that was handed to us -------------------------------------------------------------


async def _given(settings: DaskTaskRunner, logger: logging.Logger) -> Place:
    cluster = settings.cluster
    logger.info("Connecting to existing Dask cluster %s", cluster)
    status = getattr(getattr(cluster, "status", None), "name", "running")
    if status in ("closing", "closed", "failed"):
        raise EngineError(f"{cluster!r} is {status}. Pass a cluster that runs.")
    limit = _time_limit(settings.client_kwargs)
    if status == "created":
        await _on_its_loop(cluster, _started, limit)
    if settings.adapt_kwargs and hasattr(cluster, "adapt"):
        await _on_its_loop(cluster, lambda one: _adapt(one, settings.adapt_kwargs), limit)
    return Place(
        cluster.scheduler_address,
        getattr(cluster, "security", None),
        getattr(cluster, "dashboard_link", None),
        "The event loop of the cluster must keep running while the flow runs. ",
    )


async def _started(cluster: Any) -> None:
    await cluster


async def _adapt(cluster: Any, kwargs: dict[str, Any]) -> None:
    adapting = cluster.adapt(**kwargs)
    if inspect.isawaitable(adapting):
        await adapting


async def _on_its_loop(
    cluster: Any, function: Callable[[Any], Awaitable[None]], limit: float
) -> None:
    """Run a coroutine function on the event loop that the cluster lives on."""
    own = getattr(getattr(cluster, "loop", None), "asyncio_loop", None)
    if own is None or own is asyncio.get_running_loop():
        await function(cluster)
        return

    async def call() -> None:
        await function(cluster)

    if own.is_closed() or not own.is_running():
        raise EngineError(f"The event loop of {cluster!r} does not run. Keep it running.")
    there = asyncio.run_coroutine_threadsafe(call(), own)
    try:
        await asyncio.wait_for(asyncio.wrap_future(there), limit)
    except TimeoutError as exc:
        raise EngineUnreachable(
            f"{cluster!r} did not answer within {limit:g} seconds. Its event loop must keep "
            "running while the flow runs: run the flow in another thread, or make it async."
        ) from exc


# --- the client ----------------------------------------------------------------------------------


async def _client(
    place: Place, client_kwargs: dict[str, Any], exit_stack: AsyncExitStack
) -> distributed.Client:
    limit = _time_limit(client_kwargs)
    kwargs = {"set_as_default": False, "security": place.security, **client_kwargs}
    try:
        client = distributed.Client(place.address, asynchronous=True, **kwargs)
        # Before it is connected: one that fails to connect must be closed, too.
        exit_stack.push_async_callback(_close, client)
        # The client has the same limit for each of its steps, and says more when one is over.
        async with asyncio.timeout(limit + GRACE):
            await client
    except (TypeError, KeyError) as exc:
        raise EngineError(
            f"A client of the Dask scheduler at {place.address!r} cannot be opened: {_said(exc)}. "
            "Check `client_kwargs` and the address."
        ) from exc
    except (OSError, ValueError, ImportError) as exc:
        raise EngineUnreachable(
            f"No Dask scheduler answers at {place.address!r} (tried for {limit:g} seconds): "
            f"{_said(exc)}. {place.hint}Check the address and that the scheduler runs; "
            "`client_kwargs={'timeout': …}` sets how long to try."
        ) from exc
    if client.status != "running":
        raise EngineUnreachable(
            f"The Dask scheduler at {place.address!r} closed the connection. Check that it runs "
            "and, if it wants secure connections, pass `client_kwargs={'security': …}`."
        )
    return client


def _time_limit(client_kwargs: dict[str, Any]) -> float:
    given = client_kwargs.get("timeout", dask.config.get("distributed.comm.timeouts.connect"))
    limit: float = parse_timedelta(given, "s")
    return limit


def _said(exc: BaseException) -> str:
    """Say the first cause in one line; the outer errors of Dask only say that it took long."""
    while isinstance(exc.__cause__, Exception):
        exc = exc.__cause__
    if isinstance(exc, TimeoutError) and not str(exc):
        return "no answer"
    return f"{type(exc).__name__}: {exc}".strip(": ").rstrip(".")


async def _close(client: distributed.Client) -> None:
    await client.close()


def _dashboard(client: distributed.Client) -> str:
    try:
        return client.dashboard_link or ""
    except (KeyError, ValueError):  # the scheduler has no HTTP server
        return ""


# --- the performance report ----------------------------------------------------------------------


def _report_path(path: str | None) -> str | None:
    """Check up front what would fail only after the work is done.

    Raises:
        MissingDependencyError: Bokeh, which draws the report, is not installed.
        InvalidOptionError: the file cannot be written there.
    """
    if path is None:
        return None
    if not _has_bokeh():
        raise MissingDependencyError(
            "`performance_report_path` requires `bokeh`; install it with: pip install bokeh"
        )
    if "://" in path:  # somewhere that fsspec knows
        return path
    target = Path(path).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("a").close()
    except OSError as exc:
        raise InvalidOptionError(
            f"`performance_report_path` is {path!r}, which cannot be written: {exc.strerror}."
        ) from exc
    return str(target)


async def _write_report(
    client: distributed.Client, path: str, exit_stack: AsyncExitStack, logger: logging.Logger
) -> None:
    report = distributed.performance_report(path)

    async def write() -> None:
        try:
            with as_default(client):
                await report.__aexit__(None, None, None, code="")
        except Exception as exc:  # the work is done, with or without its report
            logger.warning(
                "Dask's performance report could not be written to %s: %s: %s",
                path,
                type(exc).__name__,
                exc,
            )

    with as_default(client):
        await report.__aenter__()
    exit_stack.push_async_callback(write)
