"""The recorder: takes what happens to runs, and commits it in groups from one thread.

    any thread ──append──► deque ──every 50 ms, or on flush──► thread "penstock-recorder"
                                                                 │  rows, counts
                                                                 ▼  one transaction
                                                             HistoryStore.write(group)

Entries are in the order of what happened, and a group is a prefix of them, so the history is
always causally closed: a run's end stands behind the end of everything it depended on. An entry
that only says "this run changed" is written as the run stands when its group is made, unless
the run has ended by then: its end has an entry of its own. One of many that have only been
submitted is given a second for that. So a short task run costs one row.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from contextlib import suppress
from itertools import chain
from queue import Empty, SimpleQueue
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

from penstock.errors import HistoryError, HistoryUnavailable
from penstock.failpoints import FAILPOINTS, hit
from penstock.history.base import Group, HistoryStore
from penstock.history.leases import BEAT_SECONDS, Lease, LostLeases
from penstock.history.ledgers import Ledger
from penstock.history.owners import host_name, process_started_at
from penstock.history.rows import flow_run_row, task_row, task_run_row
from penstock.runs import FlowRun, TaskRun, as_begun
from penstock.states import StateType, describe_exception

if TYPE_CHECKING:
    from penstock.history.cache_store import CacheStore

GROUP_SECONDS = 0.05
"""Seconds within which what happened is on its way to the disk."""
BUFFER_LIMIT = 100_000
"""Entries waiting to be written, above which new task runs wait."""
TEXT_LIMIT = 64_000_000
"""Characters of log lines waiting to be written, above which whoever logs waits."""
PATIENCE_SECONDS = 600.0
"""Seconds that a history may be unavailable before the flow call gives up on it."""
PENDING_SECONDS = 1.0
"""Seconds that a task run may only have been submitted before that is written, where many are
submitted at a time: if it ends within them, as most do, one row is enough."""
_MANY = 500
_SHORTEST_SECONDS = 0.01
_WARN_SECONDS = 5.0
_GROUP_LIMIT = 10_000
_BACKLOG = 1_000

# Kinds of entries.
CHANGED, ENDED, TASK, LOG, FLUSH, _SUBMITTED, _FLUSHED = range(7)
PENDING = StateType.PENDING

logger = logging.getLogger("penstock.history")


def _drop(entry: tuple[int, Any]) -> None:
    """Take an entry in a process that records nothing."""


class _End:
    """Waits for the last entry to be written, as others wait in `flush`."""

    def __init__(self, recorder: Recorder) -> None:
        self.release = recorder.end


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
        # Its steps are atomic: an interruption of the ringing thread leaves no lock behind.
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._hurry = False
        self._closing = False
        self._has_ended = False
        self._text_lock = threading.Lock()
        self._waiting_text = 0
        self._lone = Ledger(None)
        self._submitted: deque[TaskRun] = deque()
        self._leases: dict[bytes, Lease] = {}
        # Flow runs that other processes have taken over, with the subflow runs of each.
        self._lost: dict[bytes, set[bytes]] = {}
        self._beat_at = 0.0
        # What decides on cache keys for the runs that are recorded here, once one has such.
        self.desk: Any = None

    @property
    def is_usable(self) -> bool:
        """Tell whether new runs can be recorded here."""
        return self.failure is None and not self._closing

    def open_cache(self) -> CacheStore | None:
        """Open what finds and claims the values of cache keys; None where nothing is kept."""
        return None if self._store is None else self._store.open_cache()

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
        self._bell.put(None)

    def hold(self, lease: Lease) -> None:
        """Show life for an outermost flow run, and write of it only while nobody else drives it."""
        if self._store is not None:
            self._lost.pop(lease.flow_run_key, None)  # claimed again since
            self._leases[lease.flow_run_key] = lease

    def let_go(self, lease: Lease) -> None:
        """Show no more life for a flow run, which has ended and was written."""
        self._leases.pop(lease.flow_run_key, None)

    def take_over(self, flow_run_id: bytes, epoch: int) -> None:
        """Make this process the driver of a flow run; see `HistoryStore.take_over`."""
        assert self._store is not None
        self._store.take_over(flow_run_id, epoch, time_ns(), self._owner)

    def record_line(self, row: tuple[Any, ...]) -> None:
        """Add a log line; wait while the text of the lines before takes too much memory."""
        self._note_text(len(row[-1]))
        self.record(LOG, row)
        if self._waiting_text > TEXT_LIMIT:
            # Whoever asks for the outcome of the flow is told of a failure, not who logs.
            with suppress(HistoryUnavailable):
                self.flush()

    def make_room(self) -> None:
        """Wait while more entries are buffered than the limit allows.

        Raises:
            HistoryUnavailable: the history cannot be written, or was closed.
        """
        if self.failure is not None:
            raise self.failure
        while len(self.entries) > BUFFER_LIMIT:
            self.flush()

    def flush(self) -> None:
        """Wait until everything recorded so far is committed.

        Raises:
            HistoryUnavailable: the history could not be written for ten minutes, or was closed.
        """
        if self._owner[1] != os.getpid():
            return
        done = threading.Lock()
        done.acquire()
        self.entries.append((FLUSH, done))
        self._hurry = True
        self.wake()
        if self._has_ended:
            self._refuse_rest()
        done.acquire()
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Commit what is left, end the thread and close the store. A second call does nothing.

        Runs that still go on are told when they ask for their history to be written.
        """
        if self._owner[1] != os.getpid():
            return
        self._closing = True
        with self._start_lock:
            thread = self._thread
            self._has_ended = self._has_ended or thread is None
        if thread is not None and thread is not threading.current_thread():
            # What comes behind this belongs to runs that outlive their history: waiting for
            # the end of it could take for ever.
            self.entries.append((FLUSH, _End(self)))
            self._bell.put(None)
            thread.join()
        if self._store is not None:
            self._store.close()

    def disown(self) -> None:
        """Forget everything, in a forked child: what is recorded here belongs to its parent."""
        self.append = _drop
        self.is_asleep = False
        self.entries.clear()
        self._waiting_text = 0
        self._text_lock = threading.Lock()

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is not None or self._has_ended or self._owner[1] != os.getpid():
                return
            thread = threading.Thread(target=self._serve, name="penstock-recorder", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError as problem:  # the interpreter is ending
                self._has_ended = True
                self.failure = HistoryUnavailable(f"Nothing can be recorded now: {problem}.")

    def _serve(self) -> None:
        try:
            self._write_groups()
        except BaseException as problem:
            # A mistake of ours: better a flow call that fails than one that waits for ever.
            self.failure = HistoryUnavailable(
                f"The history could not be written: {describe_exception(problem)}"
            )
            logger.exception("The history could not be written.")
        finally:
            self._has_ended = True
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Let nobody wait for what is no longer written, and keep none of it."""
        self.append = _drop
        while self.entries:
            try:
                kind, subject = self.entries.popleft()
            except IndexError:
                return
            self.failure = self.failure or HistoryUnavailable(
                "The history was closed while runs were going on. What they did later is not in it."
            )
            if kind in (FLUSH, _FLUSHED):
                subject.release()

    def _write_groups(self) -> None:
        while True:
            flushing = self._wait_for_entries()
            self._hurry = False
            self._take_submitted(time_ns() - int(PENDING_SECONDS * 1e9))
            while self.entries and not self._has_ended:
                self._write_group()
                if not flushing and len(self.entries) < _BACKLOG:
                    break
            if self._has_ended:
                return
            if self._leases and monotonic() > self._beat_at + BEAT_SECONDS:
                self._write_group()

    def _wait_for_entries(self) -> bool:
        """Sleep until there are entries and their time has come; tell whether it is urgent."""
        # What happened while the last group was written has waited for that long already.
        pause = max(_SHORTEST_SECONDS, GROUP_SECONDS - (monotonic() - self._beat_at))
        if not self.entries and not self._closing:
            pause = GROUP_SECONDS
            self.is_asleep = True
            if not self.entries and self._submitted:
                self._rings_within(PENDING_SECONDS)
            elif not self.entries and self._leases:
                self._rings_within(BEAT_SECONDS)
            elif not self.entries:
                self._bell.get()
            self.is_asleep = False
        # Collect for a moment; a flush rings the bell again.
        while not self._closing and not self._hurry:
            if not self._rings_within(pause):
                return False
        return True

    def end(self) -> None:
        """Take nothing more; called by the writing thread."""
        self._has_ended = True

    def _rings_within(self, seconds: float) -> bool:
        try:
            self._bell.get(timeout=seconds)
        except Empty:
            return False
        return True

    def _write_group(self) -> None:
        group, waiters = self._make_group()
        if FAILPOINTS:
            hit("history.batch_built")
        # After a group that could not be written the next one would not be causally closed.
        if self._store is not None and self.failure is None:
            self._beat_at = monotonic()
            leases = [lease for lease in list(self._leases.values()) if not lease.is_lost]
            now = time_ns()
            group.leases = [lease.row(now, self._owner) for lease in leases]
            self._write(group)
        if FAILPOINTS:
            hit("history.reply")
        for waiter in waiters:
            waiter.release()

    def _make_group(self) -> tuple[Group, list[Any]]:
        group, text = Group(), 0
        waiters, over = [], []
        touched: dict[Ledger, set[int]] = {}
        popleft = self.entries.popleft
        add_task_run = group.task_runs.append
        are_many = len(self.entries) + len(self._submitted) > _MANY
        for _ in range(min(len(self.entries), _GROUP_LIMIT)):
            kind, subject = popleft()
            if kind <= ENDED or kind == _SUBMITTED:
                if kind != ENDED:
                    type = subject.type
                    if subject.is_over:
                        over.append(subject)
                        continue
                    is_new = type is PENDING and kind == CHANGED and subject.recorded is None
                    if is_new and are_many and subject.is_task_run:
                        self._submitted.append(subject)
                        continue
                else:
                    type = subject.last.type
                ledger = subject.live.ledger if subject.live is not None else self._lone
                if ledger.is_lost:
                    continue
                if self._store is None:
                    # Nothing is kept, but the progress display wants the counts.
                    if subject.is_task_run and ledger.key is not None:
                        ledger.count(subject, type)
                    continue
                if subject.log_budget is not None and subject.log_budget.dropped:
                    group.logs.append(subject.log_budget.notice())
                if not subject.is_task_run:
                    self._add_flow_run(group, kind, subject, ledger)
                    continue
                row = task_run_row(subject, type, next(ledger.numbers), ledger.key)
                if kind == ENDED and subject.cache is not None:
                    group.add_cache(subject)
                if kind != ENDED and subject.is_over:
                    over.append(subject)  # while it was read
                    continue
                add_task_run(row)
                if subject.recorded is not type and ledger.key is not None:
                    ledger.count(subject, type)
                    touched.setdefault(ledger, set()).add(subject.task_number)
            elif kind == LOG:
                group.logs.append(subject)
                text += len(subject[-1])
            elif kind == TASK:
                group.tasks.append(task_row(subject))
            elif kind == FLUSH and self._submitted:
                # Whoever waits is promised these as well.
                self._take_submitted(time_ns())
                self.entries.append((_FLUSHED, subject))
            else:
                waiters.append(subject)
        self._add_begun(group, over, touched)
        self._complete(group, touched, text)
        return group, waiters

    def _add_flow_run(self, group: Group, kind: int, run: FlowRun, ledger: Ledger) -> None:
        row = flow_run_row(run, next(ledger.numbers), self._owner, self._release)
        if kind == ENDED or not run.is_over:
            group.flow_runs.append(row)
            run.recorded = run.type

    def _add_begun(self, group: Group, over: list[Any], touched: dict[Ledger, set[int]]) -> None:
        """Have runs that contain others be known that have ended, when their ends are to come.

        The ends of those in them may be in this group already. A driver that goes on with them
        finds them by what they were in.
        """
        around = [run for run in over if not run.is_task_run or run.subflow_key is not None]
        if not around or self._store is None:
            return
        told = {row[0] for row in chain(group.flow_runs, group.task_runs)}
        for run in around:
            ledger = run.live.ledger
            if run.recorded is not None or run.key in told or ledger.is_lost:
                continue
            begun = as_begun(run)
            if run.is_task_run:
                row = task_run_row(begun, begun.type, next(ledger.numbers), ledger.key)
                group.task_runs.append(row)
                ledger.count(run, begun.type)
                touched.setdefault(ledger, set()).add(run.task_number)
            else:
                self._add_flow_run(group, CHANGED, begun, ledger)
                run.recorded = begun.type

    def _complete(self, group: Group, touched: dict[Ledger, set[int]], text: int) -> None:
        self._note_text(-text)
        for ledger, tasks in touched.items():
            group.counts += ledger.count_rows(tasks)
        if self._lost:
            _drop_rows(group, self._members_lost())

    def _note_text(self, characters: int) -> None:
        if characters:
            with self._text_lock:
                self._waiting_text += characters

    def _take_submitted(self, before: int) -> None:
        """Have task runs written that were submitted before a time and have not ended yet."""
        now = time_ns()
        # What was made on a machine whose clock is ahead must not keep others waiting.
        while self._submitted and not before < self._submitted[0].created_at <= now:
            self.entries.append((_SUBMITTED, self._submitted.popleft()))

    def _write(self, group: Group) -> None:
        """Write a group, again and again while the database cannot be written."""
        assert self._store is not None
        began = warned_at = monotonic()
        pause, warn_seconds = 0.05, _WARN_SECONDS
        while True:
            try:
                return self._store.write(group)
            except LostLeases as exc:
                self._lose(exc.flow_run_keys)
                lost = self._members_lost()
                group.leases = [row for row in group.leases if row[0] not in lost]
                _drop_rows(group, lost)
            except HistoryUnavailable as exc:
                if monotonic() - began > PATIENCE_SECONDS:
                    waited = f"{monotonic() - began:.0f} s"
                    self.failure = HistoryUnavailable(f"{exc} Gave up after {waited}.")
                    return None
                if monotonic() - warned_at > warn_seconds:
                    warned_at = monotonic()
                    warn_seconds = min(2 * warn_seconds, 60.0)
                    logger.warning(
                        "%s Work goes on; %d events are waiting in memory.", exc, len(self.entries)
                    )
            except Exception as exc:
                # Trying again would not help: a bad row, a damaged file, a closed store.
                self.failure = HistoryUnavailable(f"The history could not be written: {exc}")
                logger.exception("The history could not be written.")
                return None
            self._rings_within(pause)
            pause = min(2 * pause, 1.0)

    def _lose(self, flow_run_keys: list[bytes]) -> None:
        """Write no more of flow runs that other processes have taken over."""
        for key in flow_run_keys:
            lease = self._leases.pop(key)
            self._lost[key] = lease.members
            lease.lose()

    def _members_lost(self) -> set[bytes]:
        return set().union(*list(self._lost.values()))


def _drop_rows(group: Group, flow_run_keys: set[bytes]) -> None:
    """Take out of a group what belongs to some flow runs."""
    gone = {row[0] for row in group.task_runs if row[1] in flow_run_keys}
    group.cache = [row for row in group.cache if row[1] not in gone]
    group.flow_runs = [row for row in group.flow_runs if row[0] not in flow_run_keys]
    group.tasks = [row for row in group.tasks if row[0] not in flow_run_keys]
    group.task_runs = [row for row in group.task_runs if row[1] not in flow_run_keys]
    group.logs = [row for row in group.logs if row[0] not in flow_run_keys]
    group.counts = [row for row in group.counts if row[0] not in flow_run_keys]
