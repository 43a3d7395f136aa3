"""The relay: a scheduler plugin that passes messages between drivers and workers.

    worker ──stream──► scheduler ──stream──► driver     reports
    driver ──stream──► scheduler ──stream──► worker     words

Everything goes over connections that Dask has anyway, in order, and nothing of it is kept. The
plugin also sees to it that Dask itself does not run our bundles a second time when a worker dies:
what ran there has lost an attempt, and what happens next is decided by the driver.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from distributed import SchedulerPlugin
from distributed.comm.core import CommClosedError

from penstock.errors import EngineError
from penstock.version import __version__

PROTOCOL = 1
"""Counts up when messages change. Drivers of different protocols can share a scheduler."""
REPORT, WORD, SIZE, UNSENT, TOO_LARGE = (
    f"penstock-{PROTOCOL}-{kind}" for kind in ("report", "word", "size", "unsent", "too-large")
)
# What the scheduler is asked and answers: reports that are waited for, and a driver's greeting.
CONFIRMED, GREETING = f"penstock_{PROTOCOL}_report", f"penstock_{PROTOCOL}_greeting"
_NOWHERE = frozenset({"waiting", "queued", "no-worker"})
UNREPEATED = "penstock"
"""The annotation of tasks that Dask must not run again by itself."""


class Relay(SchedulerPlugin):
    """Lives on the scheduler; one for all drivers."""

    name = f"penstock-relay-{PROTOCOL}"
    idempotent = True

    def __init__(self) -> None:
        # It travels to the scheduler, where its class may be that of another release.
        self.protocol = PROTOCOL
        self.release = __version__
        self.scheduler: Any = None
        self.drivers: set[str] = set()
        self.listeners: set[str] = set()
        # Words for workers that do not listen yet: their first bundle is on its way.
        self.held: dict[str, list[bytes]] = {}

    async def start(self, scheduler: Any) -> None:
        """Take the messages.

        Raises:
            EngineError: the scheduler has another release, with other messages.
        """
        if self.protocol != PROTOCOL:
            raise EngineError(
                f"it has Penstock {__version__}, which cannot talk to {self.release}. Install the "
                "same release on the scheduler and the workers"
            )
        self.scheduler = scheduler
        scheduler.stream_handlers[REPORT] = self.pass_report
        scheduler.stream_handlers[WORD] = self.pass_word
        scheduler.handlers[CONFIRMED] = self.take_report
        scheduler.handlers[GREETING] = self.greet

    async def greet(self, driver: str) -> dict[str, Any]:
        """Take in a driver; give the size of the cluster, of which it is told from now on."""
        self.drivers.add(driver)
        return self._size()

    def pass_report(self, driver: str, data: bytes, worker: str = "", **_: Any) -> None:
        """Pass a report of a worker on to its driver."""
        if worker and worker not in self.listeners:
            self.listeners.add(worker)
            for word in self.held.pop(worker, ()):
                self._pass_on(worker, word)
        self._tell(driver, {"op": REPORT, "data": data})

    async def take_report(self, driver: str, data: bytes) -> None:
        """Take a report by a call of its own, which ends when it has been passed on."""
        self.pass_report(driver, data)

    def pass_word(
        self, data: bytes, client: str, to: str | None = None, key: str | None = None, **_: Any
    ) -> None:
        """Pass a word of a driver on to a worker: the one it names, or the one that has a key.

        A key that no worker has is released, so that none ever gets it.
        """
        if key is not None:
            state = self.scheduler.tasks.get(key)
            if state is None:
                return
            if state.state in _NOWHERE:
                self.scheduler.client_releases_keys(keys=[key], client=client)
                self._tell(client, {"op": UNSENT, "key": key})
                return
            to = None if state.processing_on is None else state.processing_on.address
        if to is None:
            return
        if to in self.listeners:
            self._pass_on(to, data)
        elif to in self.scheduler.stream_comms:
            self.held.setdefault(to, []).append(data)

    def _pass_on(self, worker: str, word: bytes) -> None:
        _send(self.scheduler.stream_comms.get(worker), {"op": WORD, "data": word})

    def add_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """Tell drivers that the cluster has grown."""
        self._tell_size()

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """Tell drivers that the cluster has shrunk."""
        self.listeners.discard(worker)
        self.held.pop(worker, None)
        self._tell_size()

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Forget a driver."""
        self.drivers.discard(client)

    def update_graph(self, scheduler: Any, *, tasks: Any, annotations: Any, **_: Any) -> None:
        """Have the first death of a worker fail a bundle, instead of running it elsewhere."""
        if UNREPEATED in annotations:
            for key in tasks:
                state = scheduler.tasks.get(key)
                if state is not None:
                    state.suspicious = scheduler.allowed_failures

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        """Have a bundle forgotten that a worker has had and is to give away.

        A worker that is closed in good order may have begun it, too.
        """
        if finish == "processing":
            state = self.scheduler.tasks.get(key)
            if state is not None and state.annotations and UNREPEATED in state.annotations:
                # What has lost a dependency is not made to wait for a worker again.
                state.has_lost_dependencies = True

    def log_event(self, topic: str, msg: Any) -> None:
        """Tell drivers of a worker that is killed because of the memory that it takes."""
        if topic == "worker-restart-memory":
            for driver in list(self.drivers):
                self._tell(driver, {"op": TOO_LARGE, "worker": msg["worker"], "rss": msg["rss"]})

    def _size(self) -> dict[str, Any]:
        workers = self.scheduler.workers
        return {
            "threads": self.scheduler.total_nthreads,
            "workers": list(workers),
            "resources": [worker.resources for worker in workers.values()],
        }

    def _tell_size(self) -> None:
        size = self._size()
        for driver in list(self.drivers):
            self._tell(driver, {"op": SIZE, **size})

    def _tell(self, driver: str, message: dict[str, Any]) -> None:
        _send(self.scheduler.client_comms.get(driver), message)


def _send(comm: Any, message: dict[str, Any]) -> None:
    """Send a message to a driver or worker, unless it has gone.

    What was raised here would end the connection of whoever it came from: of an innocent worker.
    """
    if comm is not None:
        with suppress(CommClosedError):
            comm.send(message)
