"""What a worker process of Ray loads: the task that executes a bundle, and its way to the driver.

    main thread ── run: a bundle, with what it reports last in what it gives back
    ticker      ── what there is to report meanwhile, and that the bundle has begun
    listener    ── asks the relay for words, one thread for each driver
    aside       ── an async task run, so that the main thread can wait in Ray's name

Ray gives the processor of a task to others while the task's main thread blocks in Ray, and only
then. So a task run that waits for others has its main thread block in Ray.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import ray
from ray.exceptions import RayActorError

from penstock.remote.blackbox import BlackBox, NoBox
from penstock.remote.flow_run import hear
from penstock.remote.messages import BUNDLE_ENDED
from penstock.remote.outbox import Outbox, Port, ticker
from penstock.remote.worker import run_bundle
from penstock.runtime.blocking import block_by, take
from penstock.task_runners.ray.kept import Raw
from penstock.task_runners.ray.limits import make_box
from penstock.task_runners.ray.options import current_options
from penstock.task_runners.ray.relay import KILL, REVOKE

Last = tuple[str, int, bytes | None, dict[str, Any]]
_FIRST_SLICE, _LAST_SLICE = 0.002, 0.05
_HAND_OVER_SECONDS = 0.005
_LAST_SECONDS = 0.5
_MOST_BUNDLES = 10_000
_ports: dict[str, RayPort] = {}
_lock = threading.Lock()
_box: BlackBox | NoBox = NoBox()


class ValueLost(Exception):
    """A kept value is nowhere any more."""


class RayPort(Port):
    """A worker process, as the code that runs on it for one driver uses it. Thread-safe."""

    lost: tuple[type[BaseException], ...] = (ValueLost, ray.exceptions.ObjectLostError)
    gives_up_after = 0.5
    patience = 1.0

    def __init__(self, reply_to: str, relay: Any) -> None:
        self.worker = _name_of_this_worker()
        self._reply_to = reply_to
        self.relay = relay
        self._lock = threading.Lock()
        self._number = 0
        self._refs: dict[str, Any] = {}
        self._heard: Any = None
        self._local = threading.local()
        # What runs in the main thread, and what it gives back.
        self.bundle_id: str | None = None
        self.is_ending = False
        self._rest = threading.Event()
        self._last: Last | None = None
        self._begun: OrderedDict[str, None] = OrderedDict()
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self._is_orphan = False
        revoked = self._join()
        if revoked is None:
            self._is_orphan = True
            return
        self._revoked.update(dict.fromkeys(revoked))
        threading.Thread(target=self._listen, name="penstock-listener", daemon=True).start()

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the driver's channel on the relay; gives Ray's reference."""
        return self.relay.call.remote(self._reply_to, name, *arguments)

    def _join(self) -> list[str] | None:
        """Give the bundles that must not begin here; None: the driver has left."""
        try:
            return _get_aside(self._call("join", self.worker))  # type: ignore[no-any-return]
        except RayActorError:
            return None

    # Reports.

    def open_outbox(self, reply_to: Any) -> Outbox:
        return _RayOutbox(self, reply_to)

    def send(self, reply_to: Any, data: bytes) -> None:
        self._send(data, may_be_last=True)

    def confirm(self, reply_to: Any, data: bytes) -> None:
        _get_aside(self._send(data, may_be_last=False))

    def _send(self, data: bytes, may_be_last: bool) -> Any:
        with self._lock:
            refs, self._refs = self._refs, {}
            number, self._number = self._number, self._number + 1
            if may_be_last and self.is_ending and self._last is None and _is_main():
                self._last = (self.worker, number, data, refs)
                return None
            return self._call("report", self.worker, number, data, refs)

    # Bundles.

    def begins(self, bundle_id: str) -> bool:
        """Take that a bundle is to begin; tell whether it may."""
        with self._lock:
            if self._is_orphan or bundle_id in self._revoked:
                return False
            self.bundle_id = bundle_id
            self._rest.clear()
            return True

    def ends(self) -> Last:
        """Take that the bundle is over; gives the last report, or how many there have been."""
        with self._lock:
            assert self.bundle_id is not None
            _remember(self._begun, self.bundle_id)
            self.bundle_id = None
            self._rest.set()
            last, self._last, self.is_ending = self._last, None, False
            return last or (self.worker, self._number, None, {})

    def tick(self) -> None:
        """Tell that a bundle has begun: it takes long enough for somebody to want to know."""
        bundle_id = self.bundle_id
        ticker.remove(self)
        if bundle_id is not None:
            self._call("begin", self.worker, bundle_id)

    def _revoke(self, bundle_id: str) -> None:
        """Answer whether a bundle has begun here; from now on it never will."""
        with self._lock:
            has_begun = bundle_id == self.bundle_id or bundle_id in self._begun
            if not has_begun:
                _remember(self._revoked, bundle_id)
        self._call("begin" if has_begun else "disclaim", self.worker, bundle_id)

    # Values.

    def keep(self, reply_to: Any, name: str, value: Any) -> int:
        ref = ray.put(value)
        with self._lock:
            self._refs[name] = ref
        size = getattr(value, "nbytes", None)
        return size if isinstance(size, int) else sys.getsizeof(value)

    def fetch(self, name: str) -> Any:
        found = ray.get(self._call("ask", name))
        if found is None:
            raise ValueLost(name)
        return ray.get(found[0])

    # Submissions.

    def options(self) -> dict[str, Any] | None:
        return dict(current_options.get()) or None

    # Words.

    def _listen(self) -> None:
        while True:
            try:
                heard = self._heard = self._call("listen", self.worker)
                words = ray.get(heard)
            except Exception:
                break
            if words is None:
                break
            for word in words:
                with suppress(Exception):
                    self._take_word(word)
        # The driver has left, or Ray is about to end.
        self._heard, self._is_orphan = None, True
        _ports.pop(self._reply_to, None)
        self._end_orphan()

    def _take_word(self, data: bytes) -> None:
        if data.startswith(KILL):
            if self.bundle_id == data.removeprefix(KILL).decode():
                os._exit(1)
        elif data.startswith(REVOKE):
            self._revoke(data.removeprefix(REVOKE).decode())
        else:
            header, word = pickle.loads(data)
            hear(header, word, self)

    def _end_orphan(self) -> None:
        """End this process if it still runs what its driver has given up."""
        deadline = monotonic() + _LAST_SECONDS
        while self.bundle_id is not None:
            if monotonic() > deadline:
                os._exit(1)
            self._rest.wait(_LAST_SECONDS)

    # Waiting.

    def leave(self) -> None:
        if _is_main():
            block_by(self._block)
        elif getattr(self._local, "aside", None) is not None:
            self._local.aside.leave()

    def come_back(self) -> None:
        if _is_main():
            block_by(None)
        elif getattr(self._local, "aside", None) is not None:
            self._local.aside.come_back()

    def run_aside(self, function: Callable[[], object]) -> None:
        if not _is_main():
            function()
            return
        aside = _Aside(self._block)
        self._local.aside = None

        def begin() -> object:
            self._local.aside = aside
            return function()

        aside.run(begin)

    def _block(self, queue: SimpleQueue[Any], seconds: float) -> Any:
        """Take something out of a queue, blocking in Ray meanwhile.

        A word of the driver ends it at once; anything else is noticed in time.
        """
        deadline, length = monotonic() + seconds, _FIRST_SLICE
        while True:
            try:
                return queue.get_nowait()
            except Empty:
                left = deadline - monotonic()
                if left <= 0:
                    raise
            length = min(length * 2, _LAST_SLICE)
            heard = self._heard
            if heard is None:
                return queue.get(timeout=left)
            ready, _ = ray.wait([heard], timeout=min(length, left), fetch_local=False)
            if ready:
                with suppress(Empty):
                    return queue.get(timeout=_HAND_OVER_SECONDS)


class _Aside:
    """Something that runs in a thread of its own while the main thread waits for it."""

    def __init__(self, block: Callable[[SimpleQueue[Any], float], Any]) -> None:
        self._block = block
        self._queue: SimpleQueue[bool | BaseException] = SimpleQueue()
        self._is_away = False

    def run(self, function: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._call, args=(function,), name="penstock-aside")
        thread.daemon = True
        thread.start()
        while True:
            block_by(self._block if self._is_away else None)
            try:
                told = take(self._queue)
            finally:
                block_by(None)
            if told is True:
                thread.join()
                return
            if isinstance(told, BaseException):
                raise told

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as exc:
            self._queue.put(exc)
        else:
            self._queue.put(True)

    def leave(self) -> None:
        self._is_away = True
        self._queue.put(False)

    def come_back(self) -> None:
        self._is_away = False
        self._queue.put(False)


class _RayOutbox(Outbox):
    """An outbox whose last report of a bundle is given back as what the Ray task returns."""

    def add(self, *entry: Any) -> None:
        if entry[0] == BUNDLE_ENDED:
            self.port.is_ending = True  # type: ignore[attr-defined]
        super().add(*entry)

    def begins(self, key: bytes, attempt: int) -> None:
        _box.begins(key, attempt)

    def enters(self) -> None:
        _box.enters()

    def rests(self) -> None:
        _box.rests()


def run(
    reply_to: str, bundle_id: str, relay: Any, data: bytes, names: list[str], *parts: Any
) -> Any:
    """Execute a bundle; this is the Ray task. None: it must not begin any more."""
    global _box
    if isinstance(_box, NoBox):
        _box = make_box() or _box
    port = _port(reply_to, relay)
    _ignore_interrupts()
    if not port.begins(bundle_id):
        return None
    values = [part.buffer if isinstance(part, Raw) else part for part in parts]
    ticker.add(port)
    try:
        run_bundle(data, dict(zip(names, values, strict=True)), port)
    finally:
        ticker.remove(port)
        last = port.ends()
    return last


def _get_aside(ref: Any) -> Any:
    """Wait for something that is soon there, without giving the processor to others."""
    with ThreadPoolExecutor(1, thread_name_prefix="penstock-get") as thread:
        return thread.submit(ray.get, ref).result()


def relay_here() -> Any:
    """Give a relay that a task in this process uses; None where there is none."""
    for port in list(_ports.values()):
        return port.relay
    return None


def _port(reply_to: str, relay: Any) -> RayPort:
    port = _ports.get(reply_to)
    if port is None:
        with _lock:
            port = _ports.get(reply_to)
            if port is None:
                port = _ports[reply_to] = RayPort(reply_to, relay)
    return port


def _ignore_interrupts() -> None:
    """Have a cancellation by Ray do nothing once a bundle has begun: it is told by a word."""
    if _is_main() and signal.getsignal(signal.SIGINT) is not _interrupt:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    if all(port.bundle_id is None for port in list(_ports.values())):
        signal.default_int_handler(number, frame)


def _remember(known: OrderedDict[str, None], bundle_id: str) -> None:
    known[bundle_id] = None
    while len(known) > _MOST_BUNDLES:
        known.popitem(last=False)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _name_of_this_worker() -> str:
    context = ray.get_runtime_context()
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"{address}:{os.getpid()}-{context.get_worker_id()[:8]}"
