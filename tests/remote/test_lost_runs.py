"""Runs that were called on a worker which is lost, and claims of attempts that linger."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.errors import WorkerLost
from penstock.history.ledgers import Ledger
from penstock.history.recorder import CHANGED, ENDED
from penstock.ids import new_task_run_key
from penstock.remote.flow_run import RECALLED
from penstock.remote.messages import Item, Sent
from penstock.remote.snapshots import Mirrors, snapshot
from penstock.remote.worker import Bundle
from penstock.runs import FlowRun, TaskRun
from penstock.states import Completed, StateType

DEFINITION: Any = SimpleNamespace(key="k", name="inner", is_async=False)
PARENT = b"parent".ljust(16)
PROBLEM = WorkerLost("The worker is gone.")


class Live:
    """What mirrors need of a flow run."""

    def __init__(self) -> None:
        self.flow_run = FlowRun(DEFINITION, b"flow".ljust(16), 0, "flow")
        self.recorder = self
        self.ledger = Ledger(self.flow_run.key)
        self.entries: list[tuple[int, Any]] = []
        self.ended: list[TaskRun] = []
        self.exported: list[TaskRun] = []
        self._numbers = itertools.count()

    def enrol(self, run: TaskRun) -> None:
        run.live, run.number = self, next(self._numbers)

    def identify(self, digest: bytes, parent: Any) -> bytes:
        return digest

    def record(self, kind: int, run: Any) -> None:
        self.entries.append((kind, run))

    def note_end(self, run: TaskRun, state: Any) -> None:
        self.ended.append(run)

    def export(self, run: TaskRun) -> None:
        self.exported.append(run)

    def closed(self) -> list[bytes]:
        return [run.key for kind, run in self.entries if kind == ENDED]


class There:
    """What happens on the worker."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.mirrors = Mirrors(live, lambda key: None)

    def call(self, parent: bytes | None, live: Any = None) -> TaskRun:
        run = TaskRun(DEFINITION, new_task_run_key(1), 1)
        run.live, run.parent_key = live or SimpleNamespace(flow_run=self.live.flow_run), parent
        run.type, run.started_at = StateType.RUNNING, 2
        self.tell(CHANGED, run)
        return run

    def call_flow(self, stand_in: TaskRun) -> Any:
        run = FlowRun(DEFINITION, new_task_run_key(1), 1, "sub")
        run.parent, run.type, run.started_at = stand_in, StateType.RUNNING, 2
        self.tell(CHANGED, run)
        return SimpleNamespace(flow_run=run)

    def tell(self, kind: int, run: Any) -> None:
        self.mirrors.take(kind, snapshot(run))

    def end(self, run: TaskRun) -> None:
        run.close(Completed())
        self.tell(ENDED, run)


@pytest.fixture
def live() -> Live:
    return Live()


@pytest.fixture
def there(live: Live) -> There:
    return There(live)


def test_runs_below_a_lost_run_crash_each_before_its_parent(live: Live, there: There) -> None:
    stand_in = there.call(PARENT)
    sub = there.call_flow(stand_in)
    outer = there.call(None, sub)
    inner = there.call(outer.key, sub)
    other = there.call(b"other".ljust(16))
    there.mirrors.lose(PARENT, PROBLEM)
    assert live.closed() == [inner.key, outer.key, sub.flow_run.key, stand_in.key]
    for kind, run in live.entries:
        if kind == ENDED:
            assert run.outcome.type is run.type is StateType.CRASHED
            assert "The worker is gone." in run.message
            assert run.error is not None
            assert run.ended_at >= run.started_at
    # The failure of the run that was sent there tells of them.
    assert [run.key for run in live.ended] == [stand_in.key]
    assert live.ended[0].looked_at
    assert not live.exported
    assert there.mirrors.number_of(stand_in.key) == 0
    assert other.key not in live.closed()


def test_late_changes_of_lost_runs_are_ignored(live: Live, there: There) -> None:
    stand_in = there.call(PARENT)
    sub = there.call_flow(stand_in)
    there.mirrors.lose(PARENT, PROBLEM)
    there.mirrors.lose(PARENT, PROBLEM)
    entries = list(live.entries)
    late = there.call(None, sub)
    there.end(there.call(late.key))
    there.tell(CHANGED, sub.flow_run)
    there.end(late)
    there.end(stand_in)
    assert live.entries == entries
    # The next attempt of the parent has the same key.
    again = there.call(PARENT)
    there.end(again)
    assert live.closed()[-1] == again.key


def test_whatever_is_open_crashes_at_the_end(live: Live, there: There) -> None:
    ended = there.call(PARENT)
    of_ended, orphan = there.call(ended.key), there.call(None)
    inner = there.call(orphan.key)
    there.end(ended)
    there.mirrors.close(PROBLEM)
    assert live.closed()[0] == ended.key
    assert set(live.closed()) == {ended.key, of_ended.key, orphan.key, inner.key}
    assert live.closed().index(inner.key) < live.closed().index(orphan.key)
    there.end(of_ended)
    there.call(PARENT)
    assert len(live.closed()) == 4


def bundle_of(claims: dict[bytes, object]) -> Any:
    item = Item(PARENT, "", 0, 0, None, 0, None, frozenset(), frozenset(), False, b"", (), False)
    sent = Sent("id", b"", {}, [tuple(item)], 1.0, None, None)  # type: ignore[list-item]
    return Bundle(sent, {}, SimpleNamespace(claims=claims))  # type: ignore[arg-type]


def test_a_lingering_attempt_leaves_the_claim_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims: dict[bytes, object] = {}
    first, second = bundle_of(claims), bundle_of(claims)
    claimed = []

    def execute(bundle: Any, item: Item) -> None:
        claimed.append(claims[PARENT])
        if bundle is first:
            assert second._claim(PARENT) is second

    monkeypatch.setattr(Bundle, "_execute", execute)
    first.run()
    assert claims == {PARENT: second}
    second.run()
    assert claimed == [first, second]
    assert claims == {}


def test_what_was_called_off_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    claims: dict[bytes, object] = {PARENT: RECALLED}
    monkeypatch.delattr(Bundle, "_execute")
    bundle_of(claims).run()
    assert claims == {}
