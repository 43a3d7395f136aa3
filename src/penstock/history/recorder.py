"""The recorder: takes what happens to runs, and commits it in groups from one thread.

    any thread ──append──► deque ──every 50 ms, or on flush──► thread "penstock-recorder"
                                                                 │  rows, counts
                                                                 ▼  one transaction
                                                             HistoryStore.write(group)

Entries are in the order of what happened, and a group is a prefix of them, so the history is
always causally closed: a run's end stands behind the end of everything it depended on. An entry
that only says "this run changed" is written as the run stands when its group is made, unless
the run has ended by then: its end has an entry of its own. So a short task run costs one row.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from time import monotonic
from typing import Any

from penstock.errors import HistoryError, HistoryUnavailable
from penstock.history.base import Group, HistoryStore
from penstock.history.owners import host_name, process_started_at
from penstock.history.rows import flow_run_row, task_run_row
from penstock.runs import FlowRun, TaskRun

GROUP_SECONDS = 0.05
BUFFER_LIMIT = 100_000
PATIENCE_SECONDS = 600.0
_WARN_SECONDS = 5.0
_GROUP_LIMIT = 10_000

# Kinds of entries.
CHANGED, ENDED, TASK, LOG, FLUSH = range(5)
Counts = dict[str, int]

logger = logging.getLogger("penstock.history")


class Recorder:
    """Records runs in a history store. Thread-safe.

    Args:
        store: where groups go; None keeps only the counts of running flow runs.
        release: the version of Penstock that writes.
    """

    def __init__(self, store: HistoryStore | None, release: str) -> None:
        self.entries: deque[tuple[int, Any]] = deque()
        self.append = self.entries.append
        self.is_asleep = True
        self.failure: HistoryError | None = None
        self.lone_tasks: set[int] = set()
        self._store = store
        self._release = release
        self._owner = (host_name(), os.getpid(), process_started_at(os.getpid()))
        self._bell = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._hurry = False
        self._closing = False
        self._numbers: dict[bytes, itertools.count[int]] = {}
        self._counts: dict[bytes, dict[int, Counts]] = {}

    def record(self, kind: int, subject: Any) -> None:
        """Add an entry, and wake the writing thread if it sleeps."""
        self.append((kind, subject))
        if self.is_asleep:
            self.wake()

    def wake(self) -> None:
        """Wake the writing thread, starting it if there is none."""
        self.is_asleep = False
        if self._thread is None:
            self._start()
        self._bell.release()

    def make_room(self) -> None:
        """Wait while more entries are buffered than the limit allows.

        Raises:
            HistoryUnavailable: the history could not be written for ten minutes.
        """
        while len(self.entries) > BUFFER_LIMIT and self._owner[1] == os.getpid():
            self.flush()

    def flush(self) -> None:
        """Wait until everything recorded so far is committed.

        Raises:
            HistoryUnavailable: the history could not be written for ten minutes.
        """
        if self._owner[1] != os.getpid():
            return
        done = threading.Lock()
        done.acquire()
        self.append((FLUSH, done))
        self._hurry = True
        self.wake()
        done.acquire()
        if self.failure is not None:
            raise self.failure

    def counts(self, flow_key: bytes) -> dict[int, Counts]:
        """Give the committed number of task runs by task number and state type."""
        return {task: dict(states) for task, states in list(self._counts.get(flow_key, {}).items())}

    def forget(self, flow_key: bytes) -> None:
        """Drop what is kept in memory of a flow run that has ended and is flushed."""
        self._numbers.pop(flow_key, None)
        self._counts.pop(flow_key, None)

    def close(self) -> None:
        """Commit what is left, end the thread and close the store."""
        if self._owner[1] != os.getpid():
            return
        self._closing = True
        if self._thread is not None:
            self._bell.release()
            self._thread.join()
        if self._store is not None:
            self._store.close()

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None and self._owner[1] == os.getpid():
                self._thread = threading.Thread(
                    target=self._serve, name="penstock-recorder", daemon=True
                )
                self._thread.start()

    def _serve(self) -> None:
        while True:
            flushing = self._wait_for_entries()
            self._hurry = False
            while self.entries:
                self._write_group()
                if not flushing and len(self.entries) < _GROUP_LIMIT:
                    break
            if self._closing and not self.entries:
                return

    def _wait_for_entries(self) -> bool:
        """Sleep until there are entries and their time has come; tell whether it is urgent."""
        if not self.entries and not self._closing:
            self.is_asleep = True
            if not self.entries:
                self._bell.acquire()
            self.is_asleep = False
        # Collect for a moment; a flush rings the bell again.
        while not self._closing and not self._hurry:
            if not self._bell.acquire(timeout=GROUP_SECONDS):
                return False
        return True

    def _write_group(self) -> None:
        group, waiters = self._make_group()
        if self._store is not None:
            self._write(group)
        for waiter in waiters:
            waiter.release()

    def _make_group(self) -> tuple[Group, list[Any]]:
        group = Group()
        waiters = []
        touched: set[tuple[bytes, int]] = set()
        popleft = self.entries.popleft
        for _ in range(min(len(self.entries), _GROUP_LIMIT)):
            kind, subject = popleft()
            if kind == ENDED or (kind == CHANGED and not subject.is_over):
                self._add_run(group, subject, touched)
            elif kind == LOG:
                group.logs.append(subject)
            elif kind == TASK:
                group.tasks.append(subject)
            elif kind == FLUSH:
                waiters.append(subject)
        self._add_counts(group, touched)
        return group, waiters

    def _add_run(
        self, group: Group, run: TaskRun | FlowRun, touched: set[tuple[bytes, int]]
    ) -> None:
        if isinstance(run, TaskRun):
            live = run.live
            flow_key = None if live is None else live.flow_run.key
            group.task_runs.append(task_run_row(run, self._number(flow_key), flow_key))
            if flow_key is not None and run.recorded is not run.type:
                self._count(flow_key, run)
                touched.add((flow_key, run.task_number))
        else:
            group.flow_runs.append(
                flow_run_row(run, self._number(run.key), self._owner, self._release)
            )

    def _number(self, flow_key: bytes | None) -> int:
        numbers = self._numbers.get(flow_key or b"")
        if numbers is None:
            numbers = self._numbers[flow_key or b""] = itertools.count(1)
        return next(numbers)

    def _count(self, flow_key: bytes, run: TaskRun) -> None:
        tasks = self._counts.setdefault(flow_key, {})
        states = tasks.get(run.task_number)
        if states is None:
            states = tasks[run.task_number] = {}
        if run.recorded is not None:
            states[run.recorded.value] -= 1
        states[run.type.value] = states.get(run.type.value, 0) + 1
        run.recorded = run.type

    def _add_counts(self, group: Group, touched: set[tuple[bytes, int]]) -> None:
        for flow_key, task in touched:
            for state, number in self._counts[flow_key][task].items():
                group.counts.append((flow_key, task, state, number))

    def _write(self, group: Group) -> None:
        """Write a group, again and again while the database cannot be written."""
        assert self._store is not None
        began = warned_at = monotonic()
        pause = 0.05
        while True:
            try:
                return self._store.write(group)
            except HistoryUnavailable as exc:
                if monotonic() - began > PATIENCE_SECONDS:
                    self.failure = HistoryUnavailable(f"{exc} Gave up after ten minutes.")
                    return None
                if monotonic() - warned_at > _WARN_SECONDS:
                    warned_at = monotonic()
                    logger.warning(
                        "%s Work goes on; %d events are waiting in memory.", exc, len(self.entries)
                    )
            except Exception as exc:
                # Trying again would not help: a bad row, a damaged file, a closed store.
                self.failure = HistoryUnavailable(f"The history could not be written: {exc}")
                logger.exception("The history could not be written.")
                return None
            self._bell.acquire(timeout=pause)
            pause = min(2 * pause, 1.0)
