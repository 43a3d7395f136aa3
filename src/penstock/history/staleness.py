"""Tell whether a flow run that is not final has lost its driver. Derived on reading, never written.

A driver on this host is asked for by its pid and start time. One elsewhere cannot be asked; it
shows life every few seconds in the row of `leases` of the outermost flow run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.history.leases import STALE_SECONDS
from penstock.history.owners import host_name, is_gone

_SECOND = 1_000_000_000

Row = Mapping[str, Any]


class Staleness(NamedTuple):
    """Why a flow run counts as stale.

    Attributes:
        since: its driver's last sign of life in nanoseconds since 1970; None where there was none.
        reason: why, in words.
    """

    since: int | None
    reason: str


def staleness_of(flow_run: Row, lease: Row | None, now: int) -> Staleness | None:
    """Tell why a flow run is stale; None while its driver lives, or where that cannot be known.

    Args:
        flow_run: the columns `host`, `pid`, `pid_started_at` of a run that is not final.
        lease: the columns of `lease_of_flow_run.sql`; None where nobody holds one.
        now: nanoseconds since 1970.

    Example:
        >>> lease = {"host": "node7", "pid": 1, "pid_started_at": 1, "beat_at": 0}
        >>> staleness_of(lease, lease, 13_000_000_000)
        Staleness(since=0, reason='no sign of life from node7 for 13 s')
    """
    driver = flow_run if lease is None else lease
    host, pid = driver["host"], driver["pid"]
    since = None if lease is None else int(lease["beat_at"])
    # The file may come from a stranger: what is no number is no process.
    if host == host_name() and isinstance(pid, int):
        gone = is_gone(host, pid, driver["pid_started_at"])
        return Staleness(since, f"its process {pid} is gone") if gone else None
    if since is None or now - since <= STALE_SECONDS * _SECOND:
        return None
    silent = (now - since) // _SECOND
    return Staleness(since, f"no sign of life from {host or 'its host'} for {silent:,} s")
