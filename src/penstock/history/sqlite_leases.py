"""Leases in SQLite: check those of a group, and take one over."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from penstock.failpoints import FAILPOINTS, hit
from penstock.history.base import EPOCH_BITS, LEASE_COLUMNS
from penstock.history.leases import LOST_MESSAGE, LostLeases
from penstock.history.statements import load_query

_query = cache(load_query)


def check_leases(connection: sqlite3.Connection, leases: Sequence[tuple[Any, ...]]) -> None:
    """Note a sign of life of each lease, within the transaction that writes the rest.

    Raises:
        LostLeases: other processes have taken flow runs over.
    """
    lost = []
    for row in leases:
        values = dict(zip(LEASE_COLUMNS, row, strict=True))
        if connection.execute(_query("beat_lease"), values).rowcount:
            if FAILPOINTS:
                hit("lease.beat")
        elif connection.execute(_query("new_lease"), values).rowcount:
            # There is none before the first group, nor in a file that took another one's place.
            if FAILPOINTS:
                hit("lease.acquire")
        else:
            lost.append(row[0])
    if lost:
        raise LostLeases(lost)


def take_over(
    connection: sqlite3.Connection, flow_run_id: bytes, epoch: int, at: int, owner: tuple[Any, ...]
) -> None:
    """Make this process the driver of a flow run, within a transaction.

    What the last driver left unfinished is closed: task runs that ran become CRASHED, those that
    never began are forgotten, because they will be submitted again.

    Raises:
        LostLeases: it has another driver by now.
    """
    root = {"id": flow_run_id}
    (present,) = connection.execute(_query("select_epoch"), root).fetchone()
    if present != epoch - 1:
        raise LostLeases([flow_run_id])
    host, pid, pid_started_at = owner
    driver = {"host": host, "pid": pid, "pid_started_at": pid_started_at}
    connection.execute(_query("take_lease"), {**root, "epoch": epoch, "at": at, **driver})
    seqs = itertools.count((epoch << EPOCH_BITS) + 1)
    for (id,) in connection.execute(_query("flow_run_family"), root).fetchall():
        _close_unfinished(connection, id, at, seqs)
        if id != flow_run_id:
            lost = {"id": id, "at": at, "message": LOST_MESSAGE}
            connection.execute(_query("crash_flow_run"), lost)
    connection.execute(_query("reopen_flow_run"), {**root, "seq": next(seqs), **driver})
    if FAILPOINTS:
        hit("lease.steal")


def _close_unfinished(
    connection: sqlite3.Connection, flow_run_id: bytes, at: int, seqs: Iterator[int]
) -> None:
    flow_run = {"id": flow_run_id}
    connection.execute(_query("forget_unstarted"), flow_run)
    for (id,) in connection.execute(_query("unfinished_task_runs"), flow_run).fetchall():
        lost = {"id": id, "at": at, "seq": next(seqs), "message": LOST_MESSAGE}
        connection.execute(_query("crash_task_run"), lost)
    connection.execute(_query("forget_counts"), flow_run)
    connection.execute(_query("recount"), flow_run)
