"""The relay on the scheduler, beside what may happen to whom it talks to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from distributed.comm.core import CommClosedError

from penstock.task_runners.dask.relay import Relay


class Comm:
    """One end of a connection; the other may have gone."""

    def __init__(self, is_closed: bool) -> None:
        self.is_closed = is_closed
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        if self.is_closed:
            raise CommClosedError("already closed")
        self.sent.append(message)


def relay(driver: Comm, worker: Comm) -> Relay:
    relay = Relay()
    relay.scheduler = SimpleNamespace(
        client_comms={"driver": driver}, stream_comms={"worker": worker}, tasks={}
    )
    return relay


def test_a_report_for_a_driver_that_was_killed_does_not_cost_its_worker() -> None:
    """Case C15: what the handler raises makes Dask remove the worker that the report came from."""
    driver, worker = Comm(is_closed=True), Comm(is_closed=False)
    subject = relay(driver, worker)
    subject.pass_report("driver", b"report", worker="worker")
    driver.is_closed = False
    subject.pass_report("driver", b"another", worker="worker")
    assert [message["data"] for message in driver.sent] == [b"another"]


def test_a_word_for_a_worker_that_was_lost_does_not_cost_its_driver() -> None:
    driver, worker = Comm(is_closed=False), Comm(is_closed=True)
    subject = relay(driver, worker)
    subject.pass_report("driver", b"report", worker="worker")
    subject.pass_word(b"word", client="driver", to="worker")
    worker.is_closed = False
    subject.pass_word(b"another", client="driver", to="worker")
    assert [message["data"] for message in worker.sent] == [b"another"]
