"""Leases: who drives an outermost flow run. One process at a time, for as long as it shows life.

    driver A ── every group: "counter + 1 where the epoch is mine" ──► committed
    driver A is frozen, its counter stands still
    driver B ── watches the counter for a whole lease ──► epoch + 1 (take_over)
    driver A wakes up ── "where the epoch is mine" finds no row ──► its group is refused

Nothing is decided by clocks of two machines: the epoch is compared inside the transaction that
writes, and who waits for silence does so on its own clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LEASE_SECONDS = 10.0
"""Seconds of silence after which another process may take a flow run over."""
BEAT_SECONDS = LEASE_SECONDS / 3
"""Seconds after which a driver shows life even when nothing happens."""
STALE_SECONDS = 12.0
"""Age of the last sign of life above which a driver on another host counts as gone."""


LOST_MESSAGE = "Execution was lost with the process that ran the flow."
"""What is said of the runs that a driver left unfinished when it was gone."""


class Lease:
    """The claim of this process on one outermost flow run.

    Attributes:
        flow_run_key: the flow run.
        epoch: how many drivers it had before.
        is_lost: another process has taken the flow run over.
        members: ids of the flow run and of its subflow runs that have not ended.
        when_lost: called once, in the recorder's thread, when it is found to be lost.
    """

    __slots__ = ("epoch", "flow_run_key", "is_lost", "members", "when_lost")

    def __init__(self, flow_run_key: bytes, epoch: int = 0) -> None:
        self.flow_run_key = flow_run_key
        self.epoch = epoch
        self.is_lost = False
        self.members = {flow_run_key}
        self.when_lost: Callable[[], object] | None = None

    def row(self, at: int, owner: tuple[Any, ...]) -> tuple[Any, ...]:
        """Give the row for a group, in the order of `LEASE_COLUMNS`."""
        return (self.flow_run_key, self.epoch, at, *owner)

    def lose(self) -> None:
        """Take that another process drives the flow run."""
        if not self.is_lost:
            self.is_lost = True
            if self.when_lost is not None:
                self.when_lost()


class LostLeases(Exception):
    """A group was refused: other processes have taken over some of its flow runs.

    Attributes:
        flow_run_keys: the outermost flow runs that were taken over.
    """

    def __init__(self, flow_run_keys: list[bytes]) -> None:
        super().__init__(f"{len(flow_run_keys)} flow runs are driven by other processes.")
        self.flow_run_keys = flow_run_keys
