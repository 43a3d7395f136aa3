"""The relay: a scheduler plugin that passes messages between drivers and workers.

    worker ──stream──► scheduler ──stream──► driver     reports
    driver ──stream──► scheduler ──stream──► worker     words

Everything goes over connections that Dask has anyway, in order, and nothing of it is kept. The
plugin also sees to it that Dask itself does not run our bundles a second time when a worker dies:
what ran there has lost an attempt, and what happens next is decided by the driver.
"""

from __future__ import annotations

from typing import Any

from distributed import SchedulerPlugin

REPORT, WORD, SIZE, HELLO = "penstock-report", "penstock-word", "penstock-size", "penstock-hello"
UNSENT = "penstock-unsent"
_NOWHERE = frozenset({"waiting", "queued", "no-worker"})
UNREPEATED = "penstock"
"""The annotation of tasks that Dask must not run again by itself."""


class Relay(SchedulerPlugin):
    """Lives on the scheduler; one for all drivers."""

    name = "penstock-relay"
    idempotent = True

    def __init__(self) -> None:
        self.scheduler: Any = None
        self.drivers: set[str] = set()
        self.listeners: set[str] = set()

    async def start(self, scheduler: Any) -> None:
        """Take the messages."""
        self.scheduler = scheduler
        scheduler.stream_handlers[REPORT] = self.pass_report
        scheduler.stream_handlers[WORD] = self.pass_word
        scheduler.stream_handlers[HELLO] = self.greet
        scheduler.handlers["penstock_report"] = self.take_report

    def greet(self, client: str, **_: Any) -> None:
        """Take in a driver, and tell it how large the cluster is from now on."""
        self.drivers.add(client)
        self._tell_size([client])

    def pass_report(self, driver: str, data: bytes, worker: str = "", **_: Any) -> None:
        """Pass a report of a worker on to its driver."""
        self.listeners.add(worker)
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
        comm = self.scheduler.stream_comms.get(to) if to in self.listeners else None
        if comm is not None:
            comm.send({"op": WORD, "data": data})

    def add_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """Tell drivers that the cluster has grown."""
        self._tell_size(self.drivers)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """Tell drivers that the cluster has shrunk."""
        self.listeners.discard(worker)
        self._tell_size(self.drivers)

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

    def _tell_size(self, drivers: Any) -> None:
        for driver in list(drivers):
            self._tell(driver, {"op": SIZE, "threads": self.scheduler.total_nthreads})

    def _tell(self, driver: str, message: dict[str, Any]) -> None:
        comm = self.scheduler.client_comms.get(driver)
        if comm is not None:
            comm.send(message)
