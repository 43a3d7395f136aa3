"""The recorder: order, groups, waiting, ends, and stores that fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic, time_ns
from typing import Any

import pytest

from penstock.errors import HistoryCorrupt, HistoryUnavailable
from penstock.history import recorder as module
from penstock.history.base import Group, HistoryStore
from penstock.history.ledgers import Ledger
from penstock.history.recorder import CHANGED, ENDED, LOG, Recorder
from penstock.ids import new_flow_run_key, new_task_run_key
from penstock.runs import FlowRun, TaskRun
from penstock.states import State, StateType

PATIENCE = 10.0
STATE, SEQ = 5, 2


class MemoryStore(HistoryStore):
    """Keeps groups in memory; `trouble` is raised for a while first."""

    def __init__(self, trouble: Exception | None = None, times: int = 1_000_000) -> None:
        self.groups: list[Group] = []
        self.trouble = trouble
        self.times = times
        self.is_closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def write(self, group: Group) -> None:
        self.reached.set()
        assert self.gate.wait(PATIENCE)
        if self.trouble is not None and self.times:
            self.times -= 1
            raise self.trouble
        self.groups.append(group)

    def take_over(self, flow_run_id: bytes, epoch: int, at: int, owner: tuple[Any, ...]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.is_closed = True

    def rows(self) -> list[tuple[Any, ...]]:
        return [row for group in self.groups for row in group.task_runs]


class Definition:
    """A task as far as runs know it."""

    name = key = "load"
    is_async = False
    parameter_names: tuple[str, ...] = ()
    hooks: Mapping[StateType, Sequence[Callable[..., Any]]] = {}


class Live:
    """A flow run as far as the recorder knows it."""

    def __init__(self) -> None:
        self.ledger = Ledger(new_flow_run_key())


def new_run(live: Live | None = None) -> TaskRun:
    now = time_ns()
    run = TaskRun(Definition(), new_task_run_key(now), now)
    run.live = live
    run.task_number = 1
    return run


def end(run: Any, type: StateType = StateType.COMPLETED) -> Any:
    run.close(State(type, run_key=run.key))
    return run


@contextmanager
def recording(store: HistoryStore | None) -> Iterator[Recorder]:
    recorder = Recorder(store, "0")
    try:
        yield recorder
    finally:
        recorder.close()


def within_time(function: Callable[[], object]) -> BaseException | None:
    """Call a function in a thread; give what it raised. It must not hang."""
    problems: list[BaseException | None] = []

    def call() -> None:
        try:
            function()
            problems.append(None)
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert problems, "it hangs"
    return problems[0]


def test_flush_commits_what_was_recorded_in_order() -> None:
    store, live = MemoryStore(), Live()
    with recording(store) as recorder:
        runs = [end(new_run(live)) for _ in range(100)]
        for run in runs:
            recorder.record(ENDED, run)
        recorder.flush()
        assert [row[0] for row in store.rows()] == [run.key for run in runs]
        assert [row[SEQ] for row in store.rows()] == list(range(1, 101))
    assert store.is_closed


def test_run_that_ended_before_its_group_is_one_row() -> None:
    store, live = MemoryStore(), Live()
    with recording(store) as recorder:
        run = new_run(live)
        recorder.record(CHANGED, run)
        recorder.record(CHANGED, run)
        recorder.record(ENDED, end(run))
        recorder.flush()
        assert [row[STATE] for row in store.rows()] == ["COMPLETED"]


class EndsWhileRead(TaskRun):
    """Ends in another thread at the very moment its row is made."""

    @property
    def custom_name(self) -> str | None:  # type: ignore[override]
        if not self.is_over:
            end(self)
        return None


def test_run_that_ends_while_its_row_is_made_is_written_with_its_end_only() -> None:
    store, live = MemoryStore(), Live()
    with recording(store) as recorder:
        now = time_ns()
        run = EndsWhileRead(Definition(), new_task_run_key(now), now)
        run.live, run.task_number = live, 1
        recorder.record(CHANGED, run)
        recorder.flush()
        assert store.rows() == []
        assert live.ledger.counts == {}
        recorder.record(ENDED, run)
        recorder.flush()
        assert [row[STATE] for row in store.rows()] == ["COMPLETED"]


def test_late_attempt_cannot_change_the_end() -> None:
    store, live = MemoryStore(), Live()
    with recording(store) as recorder:
        run = end(new_run(live), StateType.CANCELLED)
        run.type = StateType.RUNNING  # what a worker does that took the call a moment too late
        recorder.record(ENDED, run)
        recorder.flush()
        assert [row[STATE] for row in store.rows()] == ["CANCELLED"]
        assert live.ledger.counts == {1: {StateType.CANCELLED: 1}}


def test_counts_follow_the_rows() -> None:
    store, live = MemoryStore(), Live()
    with recording(store) as recorder:
        run = new_run(live)
        recorder.record(CHANGED, run)
        recorder.flush()
        assert store.groups[-1].counts == [(live.ledger.key, 1, "PENDING", 1)]
        recorder.record(ENDED, end(run))
        recorder.flush()
        assert set(store.groups[-1].counts) == {
            (live.ledger.key, 1, "PENDING", 0),
            (live.ledger.key, 1, "COMPLETED", 1),
        }


def test_without_a_store_only_counts_are_kept() -> None:
    live = Live()
    with recording(None) as recorder:
        recorder.record(ENDED, end(new_run(live)))
        recorder.flush()
    assert live.ledger.counts == {1: {StateType.COMPLETED: 1}}


def test_entries_are_written_without_a_flush() -> None:
    store = MemoryStore()
    with recording(store) as recorder:
        recorder.record(ENDED, end(new_run(Live())))
        assert store.reached.wait(PATIENCE)


def test_many_threads_record_and_flush() -> None:
    store, live = MemoryStore(), Live()
    with recording(store) as recorder:

        def work() -> None:
            for _ in range(50):
                recorder.record(ENDED, end(new_run(live)))
                recorder.flush()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(store.rows()) == 400


# --- stores that fail ------------------------------------------------------------------------


def test_unavailable_store_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(HistoryUnavailable("in use"), times=2)
    with recording(store) as recorder:
        recorder.record(ENDED, end(new_run(Live())))
        assert within_time(recorder.flush) is None
        assert len(store.rows()) == 1


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    store = MemoryStore(HistoryUnavailable("in use."))
    with recording(store) as recorder:
        recorder.record(ENDED, end(new_run(Live())))
        problem = within_time(recorder.flush)
        assert isinstance(problem, HistoryUnavailable)
        assert "in use. Gave up after" in str(problem)
        assert not recorder.is_usable


def test_nothing_is_written_after_a_group_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    store, live = MemoryStore(HistoryUnavailable("in use."), times=2), Live()
    with recording(store) as recorder:
        recorder.record(ENDED, end(new_run(live)))
        assert within_time(recorder.flush) is not None
        store.times = 0
        recorder.record(ENDED, end(new_run(live)))  # may depend on what was given up
        assert within_time(recorder.flush) is not None
        assert store.rows() == []
        assert within_time(recorder.make_room) is not None


@pytest.mark.parametrize("problem", [HistoryCorrupt("damaged"), ZeroDivisionError()])
def test_hopeless_store_is_told_at_once(problem: Exception) -> None:
    with recording(MemoryStore(problem)) as recorder:
        recorder.record(ENDED, end(new_run(Live())))
        assert isinstance(within_time(recorder.flush), HistoryUnavailable)


def test_mistake_while_making_rows_hangs_nobody() -> None:
    with recording(MemoryStore()) as recorder:
        recorder.record(ENDED, "no run at all")
        assert isinstance(within_time(recorder.flush), HistoryUnavailable)
        recorder.record(ENDED, end(new_run(Live())))
        assert isinstance(within_time(recorder.flush), HistoryUnavailable)
        assert not recorder.entries


def test_trouble_is_warned_of_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WARN_SECONDS", 0.05)
    with recording(MemoryStore(HistoryUnavailable("in use."), times=5)) as recorder:
        recorder.record(ENDED, end(new_run(Live())))
        assert within_time(recorder.flush) is None
    warnings = [line for line in caplog.messages if "Work goes on" in line]
    assert 1 <= len(warnings) < 5


# --- room ------------------------------------------------------------------------------------


def test_full_buffer_makes_room_before_more_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_LIMIT", 10)
    store = MemoryStore()
    store.gate.clear()
    with recording(store) as recorder:
        recorder.record(ENDED, end(new_run(Live())))
        assert store.reached.wait(PATIENCE)
        for _ in range(11):
            recorder.record(ENDED, end(new_run(Live())))
        waiting = threading.Thread(target=recorder.make_room)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        store.gate.set()
        waiting.join(PATIENCE)
        assert not recorder.entries


def test_much_text_makes_who_logs_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXT_LIMIT", 1_000)
    store = MemoryStore()
    with recording(store) as recorder:
        for _ in range(100):
            recorder.record_line((None, None, 1, 0, 20, "x", "y" * 300))
            assert sum(len(entry[1][-1]) for entry in list(recorder.entries)) <= 1_300
        recorder.flush()
        assert sum(len(group.logs) for group in store.groups) == 100
        assert recorder._waiting_text == 0


# --- ends ------------------------------------------------------------------------------------


def test_close_writes_what_is_left() -> None:
    store = MemoryStore()
    recorder = Recorder(store, "0")
    for _ in range(2_500):
        recorder.record(ENDED, end(new_run(Live())))
    recorder.close()
    assert len(store.rows()) == 2_500
    recorder.close()


@pytest.mark.parametrize("used", [True, False])
def test_flush_after_close_says_so_and_keeps_nothing(used: bool) -> None:
    recorder = Recorder(MemoryStore(), "0")
    if used:
        recorder.record(ENDED, end(new_run(Live())))
    recorder.close()
    recorder.record(LOG, (None, None, 1, 0, 20, "x", "y"))
    problem = within_time(recorder.flush)
    assert isinstance(problem, HistoryUnavailable)
    assert "was closed while runs were going on" in str(problem)
    recorder.record(ENDED, end(new_run(Live())))
    assert not recorder.entries


@pytest.mark.parametrize("_", range(20))
def test_close_while_others_record_and_flush_hangs_nobody(_: int) -> None:
    recorder = Recorder(MemoryStore(), "0")
    going = threading.Barrier(5)

    def work() -> None:
        going.wait(PATIENCE)
        while True:
            recorder.record(ENDED, end(new_run(Live())))
            recorder.flush()

    results: list[BaseException | None] = []
    threads = [threading.Thread(target=lambda: results.append(within_time(work))) for _ in range(4)]
    for thread in threads:
        thread.start()
    going.wait(PATIENCE)
    recorder.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert [type(result) for result in results] == [HistoryUnavailable] * 4


def test_write_is_on_its_way_within_the_rhythm() -> None:
    store = MemoryStore()
    with recording(store) as recorder:
        began = monotonic()
        recorder.record(ENDED, end(new_run(Live())))
        assert store.reached.wait(PATIENCE)
        assert monotonic() - began < 100 * module.GROUP_SECONDS


def test_subflow_run_is_known_before_what_happened_in_it() -> None:
    """It had ended when the group was made, but its end was not in it."""
    store, live, parent = MemoryStore(), Live(), Live()
    flow_run = FlowRun(Definition(), live.ledger.key or b"", time_ns(), "sub")
    stand_in = new_run(parent)
    stand_in.subflow_key = flow_run.key
    flow_run.live, flow_run.parent = live, stand_in
    for run in (flow_run, stand_in):
        run.started_at = run.created_at
        end(run)
    with recording(store) as recorder:
        recorder.record(CHANGED, stand_in)
        recorder.record(CHANGED, flow_run)
        recorder.record(ENDED, end(new_run(live)))
        recorder.flush()
        recorder.record(ENDED, flow_run)
        recorder.record(ENDED, stand_in)
        recorder.flush()
    first, last = (group for group in store.groups if group.task_runs)
    assert [row[6] for row in first.flow_runs] == ["RUNNING"]
    assert [row[STATE] for row in first.task_runs] == ["COMPLETED", "RUNNING"]
    assert [row[6] for row in last.flow_runs] == ["COMPLETED"]
    assert [row[STATE] for row in last.task_runs] == ["COMPLETED"]
    assert first.flow_runs[0][1] < last.flow_runs[0][1]
    assert (parent.ledger.key, 1, "RUNNING", 1) in first.counts
    assert set(last.counts) == {
        (parent.ledger.key, 1, "RUNNING", 0),
        (parent.ledger.key, 1, "COMPLETED", 1),
    }
