"""Dask as an engine: bundles become Dask tasks, kept values become Dask keys.

    dispatcher ──send──► client.submit(run, …) ──► scheduler ──► worker
               ◄──hear── relay ◄───────────────── scheduler ◄── report

The client lives on an event loop in a thread of its own, so that nothing the flow does keeps it
from answering the scheduler.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Hashable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import dask
from distributed import CancelledError, Client, Future, KilledWorker

from penstock.errors import CrashedRun, EngineLost, WorkerLost
from penstock.remote.dispatch import Dispatcher
from penstock.remote.engine import Bundle
from penstock.remote.values import Fetch
from penstock.runtime.loops import FlowLoop
from penstock.states import describe_exception
from penstock.task_runners.dask.relay import HELLO, REPORT, SIZE, UNREPEATED, UNSENT, WORD, Relay
from penstock.task_runners.dask.worker import run

if TYPE_CHECKING:
    from collections.abc import Coroutine

logger = logging.getLogger("penstock.task_runner.dask")
_PASSED_ON = frozenset({"priority", "resources", "workers", "allow_other_workers", "retries"})
_LOST_SECONDS = 15.0
_CHECK_SECONDS = 1.0


async def open_engine(runner: Any, exit_stack: AsyncExitStack) -> DaskEngine:
    """Open what a `DaskTaskRunner` asks for, on a loop of its own; the stack closes it."""
    loop = FlowLoop()
    inside = AsyncExitStack()

    def there(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop.opened()))

    async def connect() -> DaskEngine:
        owns_cluster = runner.cluster is None and runner.address is None
        engine = DaskEngine(await runner.connect(inside), owns_cluster)
        await engine.open(inside)
        return engine

    async def close() -> None:
        await there(inside.aclose())
        await asyncio.to_thread(loop.close)

    exit_stack.push_async_callback(close)
    return await there(connect())  # type: ignore[no-any-return]


class DaskEngine:
    """One client of a cluster. Thread-safe.

    Args:
        client: connected, with `asynchronous=True`, on the running loop.
    """

    def __init__(self, client: Client, owns_cluster: bool) -> None:
        self.client = client
        self.reply_to = client.id
        self.owns_cluster = owns_cluster
        self._loop = asyncio.get_running_loop()
        self._dispatcher: Dispatcher | None = None
        self._threads = 1
        self._shared: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()
        self._sent: dict[str, Bundle] = {}
        self._watches: set[asyncio.Task[None]] = set()

    async def open(self, exit_stack: AsyncExitStack) -> None:
        """Install the relay and start to listen."""
        await self.client.register_plugin(Relay())
        self.client._stream_handlers[REPORT] = self._hear
        self.client._stream_handlers[SIZE] = self._resize
        self.client._stream_handlers[UNSENT] = self._unsent
        self._say({"op": HELLO})
        watch = asyncio.create_task(self._watch_scheduler())
        exit_stack.push_async_callback(_cancel, watch)

    def listen(self, dispatcher: Dispatcher) -> None:
        """Report to a dispatcher from now on."""
        self._dispatcher = dispatcher

    def workers(self) -> int:
        return max(1, self._threads)

    def options_of(self, call: Any) -> Hashable:
        given = call.context.run(dask.get_annotations)
        resources = getattr(call.task, "resources", None)
        if not given and not resources and not call.priority:
            return None
        options = {name: value for name, value in given.items() if name in _PASSED_ON}
        if resources:
            options["resources"] = {**resources, **options.get("resources", {})}
        if call.priority:
            options.setdefault("priority", call.priority)
        return _frozen(options)

    def send(self, bundle: Bundle, data: bytes) -> None:
        names = list(bundle.parts)
        natives = [part.native for part in bundle.parts.values()]
        options = _thawed(bundle.options)
        # Annotations of the dispatcher's own thread must not get in.
        with dask.annotate(**{UNREPEATED: True}):
            future = self.client.submit(
                run, self.reply_to, data, names, *natives, key=bundle.name, pure=False, **options
            )
        bundle.native = future
        self._sent[bundle.name] = bundle
        self._loop.call_soon_threadsafe(self._watch, bundle, future)

    def tell(self, worker: str, data: bytes) -> None:
        self._say({"op": WORD, "to": worker, "data": data})

    def tell_about(self, bundle: Bundle, data: bytes) -> None:
        self._say({"op": WORD, "key": bundle.name, "data": data})

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(Exception):
            self.client._send_to_scheduler({**message, "client": self.client.id})

    def share(self, digest: str, buffer: Any) -> Shared:
        shared = self._shared.get(digest)
        if shared is None:
            future = self._wait(lambda: self.client.scatter(bytes(buffer), hash=False))
            shared = self._shared[digest] = Shared(future)
        return shared

    def fetcher(self, name: str, worker: str) -> DaskFetch:
        return DaskFetch(self, Future(name, self.client, state="memory"), worker)

    def is_stuck(self, worker: str) -> None:
        if self.owns_cluster:
            logger.warning("A task run cannot be stopped on worker %s: it is restarted.", worker)
            self._spawn(lambda: self.client.restart_workers([worker], raise_for_error=False))
        else:
            logger.warning("A task run cannot be stopped on worker %s and may still run.", worker)

    def gather(self, future: Future) -> Any:
        """Bring a value here; blocks."""
        return self._wait(lambda: self.client.gather(future))

    # On the engine's loop.

    def _hear(self, data: bytes) -> None:
        if self._dispatcher is not None:
            self._dispatcher.hear(data)

    def _resize(self, threads: int) -> None:
        self._threads = threads
        if self._dispatcher is not None:
            self._dispatcher.wake()

    def _unsent(self, key: str) -> None:
        bundle = self._sent.get(key)
        if bundle is not None and self._dispatcher is not None:
            self._dispatcher.unsent(bundle)

    def _watch(self, bundle: Bundle, future: Future) -> None:
        task = asyncio.create_task(self._watch_bundle(bundle, future))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _watch_bundle(self, bundle: Bundle, future: Future) -> None:
        """Tell the dispatcher how Dask's own task ended."""
        problem: BaseException | None = None
        worker = None
        try:
            ended = await future.exception()
        except (CancelledError, asyncio.CancelledError):
            problem = WorkerLost("Dask gave up the task run: a value that it needs was lost.")
        else:
            if isinstance(ended, KilledWorker):
                worker = getattr(ended.last_worker, "address", None)
                problem = WorkerLost(f"The worker {worker} died while it had the task run.")
            elif ended is not None:
                problem = _explained(ended)
        bundle.native = None
        self._sent.pop(bundle.name, None)
        if self._dispatcher is not None:
            self._dispatcher.sent_ended(bundle, problem, worker)

    async def _watch_scheduler(self) -> None:
        """Notice that the scheduler is gone for good."""
        lost_for = 0.0
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            if self.client.status == "running":
                lost_for = 0.0
                continue
            lost_for += _CHECK_SECONDS
            if lost_for >= _LOST_SECONDS or self.client.status == "closed":
                if self._dispatcher is not None:
                    self._dispatcher.fail(
                        EngineLost("The connection to the Dask scheduler was lost.")
                    )
                return

    # The client has to be called on its loop: elsewhere its methods block.

    def _spawn(self, function: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(_quietly(function), self._loop)

    def _wait(self, function: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(function), self._loop).result()


class Shared:
    """A large buffer on the cluster; released there when nobody holds this any more."""

    def __init__(self, native: Future) -> None:
        self.native = native


class DaskFetch(Fetch):
    """A value that a worker keeps as a Dask key; released there when this is dropped."""

    def __init__(self, engine: DaskEngine, native: Future, worker: str) -> None:
        self.native = native
        self.worker = worker
        self._engine = engine

    def fetch(self) -> Any:
        try:
            return self._engine.gather(self.native)
        except (CancelledError, asyncio.CancelledError) as exc:
            raise CrashedRun(
                f"The value {self.native.key!r} is lost: the worker that kept it has died."
            ) from exc


def _explained(problem: BaseException) -> BaseException:
    """Say what it means that a bundle could not even be started."""
    if isinstance(problem, ImportError):
        return type(problem)(
            f"{describe_exception(problem)} on a worker: Penstock must be installed there."
        )
    return WorkerLost(f"Dask could not run the task run: {describe_exception(problem)}")


def _frozen(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return ("map", tuple(sorted((key, _frozen(each)) for key, each in value.items())))
    if isinstance(value, list | tuple | set):
        return ("list", tuple(_frozen(each) for each in value))
    return value  # type: ignore[no-any-return]


def _thawed(value: Any) -> Any:
    if value is None:
        return {}
    if isinstance(value, tuple) and value and value[0] == "map":
        return {key: _thawed(each) for key, each in value[1]}
    if isinstance(value, tuple) and value and value[0] == "list":
        return [_thawed(each) for each in value[1]]
    return value


async def _awaited(function: Callable[[], Any]) -> Any:
    return await function()


async def _quietly(function: Callable[[], Any]) -> None:
    with suppress(Exception):
        await function()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
