"""Claim a flow run that another process drove: only one that shows no life is taken over."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep, time_ns
from typing import Any

from penstock.errors import LeaseHeld
from penstock.history.base import HistoryReader
from penstock.history.leases import LEASE_SECONDS, STALE_SECONDS, LostLeases
from penstock.history.owners import host_name, is_gone
from penstock.history.recorder import Recorder
from penstock.history.resumable import Resumable
from penstock.states import FINAL_TYPES

_FINAL = frozenset(state.value for state in FINAL_TYPES)
_POLL_SECONDS = 0.25


def claim(reader: HistoryReader, recorder: Recorder, resumable: Resumable, steal: bool) -> int:
    """Become the driver of a flow run, and give the epoch.

    Args:
        steal: take it also from a process that is still there, once it has shown no life for a
            whole lease.

    Raises:
        LeaseHeld: another process drives the flow run, or was quicker to claim it.
    """
    row = resumable.row
    if row["state"] not in _FINAL and not is_gone(row["host"], row["pid"], row["pid_started_at"]):
        if not steal and not _seems_gone(row):
            raise _held(row, f"--steal (waits {LEASE_SECONDS:.0f} s for silence first)")
        _wait_for_silence(lambda: reader.resumable(row["id"].hex()).row, row)
    epoch: int = row["epoch"] + 1
    try:
        recorder.take_over(row["id"], epoch)
    except LostLeases:
        raise _held(reader.resumable(row["id"].hex()).row, "--steal") from None
    return epoch


def _seems_gone(row: dict[str, Any]) -> bool:
    """Tell whether a driver on another host has been silent for long, as far as clocks agree."""
    if row["host"] == host_name() or row["beat_at"] is None:
        return False
    return bool((time_ns() - row["beat_at"]) / 1e9 > STALE_SECONDS)


def _wait_for_silence(read: Callable[[], dict[str, Any]], row: dict[str, Any]) -> None:
    """Watch the signs of life for a whole lease, on our own clock.

    Raises:
        LeaseHeld: there was one.
    """
    end = monotonic() + LEASE_SECONDS
    while monotonic() < end:
        sleep(_POLL_SECONDS)
        now = read()
        if (now["counter"], now["epoch"]) != (row["counter"], row["epoch"]):
            raise _held(now, "--steal, once it is gone")
        if now["state"] in _FINAL or is_gone(now["host"], now["pid"], now["pid_started_at"]):
            return


def _held(row: dict[str, Any], option: str) -> LeaseHeld:
    age = ""
    if row["beat_at"] is not None:
        age = f" (last sign of life {max(0.0, (time_ns() - row['beat_at']) / 1e9):.0f} s ago)"
    return LeaseHeld(
        f"Run {row['name']!r} is being driven by process {row['pid']} on {row['host']}{age}.\n"
        f"  If you are sure it is gone: penstock resume {row['id'].hex()[:8]} {option}"
    )
