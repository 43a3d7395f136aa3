"""Watch over Ray: does its head answer, which nodes are there, and does something run too long?

Ray itself waits for a head that does not answer for a minute, and then ends the process.
"""

from __future__ import annotations

import logging
import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING

import ray

from penstock.errors import EngineLost
from penstock.runtime.blocking import ServiceThread
from penstock.task_runners.ray.connection import is_client

if TYPE_CHECKING:
    from penstock.task_runners.ray.engine import RayEngine

logger = logging.getLogger("penstock.task_runner.ray")
CHECK_SECONDS = 1.0
LOST_SECONDS = 10.0
"""How long the head may not answer."""
_CONNECT_SECONDS = 2.0


class Watch:
    """Looks after one engine's Ray, in a thread of its own."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine
        self._is_over = threading.Event()
        self._head = None if is_client() else _address_of_head()
        self._thread = ServiceThread(target=self._serve, name="penstock-ray-watch", daemon=True)
        self.is_lost = False

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join(_CONNECT_SECONDS + CHECK_SECONDS)

    def _serve(self) -> None:
        answered_at = monotonic()
        while not self._is_over.wait(CHECK_SECONDS):
            if self._head is None or _answers(self._head):
                answered_at = monotonic()
                self._look()
            elif monotonic() - answered_at > LOST_SECONDS:
                self.is_lost = True
                self._engine.fail(
                    EngineLost(
                        f"The head of the Ray cluster has not answered for {LOST_SECONDS:g} s, so "
                        "the flow run cannot go on. See that Ray runs, and run the flow again."
                    )
                )
                return

    def _look(self) -> None:
        try:
            self._engine.look_at_nodes()
            self._engine.check_limits()
        except Exception:
            # Whoever listens to the relay hears why.
            logger.debug("Ray did not answer.", exc_info=True)


def _address_of_head() -> tuple[str, int]:
    host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
    return host.strip("[]"), int(port)


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
