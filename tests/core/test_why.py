from __future__ import annotations

from typing import Any

import pytest

from penstock.core.why import Facts, Seen, facts_of, why

FAILED, DONE, LOST = Seen("a-0", "FAILED"), Seen("a-0", "COMPLETED"), Seen("a-0", "RUNNING")


@pytest.mark.parametrize(
    ("facts", "ran", "reason", "part"),
    [
        (Facts("COMPLETED", "Completed"), True, "first", "the first run of this task"),
        (
            Facts("PENDING", "NotReady", started=False, unfinished=[Seen("b-1", "FAILED")]),
            False,
            "not-ready",
            "b-1 (failed)",
        ),
        (
            Facts(
                "COMPLETED", "Cached", started=False, cache="hit", made_by="b-1 (7)", made_at="t"
            ),
            False,
            "cached",
            "the value of b-1 (7), made t",
        ),
        (
            Facts("COMPLETED", "Cached", started=False, cache="hit"),
            False,
            "cached",
            "not in this history any more",
        ),
        (Facts("COMPLETED", "Completed", cache="miss"), True, "miss", "no usable value"),
        (Facts("FAILED", "Failed", cache="expired"), True, "expired", "had expired"),
        (Facts("COMPLETED", "Completed", cache="refreshed"), True, "refreshed", "to refresh"),
        (Facts("COMPLETED", "Completed", cache="unkeyed"), True, "first", "the first run"),
        (Facts("COMPLETED", "Completed", last_epoch=2), True, "kept", "its result was kept"),
        (Facts("COMPLETED", "Completed", last_epoch=2, is_kept=False), True, "first", "the first"),
        (Facts("FAILED", "Failed", last_epoch=2), True, "first", "the first run"),
        (
            Facts("COMPLETED", "Completed", epoch=1, last_epoch=1, earlier=[DONE, FAILED]),
            True,
            "failed-before",
            "a-0, the same work, had failed",
        ),
        (
            Facts("COMPLETED", "Completed", epoch=1, last_epoch=1, earlier=[LOST]),
            True,
            "lost-before",
            "was lost",
        ),
        (
            Facts("COMPLETED", "Completed", epoch=1, last_epoch=1, earlier=[DONE]),
            True,
            "not-kept",
            "its result was not kept",
        ),
        (
            Facts(
                "COMPLETED",
                "Completed",
                epoch=1,
                last_epoch=1,
                earlier=[DONE._replace(is_kept=True)],
            ),
            True,
            "changed",
            "--rerun-changed",
        ),
        (
            Facts("COMPLETED", "Completed", earlier=[FAILED]),
            True,
            "retried",
            "an earlier attempt of the flow",
        ),
        (
            Facts("COMPLETED", "Completed", epoch=1, last_epoch=1, has_identity=False),
            True,
            "unknown",
            "cannot be told from others",
        ),
        (Facts("CANCELLED", "Cancelled", started=False), False, "cancelled", "cancelled before"),
        (Facts("PENDING", "Pending", started=False), False, "waiting", "waits for its turn"),
        (Facts("FAILED", "TimedOut", started=False), False, "failed", "it is TimedOut"),
    ],
)
def test_why(facts: Facts, ran: bool, reason: str, part: str) -> None:
    told = why(facts)

    assert (told.ran, told.reason) == (ran, reason)
    assert part in told.text
    assert told.text.endswith(".")


def test_notes() -> None:
    told = why(Facts("COMPLETED", "Completed", cache="miss", cache_key="k", has_identity=False))

    assert told.more == (
        "Its cache key: k",
        "Its inputs cannot be told from others: a resume runs it again.",
    )


def row(name: str, state: str = "COMPLETED", seq: int = 1, **more: Any) -> dict[str, Any]:
    given = {"id": f"id of {name}", "name": name, "seq": seq, "identity": "00", "ended_at": "then"}
    given |= {"flow_run_id": "run", "started_at": "now", "result_codec": "json"}
    return {**given, "state": {"type": state, "name": state.capitalize()}, **more}


def test_facts_of_rows() -> None:
    facts = facts_of(
        row("a-1", seq=(1 << 40) + 3, cache="hit", cache_key="k"),
        2,
        40,
        earlier=[row("a-0", "FAILED", result_codec=None)],
        upstreams=[row("b-0"), row("b-1", "CRASHED")],
        maker=row("c-0"),
    )

    assert (facts.epoch, facts.last_epoch) == (1, 2)
    assert (facts.made_by, facts.made_at) == ("c-0 (id of c-0)", "then")
    assert facts.earlier == [Seen("a-0", "FAILED", 0, False)]
    assert [each.name for each in facts.unfinished] == ["b-1"]
