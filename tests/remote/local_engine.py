"""An engine whose workers are threads of this process: for tests of what all engines share."""

from __future__ import annotations

import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

from penstock.remote.dispatch import Dispatcher
from penstock.remote.engine import Bundle, Engine, Options
from penstock.remote.flow_run import hear
from penstock.remote.outbox import Port
from penstock.remote.runner import RemoteTaskRunner
from penstock.remote.values import Fetch
from penstock.remote.worker import run_bundle


class LocalEngine(Engine):
    """Executes bundles on threads, through the same bytes as other engines."""

    def __init__(self, threads: int) -> None:
        self.reply_to = id(self)
        self.threads = threads
        self.kept: dict[str, Any] = {}
        self.sent: list[Bundle] = []
        self.bytes = 0
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="local-worker")
        self.dispatcher: Dispatcher | None = None
        self.port = LocalPort(self)

    def listen(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher

    def send(self, bundle: Bundle, data: bytes) -> None:
        self.sent.append(bundle)
        self.bytes += len(data)
        parts = {name: part.native for name, part in bundle.parts.items()}
        self.pool.submit(self._run, bundle, data, parts)

    def _run(self, bundle: Bundle, data: bytes, parts: dict[str, Any]) -> None:
        assert self.dispatcher is not None
        problem = None
        try:
            run_bundle(data, parts, self.port)
        except BaseException as exc:
            problem = exc
        self.dispatcher.sent_ended(bundle, problem, "local")

    def tell(self, worker: str, data: bytes) -> None:
        header, word = pickle.loads(data)
        hear(header, word, self.port)

    def tell_about(self, bundle: Bundle, data: bytes) -> None:
        header, word = pickle.loads(data)
        hear(header, word, self.port)

    def workers(self) -> int:
        return self.threads

    def names(self) -> frozenset[str]:
        return frozenset({"local"})

    def close(self) -> None:
        self.pool.shutdown()
        # What the worker's side remembers, in this process, is not to hold the driver's.
        self.dispatcher = None

    def share(self, digest: str, buffer: Any) -> Any:
        return Kept(self, digest, bytes(buffer))

    def put(self, value: Any) -> Any:
        return value

    def fetcher(self, name: str | None, worker: str) -> Any:
        assert name is not None  # nothing is ever lost here
        kept = Kept(self, name, self.kept[name])
        # Kept, for workers and the driver, as long as anybody can ask for it.
        weakref.finalize(kept, self.kept.pop, name, None).atexit = False
        return kept

    def options_of(self, call: Any) -> Options | None:
        return None

    def is_stuck(self, worker: str) -> None:
        pass


class Kept(Fetch):
    """A value that the engine keeps."""

    def __init__(self, engine: LocalEngine, name: str, value: Any) -> None:
        self.native = value
        self.worker = "local"
        self.engine = engine
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def fetch(self) -> Any:
        return self.native


class LocalPort(Port):
    """A worker thread's way to the driver."""

    worker = "local"
    lost: tuple[type[BaseException], ...] = ()
    patience = 10.0
    own = None

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine

    def send(self, reply_to: Any, data: bytes) -> None:
        assert self.engine.dispatcher is not None
        self.engine.dispatcher.hear(data)

    def confirm(self, reply_to: Any, data: bytes) -> None:
        self.send(reply_to, data)

    def keep(self, reply_to: Any, name: str, value: Any) -> int:
        self.engine.kept[name] = value
        return len(pickle.dumps(value))

    def fetch(self, name: str) -> Any:
        return self.engine.kept[name]

    def options(self) -> Any:
        return None

    def leave(self) -> None:
        self.engine.pool._max_workers += 1

    def come_back(self) -> None:
        pass


class LocalTaskRunner(RemoteTaskRunner):
    """A remote runner whose engine is local."""

    def __init__(self, threads: int = 2, bundle: bool = True) -> None:
        self.threads = threads
        self.bundle = bundle

    async def _open(self, exit_stack: AsyncExitStack) -> Any:
        engine = LocalEngine(self.threads)
        exit_stack.callback(engine.close)
        self._engine = engine
        return engine
