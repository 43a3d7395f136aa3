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

from dask import annotate, get_annotations  # type: ignore[attr-defined]
from distributed import CancelledError, Client, Future, KilledWorker

from penstock.errors import EngineError, WorkerLost
from penstock.remote.dispatch import Dispatcher
from penstock.remote.engine import Bundle, Engine, Options, options_elsewhere
from penstock.remote.recovery import Unrun
from penstock.runtime.loops import FlowLoop
from penstock.states import describe_exception
from penstock.task_runners.dask.kept import DaskFetch, Shared
from penstock.task_runners.dask.relay import (
    GREETING,
    REPORT,
    SIZE,
    TOO_LARGE,
    UNREPEATED,
    UNSENT,
    WORD,
    Relay,
)
from penstock.task_runners.dask.resources import check, merged, spelled
from penstock.task_runners.dask.watch import Watch
from penstock.task_runners.dask.worker import OTHERS, PLACES, Whole, run

if TYPE_CHECKING:
    from collections.abc import Coroutine

logger = logging.getLogger("penstock.task_runner.dask")
_STOP_SECONDS = 2.0
_LAST_SECONDS = 0.5
_BUNDLE = "penstock-bundle"


async def open_engine(runner: Any, exit_stack: AsyncExitStack) -> DaskEngine:
    """Open what a `DaskTaskRunner` asks for, on a loop of its own; the stack closes it."""
    loop = FlowLoop()
    inside = AsyncExitStack()

    def there(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop.opened()))

    async def connect() -> DaskEngine:
        owns_cluster = runner.cluster is None and runner.address is None
        client, check = await runner.connect(inside)
        engine = DaskEngine(client, owns_cluster, runner)
        # Each takes some milliseconds of waiting.
        await asyncio.gather(check, engine.open(inside))
        return engine

    async def close() -> None:
        await there(inside.aclose())
        await asyncio.to_thread(loop.close)

    exit_stack.push_async_callback(close)
    return await there(connect())  # type: ignore[no-any-return]


class DaskEngine(Engine):
    """One client of a cluster. Thread-safe.

    Args:
        client: connected, with `asynchronous=True`, on the running loop.
    """

    def __init__(self, client: Client, owns_cluster: bool, runner: Any) -> None:
        self.client = client
        self.runner = runner
        self.reply_to = client.id
        self.owns_cluster = owns_cluster
        self._loop = asyncio.get_running_loop()
        self._dispatcher: Dispatcher | None = None
        self._names: frozenset[str] = frozenset()
        self.declared: list[dict[str, float]] = []
        self._waiting_for: set[Hashable] = set()
        self._shared: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()
        self._sent: dict[str, Bundle] = {}
        self.held: list[DaskFetch] = []
        self._watches: set[asyncio.Task[None]] = set()
        self._watch_over = Watch(client)

    async def open(self, exit_stack: AsyncExitStack) -> None:
        """Install the relay and start to listen.

        Raises:
            EngineError: the scheduler cannot run the relay.
        """
        await self._install_relay()
        self.client._stream_handlers[REPORT] = self._hear
        self.client._stream_handlers[SIZE] = self._resize
        self.client._stream_handlers[UNSENT] = self._unsent
        self.client._stream_handlers[TOO_LARGE] = self._watch_over.note_too_large
        await self._greet()
        exit_stack.push_async_callback(self._stop_watching)

    async def _greet(self) -> None:
        """Make ourselves known to the relay, and learn how large the cluster is."""
        scheduler: Any = self.client.scheduler
        self._resize(**await getattr(scheduler, GREETING)(driver=self.client.id))

    async def _install_relay(self) -> None:
        try:
            await self.client.register_plugin(Relay())
        except EngineError as exc:
            raise self._refused(str(exc)) from exc
        except Exception as exc:
            raise self._refused(
                f"{describe_exception(exc)}. Install Penstock on the scheduler, too"
            ) from exc

    def _refused(self, why: str) -> EngineError:
        address = self.client.scheduler.address  # type: ignore[union-attr]
        return EngineError(f"The Dask scheduler at {address} cannot work with Penstock: {why}.")

    def listen(self, dispatcher: Dispatcher) -> None:
        """Report to a dispatcher from now on."""
        self._dispatcher = dispatcher
        self._loop.call_soon_threadsafe(self._keep, self._watch_over.run(dispatcher, self._greet))

    def workers(self) -> int:
        return max(1, self._watch_over.threads)

    def names(self) -> frozenset[str]:
        return self._names

    def options_of(self, call: Any) -> Options | None:
        given = options_elsewhere(call, self) or call.context.run(get_annotations)
        resources = call.task.resources
        if not given and not resources and not call.priority:
            return None
        places = {name: value for name, value in given.items() if name in PLACES}
        others = {name: value for name, value in given.items() if name in OTHERS}
        annotated = places.get("resources")
        if annotated and not callable(annotated):
            check(self.runner, self, call.task.name, annotated)
        if resources and not callable(annotated):
            places["resources"] = merged(resources, annotated or {})
        if not callable(others.setdefault("priority", call.priority)):
            call.priority = others["priority"]
        return Options(_frozen(places) if places else None, _frozen(others))

    def send(self, bundle: Bundle, data: bytes) -> None:
        names = list(bundle.parts)
        natives = [part.native for part in bundle.parts.values()]
        if bundle.name in self.client.futures:
            # Sent a second time; the client would take it for what it has sent already.
            bundle.name = f"{bundle.name}-{bundle.id}"
        with annotate(**{UNREPEATED: True}, **self._annotations_of(bundle)):
            future = self.client.submit(
                run, self.reply_to, data, names, *natives, key=bundle.name, pure=False
            )
        bundle.native = future
        self._sent[bundle.name] = bundle
        self._loop.call_soon_threadsafe(self._watch, bundle, future)

    def _annotations_of(self, bundle: Bundle) -> dict[str, Any]:
        """Give what Dask is to be told with a bundle, resources as its workers spell them."""
        if bundle.options is None:
            return {}
        options = {**_thawed(bundle.options.places), **_thawed(bundle.options.others)}
        if isinstance(wanted := options.get("resources"), dict):
            options["resources"] = spelled(wanted, self.declared) or wanted
        return options

    def look_up_declared(self) -> list[dict[str, float]]:
        """Ask the scheduler what its workers declare; blocks."""
        scheduler: Any = self.client.scheduler
        found = self._wait(lambda: scheduler.identity(n_workers=-1))
        return [worker["resources"] for worker in found["workers"].values()]

    def is_first_to_wait(self, what: Hashable) -> bool:
        """Tell whether nothing has been said yet of waiting for this."""
        is_first = what not in self._waiting_for
        self._waiting_for.add(what)
        return is_first

    def tell(self, worker: str, data: bytes) -> None:
        self._say({"op": WORD, "to": worker, "data": data})

    def tell_about(self, bundle: Bundle, data: bytes) -> None:
        self._say({"op": WORD, "key": bundle.name, "data": data})

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(Exception):
            self.client._send_to_scheduler({**message, "client": self.client.id})

    def share(self, digest: str, buffer: Any) -> Shared:
        if not self._names:
            # There is nobody to keep it, and what makes workers come is the bundle.
            return Shared(_as_bytes(buffer))
        shared = self._shared.get(digest)
        if shared is None or shared.is_lost:
            future = self._wait(
                lambda: self.client.scatter(
                    _as_bytes(buffer), hash=False, direct=self.owns_cluster or None
                )
            )
            shared = self._shared[digest] = Shared(future)
        return shared

    def put(self, value: Any) -> Future[Any]:
        native: Future[Any] = self._wait(lambda: self.client.scatter(Whole(value), hash=False))
        return native

    def fetcher(self, name: str | None, worker: str) -> DaskFetch:
        native: Any = None
        if name is not None:
            native = Future(name, self.client, state="memory")  # type: ignore[arg-type]
        return DaskFetch(self, native, worker)

    def is_stuck(self, worker: str) -> None:
        if self.owns_cluster:
            logger.warning("A task run cannot be stopped on worker %s: it is restarted.", worker)
            self._spawn(lambda: self.client.restart_workers([worker], raise_for_error=False))
        else:
            logger.warning("A task run cannot be stopped on worker %s and may still run.", worker)

    def gather(self, future: Future[Any]) -> Any:
        """Bring a value here; blocks."""
        return self._wait(lambda: self.client.gather(future, direct=self.owns_cluster or None))

    def recover(self, fetch: DaskFetch) -> None:
        """Have a value made again that is lost; blocks."""
        assert self._dispatcher is not None
        self._dispatcher.recoveries.wait_for(fetch)

    @property
    def is_closed(self) -> bool:
        """Whether the cluster has been left, and nothing of it can be had any more."""
        return self._loop.is_closed() or self.client.status in ("closing", "closed")

    # On the engine's loop.

    def _hear(self, data: bytes) -> None:
        if self._dispatcher is not None:
            self._dispatcher.hear(data)

    def _resize(
        self, threads: int, workers: list[str], resources: list[dict[str, float]], **_: Any
    ) -> None:
        self._watch_over.threads = threads
        before = {} if resources == self.declared else self._wishes()
        self.declared = resources
        for name, wanted in before.items():
            if name in self._sent and self._annotations_of(self._sent[name]) != wanted:
                # If it waits for a worker, it comes back to be sent as those now spell it.
                self._say({"op": WORD, "key": name, "data": b""})
        self._names = frozenset(workers)
        if self._dispatcher is not None:
            self._dispatcher.wake()

    def _wishes(self) -> dict[str, dict[str, Any]]:
        """Give what Dask was told with those bundles that ask for resources."""
        open_bundles = list(self._sent.values())
        told = {bundle.name: self._annotations_of(bundle) for bundle in open_bundles}
        return {name: options for name, options in told.items() if "resources" in options}

    def _unsent(self, key: str) -> None:
        bundle = self._sent.pop(key, None)
        if bundle is not None and self._dispatcher is not None:
            self._dispatcher.unsent(bundle)
            # Dask has forgotten it: it would be watched for ever.
            bundle.native = None
            if bundle.watch is not None:
                bundle.watch.cancel()

    def _watch(self, bundle: Bundle, future: Future[Any]) -> None:
        bundle.watch = self._keep(self._watch_bundle(bundle, future), _BUNDLE)

    def _keep(
        self, coroutine: Coroutine[Any, Any, None], name: str | None = None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=name)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        return task

    async def _stop_watching(self) -> None:
        bundles = [task for task in self._watches if task.get_name() == _BUNDLE]
        if bundles:
            # The last reports arrive a little before Dask itself is through with its tasks; a
            # cluster that is closed in between complains.
            await asyncio.wait(bundles, timeout=_LAST_SECONDS)
        # What watches a bundle takes a cancellation for that of the bundle, and ends, too.
        for task in list(self._watches):
            task.cancel()
        if self._watches:
            await asyncio.wait(self._watches, timeout=_STOP_SECONDS)

    async def _watch_bundle(self, bundle: Bundle, future: Future[Any]) -> None:
        """Tell the dispatcher how Dask's own task ended."""
        problem: BaseException | None = None
        worker = None
        try:
            ended = await future.exception()
        except (CancelledError, asyncio.CancelledError):
            if await self._watch_over.was_cut():
                problem = Unrun("The connection to the Dask scheduler was cut meanwhile.")
            else:
                # A value that it needs is lost, or its worker was closed in good order.
                problem = Unrun("Dask gave up the task run, since its worker was closed.")
        else:
            if isinstance(ended, KilledWorker):
                worker = ended.last_worker.address
                limit = ended.last_worker.memory_limit
                problem = WorkerLost(self._watch_over.death_of(worker, limit))
            elif ended is not None:
                problem = _explained(ended)
        bundle.native = None
        self._sent.pop(bundle.name, None)
        if self._dispatcher is not None:
            self._dispatcher.sent_ended(bundle, problem, worker)

    # The client has to be called on its loop: elsewhere its methods block.

    def _spawn(self, function: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(_quietly(function), self._loop)

    def _wait(self, function: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(function), self._loop).result()


def _explained(problem: BaseException) -> BaseException:
    """Say what it means that a bundle could not even be started."""
    if isinstance(problem, ImportError):
        return ImportError(
            f"{problem} on a worker: the same release of Penstock must be installed there."
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


def _as_bytes(buffer: Any) -> bytes:
    """Give the bytes of a buffer: what it was made of, without a copy, where those are bytes."""
    whole = buffer.obj if isinstance(buffer, memoryview) else buffer
    return whole if isinstance(whole, bytes) else bytes(buffer)


async def _awaited(function: Callable[[], Any]) -> Any:
    return await function()


async def _quietly(function: Callable[[], Any]) -> None:
    with suppress(Exception):
        await function()
