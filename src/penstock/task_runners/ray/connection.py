"""Open what a RayTaskRunner asks for: a local instance, a cluster, or the Ray that is there.

    is Ray initialised in this process? ──yes──► use it, and leave it running
        │ no
        ├─ an address ─► connect ─┐
        └─ none ─► start one ─────┴─► the last runner that uses it shuts it down

One process has one Ray, so flow runs that go on at the same time share it. The processes of a
local instance end with the thread that has started them: it is one of its own, which lasts.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import ray

from penstock.errors import EngineError, EngineUnreachable, InvalidOptionError
from penstock.states import describe_exception

if TYPE_CHECKING:
    from penstock.task_runners.ray.runner import RayTaskRunner

LOOPBACK = "127.0.0.1"
_CLIENT = "ray://"
_NEEDLESS = ("SIGTERM handler is not set", "Token authentication is enabled")
_SHUTDOWN_SECONDS = 20.0
_CONNECT_SECONDS = 5.0
_CLIENT_ATTEMPTS = 3
_NOT_STARTED = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
_lock = threading.Lock()
_ours: _OurRay | None = None


class _OurRay:
    """The Ray that a runner of this process has initialised, and who uses it."""

    def __init__(self, address: str | None) -> None:
        self.address = address
        self.users = 0
        self._work: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="penstock-ray", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], Any], seconds: float | None = None) -> Any:
        """Call a function in the thread that the instance lives in."""
        answers: SimpleQueue[Any] = SimpleQueue()
        self._work.put((function, answers))
        found, problem = answers.get(timeout=seconds)
        if problem is not None:
            raise problem
        return found

    def end(self) -> None:
        """End the thread, and with it what it has started."""
        self._work.put(None)
        self._thread.join(_SHUTDOWN_SECONDS)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            function, answers = work
            try:
                answers.put((function(), None))
            except BaseException as exc:
                answers.put((None, exc))


def connect(settings: RayTaskRunner, logger: logging.Logger) -> Callable[[], None]:
    """Have Ray initialised in this process; gives what releases it. Blocks.

    Args:
        logger: gets INFO lines that say what is opened.

    Raises:
        EngineUnreachable: no cluster answers at the address.
        EngineError: Ray cannot be started, or is initialised for another cluster.
    """
    with _lock:
        if ray.is_initialized():
            _check_same(settings)
            logger.info("Local Ray instance is already initialized. Using existing local instance.")
            _say_ignored(settings, logger)
        else:
            _initialise(settings, logger)
        release = _hold()
    try:
        logger.info("Using Ray cluster with %s nodes.", len(alive_nodes()))
    except BaseException:
        release()
        raise
    return release


def alive_nodes() -> list[dict[str, Any]]:
    """Give what Ray knows of the nodes that live."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node.get("Alive")]


def is_client() -> bool:
    """Tell whether this process is connected through Ray's client."""
    return bool(ray.util.client.ray.is_connected())  # type: ignore[no-untyped-call]


def _initialise(settings: RayTaskRunner, logger: logging.Logger) -> None:
    global _ours
    address = settings.address
    if address is None:
        logger.info("Creating a local Ray instance")
        kwargs = _local_kwargs(settings.init_kwargs)
    else:
        logger.info("Connecting to an existing Ray instance at %s", address)
        _check_answer(address)
        kwargs = {"logging_level": logging.WARNING, **settings.init_kwargs, "address": address}
        if address.startswith(_CLIENT):
            del kwargs["logging_level"]
    ours = _OurRay(address)
    try:
        context = ours.call(lambda: _init_patiently(kwargs, logger))
    except BaseException as exc:
        ours.end()
        if not isinstance(exc, Exception):
            raise
        raise _refused(address, exc) from exc
    _ours = ours
    dashboard = getattr(context, "dashboard_url", None)
    if dashboard:
        logger.info("The Ray UI is available at %s", _url(dashboard))


def _init_patiently(kwargs: dict[str, Any], logger: logging.Logger) -> Any:
    """Initialise Ray, again if the cluster could not start the server of a client.

    The cluster forks it while other threads of its use gRPC, and that sometimes crashes.
    """
    for _ in range(1, _CLIENT_ATTEMPTS):
        try:
            return _init(kwargs)
        except ConnectionAbortedError as exc:
            if not any(said in str(exc) for said in _NOT_STARTED):
                raise
            logger.warning("The Ray cluster could not start a server for this client; once more.")
    return _init(kwargs)


def _init(kwargs: dict[str, Any]) -> Any:
    with _quiet():
        try:
            return ray.init(**kwargs)
        except BaseException:
            # A client that could not connect leaves the process in client mode, in which no
            # local instance can be told from none.
            ray.shutdown()
            raise


def _local_kwargs(given: dict[str, Any]) -> dict[str, Any]:
    """Complete the keywords of a local instance: on loopback, and telling nobody."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return {
        # None would connect to a cluster that the environment or this machine happens to have.
        "address": "local",
        "include_dashboard": False,
        "dashboard_host": LOOPBACK,
        "_node_ip_address": LOOPBACK,
        "logging_level": logging.WARNING,
        **given,
    }


def _url(dashboard: str) -> str:
    return dashboard if "://" in dashboard else f"http://{dashboard}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep out of the log what Ray says at every start and nobody can do anything about."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NEEDLESS)

    loggers = [
        logging.getLogger(name)
        for name in (
            "ray._private.worker",
            "ray._private.authentication.authentication_token_setup",
        )
    ]
    for logger in loggers:
        logger.addFilter(is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_news)


def _refused(address: str | None, exc: Exception) -> EngineError:
    said = describe_exception(exc)
    if address is None:
        return EngineError(f"The local Ray instance could not be started: {said}.")
    if isinstance(exc, OSError):
        return EngineUnreachable(
            f"No Ray cluster answers at {address!r}: {said}. See that it runs, and that the "
            "address can be reached from here. One that was started with token authentication "
            "answers only where RAY_AUTH_MODE=token is set."
        )
    return EngineError(f"Connecting to the Ray cluster at {address!r} failed: {said}.")


def _check_answer(address: str) -> None:
    """Find out in seconds that nobody listens at an address; Ray itself takes a minute."""
    host, _, port = address.removeprefix(_CLIENT).partition("/")[0].rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as exc:
        raise _refused(address, exc) from exc


def _check_same(settings: RayTaskRunner) -> None:
    """Refuse an address that is not that of the Ray that is initialised here."""
    address = settings.address
    if address in (None, "auto") or (_ours is not None and _ours.address == address):
        return
    assert address is not None
    if is_client() or address.startswith(_CLIENT) or _is_worker():
        # What a client's address stands for nobody here can tell.
        return
    here = ray.get_runtime_context().gcs_address
    if address != here:
        raise InvalidOptionError(
            f"Ray is initialised in this process for {here}, and a process has one Ray: it cannot "
            f"connect to {address!r} as well. Leave `address` out, or call `ray.shutdown()` first."
        )


def _is_worker() -> bool:
    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def _say_ignored(settings: RayTaskRunner, logger: logging.Logger) -> None:
    ignored = sorted(set(settings.init_kwargs) - {"namespace"})
    if ignored and (_ours is None or not _ours.users):
        logger.warning(
            "Ray is initialised already, so the `init_kwargs` %s have no effect.",
            ", ".join(ignored),
        )


def _hold() -> Callable[[], None]:
    """Take note of one more user of our Ray; gives what takes note of its end."""
    ours = _ours
    if ours is None:
        return lambda: None
    ours.users += 1

    def release() -> None:
        global _ours
        with _lock:
            ours.users -= 1
            if ours.users or _ours is not ours:
                return
            _ours = None
            _shut_down(ours)

    return release


def _shut_down(ours: _OurRay) -> None:
    try:
        ours.call(ray.shutdown, _SHUTDOWN_SECONDS)
    except Exception as exc:
        # Whoever has started it ends, and it with them.
        logging.getLogger("penstock.task_runner.ray").warning(
            "Ray could not be shut down in good order: %s", describe_exception(exc)
        )
    ours.end()
