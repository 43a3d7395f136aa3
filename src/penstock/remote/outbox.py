"""The outbox of a worker: what it has to tell one driver, sent in groups and in order.

task code, logs ──add──► entries ──flush──► port.send(report)
                            ▲                  at the end of a bundle, when there are many,
                          ticker               and every 20 ms while something runs
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from penstock.failpoints import FAILPOINTS, hit

logger = logging.getLogger("penstock.remote")
TICK_SECONDS = 0.02
_MOST_ENTRIES = 2000


class Port(Protocol):
    """What an engine lends to the code that runs on one of its workers. Thread-safe.

    Attributes:
        worker: the name of the worker in the history.
        lost: what `fetch` raises for a value that is lost.
        gives_up_after: seconds after which a run that is out of time is final, though its code
            goes on in the main thread; None: it is final when its code has ended.
        patience: seconds for which the code of a task run that has been ended may go on before
            the driver is told that it is stuck.
    """

    worker: str
    gives_up_after: float | None = None
    patience: float
    lost: tuple[type[BaseException], ...]

    @property
    def own(self) -> bytes | None:
        """What occurs in the pickle of a value that refers to things of the engine's own.

        Such a value is kept, for the sake of what it refers to. None: there are no such things.
        """
        return None

    def send(self, reply_to: Any, data: bytes) -> None:
        """Send a report to a driver; reports arrive in the order in which they were sent."""

    def confirm(self, reply_to: Any, data: bytes) -> None:
        """Send a report and block until it has left this machine's hands."""

    def keep(self, reply_to: Any, name: str, value: Any) -> int:
        """Keep a value on the engine for a driver and give its size in bytes."""

    def fetch(self, name: str) -> Any:
        """Bring a value that the engine keeps; blocks."""

    def options(self) -> Any:
        """Give the engine's own options in force in the calling code, for what it submits.

        `Engine.options_of` gets them by `options_elsewhere`. None: there are none.
        """
        return None

    def leave(self) -> None:
        """Give the calling thread's place to other work while it waits."""

    def come_back(self) -> None:
        """Take a place again; blocks."""

    def run_aside(self, function: Callable[[], object]) -> None:
        """Call what may suspend for long; elsewhere where the engine needs this thread itself."""
        function()

    def open_outbox(self, reply_to: Any) -> Outbox:
        """Give what collects the reports to a driver."""
        return Outbox(self, reply_to)


class Outbox:
    """What one worker process has to tell one driver. Thread-safe."""

    def __init__(self, port: Port, reply_to: Any) -> None:
        self.port = port
        self.reply_to = reply_to
        self.entries: deque[tuple[Any, ...]] = deque()
        self._lock = threading.Lock()

    def add(self, *entry: Any) -> None:
        """Add an entry; it leaves with the next group."""
        self.entries.append(entry)
        if len(self.entries) > _MOST_ENTRIES:
            self.flush()

    def begins(self, key: bytes, attempt: int) -> None:
        """Take that an attempt begins: its arguments are going to be unpacked.

        This and the next two are for those who can find it out when the worker is dead.
        """

    def enters(self) -> None:
        """Take that the function of the attempt that began last is about to be called."""

    def rests(self) -> None:
        """Take that the code of the attempt that began last has ended."""

    def flush(self) -> None:
        """Send what there is."""
        if not self.entries:
            return
        with self._lock:
            entries = []
            while self.entries:
                entries.append(self.entries.popleft())
            if entries:
                if FAILPOINTS:
                    hit("worker.send")
                report = (self.port.worker, entries)
                self.port.send(self.reply_to, pickle.dumps(report, 5))

    def confirm(self, *entry: Any) -> None:
        """Send an entry at once, and wait until it is certain to arrive."""
        self.flush()
        self.port.confirm(self.reply_to, pickle.dumps((self.port.worker, [entry]), 5))


class Ticker:
    """A thread that looks after outboxes and running bundles every few milliseconds.

    It sleeps while nothing runs.
    """

    def __init__(self) -> None:
        self._active: dict[Any, None] = {}
        self._work = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, bundle: Any) -> None:
        """Look after a bundle: call its `tick` until it is removed."""
        self._active[bundle] = None
        if self._thread is None:
            self._start()
        if not self._work.is_set():
            self._work.set()

    def remove(self, bundle: Any) -> None:
        """Look after a bundle no more."""
        self._active.pop(bundle, None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="penstock-ticker", daemon=True
                )
                self._thread.start()

    def _serve(self) -> None:
        while True:
            self._work.wait()
            time.sleep(TICK_SECONDS)
            self._tick()
            if not self._active:
                self._work.clear()
                if self._active:
                    self._work.set()

    def _tick(self) -> None:
        # Not where the thread sleeps: there its last bundle, with all its values, would live on.
        for bundle in list(self._active):
            try:
                bundle.tick()
            except Exception:
                # Its worker is gone, and with it whoever could hear of it.
                logger.info("A bundle is not looked after any more.", exc_info=True)
                self.remove(bundle)


ticker = Ticker()
