"""Which stored objects may go, and which never do (J12)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.results.base import Stored
from penstock.results.local import LocalStorage
from penstock.results.sweeping import OLD_SECONDS, Known, leftovers
from tests.results.storages import keep

NOW = 1_800_000_000.0
LIVE, DONE, FOREIGN = "a" * 32, "b" * 32, "c" * 32
TASK = "d" * 32
OLD, NEW = NOW - OLD_SECONDS - 1, NOW - 10


def going(storage: LocalStorage, *objects: Stored, **known: Any) -> list[str]:
    """Give the names of those objects that may go."""
    given: dict[str, Any] = {
        "referred": set(),
        "flow_runs": {LIVE: True, DONE: False},
        "unknown": False,
        "now": NOW,
    }
    found = leftovers(storage, objects, Known(**(given | known)))
    return [each.name for each in found]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "changed_at", "is_temporary", "goes"),
    [
        (f"{DONE}/{TASK}-1", NEW, False, True),
        (f"{DONE}/flow-1", NEW, False, True),
        (f"{LIVE}/{TASK}-1", OLD, False, False),
        (f"{LIVE}/flow-1", OLD, False, False),
        (f"{FOREIGN}/{TASK}-1", OLD, False, False),
        (f"tasks/{TASK}-1", OLD, False, True),
        (f"tasks/{TASK}-1", NEW, False, False),
        (f"tasks/{TASK}-1", None, False, False),
        (f"{DONE}/.{TASK}-1.0123456789abcdef.part", NEW, True, True),
        (f"{LIVE}/.{TASK}-1.0123456789abcdef.part", OLD, True, False),
        ("tasks/.x.0123456789abcdef.part", OLD, True, True),
        ("tasks/.x.0123456789abcdef.part", NEW, True, False),
        ("notes.txt", OLD, False, False),
        (f"{DONE}/notes.txt", OLD, False, False),
        ("not one of our names!", OLD, False, False),
    ],
)
def test_what_nothing_refers_to_goes_where_nobody_may_record_it(
    storage: LocalStorage, name: str, changed_at: float | None, is_temporary: bool, goes: bool
) -> None:
    stored = Stored(name, 1, changed_at, is_temporary)
    assert going(storage, stored) == ([name] if goes else [])
    assert going(storage, stored, referred={name}) == []


def test_flow_runs_of_other_histories_go_when_that_is_asked_for(storage: LocalStorage) -> None:
    old = Stored(f"{FOREIGN}/{TASK}-1", 1, OLD)
    new = Stored(f"{FOREIGN}/{TASK}-2", 1, NEW)
    assert going(storage, old, new, unknown=True) == [old.name]


def test_object_with_a_name_of_the_users_goes_when_its_head_says_whose_it_was(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    keep(storage, [1], name="totals/monday")
    now = time.time() + OLD_SECONDS + 60
    objects = list(storage.objects())
    assert going(storage, *objects, now=now) == ["totals/monday"]
    assert going(storage, *objects, now=time.time()) == []
    assert going(storage, *objects, now=now, referred={"totals/monday"}) == []


segments = st.sampled_from([LIVE, DONE, FOREIGN, "tasks", TASK + "-1", "flow-1", "x", ".x.part"])


@given(
    st.lists(segments, min_size=1, max_size=3).map("/".join),
    st.sampled_from([OLD, NEW, None]),
    st.booleans(),
    st.booleans(),
)
def test_nothing_that_is_referred_to_or_of_a_live_run_ever_goes(
    name: str, changed_at: float | None, is_temporary: bool, unknown: bool
) -> None:
    storage = LocalStorage("/nowhere/at/all")
    stored = Stored(name, 1, changed_at, is_temporary)
    assert going(storage, stored, referred={name}, unknown=unknown) == []
    if name.startswith(f"{LIVE}/"):
        assert going(storage, stored, unknown=unknown) == [] or (
            is_temporary and name.count("/") > 1 and changed_at == OLD
        )
