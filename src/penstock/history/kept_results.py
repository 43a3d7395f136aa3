"""What the history says of stored results: all references to them, and who may be recording."""

from __future__ import annotations

from time import time_ns

from penstock.history.base import HistoryReader
from penstock.history.owners import is_gone
from penstock.states import FINAL_TYPES

LIVE_SECONDS = 15.0
"""A driver that gave a sign of life within this time, in seconds, is alive."""

_FINAL = frozenset(state.value for state in FINAL_TYPES)


def stored_results(reader: HistoryReader) -> list[bytes]:
    """Give what the history keeps of all results that lie in a storage."""
    return [row["result"] for row in reader.select("stored_results")]


def flow_runs_and_life(reader: HistoryReader) -> dict[str, bool]:
    """Tell of every flow run, by the 32 digits of its id, whether it may still be recording."""
    newest = time_ns() - int(LIVE_SECONDS * 1e9)
    found = {}
    for row in reader.select("drivers_of_flow_runs"):
        beat_at = row["beat_at"]
        is_open = row["state"] not in _FINAL and not is_gone(
            row["host"], row["pid"], row["pid_started_at"]
        )
        if row["lease_pid"] is not None and row["state"] not in _FINAL and not is_open:
            # Another process may have taken it over.
            is_open = not is_gone(row["lease_host"], row["lease_pid"], row["lease_pid_started_at"])
        found[row["id"].hex()] = is_open or (beat_at is not None and beat_at > newest)
    return found
