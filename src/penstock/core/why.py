"""Why a task run ran, or did not: told from what is recorded of it and of those like it.

not ready ─ cached ─ kept by a resume ─ run again after … ─ its cache key ─ the first of its kind
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstock.core.caching import EXPIRED, HIT, MISS, REFRESHED, UNKEYED

NOT_READY, CACHED, KEPT, CHANGED, NOT_KEPT = "not-ready", "cached", "kept", "changed", "not-kept"
FAILED_BEFORE, LOST_BEFORE, UNKNOWN, RETRIED = "failed-before", "lost-before", "unknown", "retried"
WAITING, CANCELLED, FIRST = "waiting", "cancelled", "first"


class Seen(NamedTuple):
    """What is recorded of a task run that stands for the same work, or is an upstream.

    Attributes:
        epoch: under which driver of its flow run it was written, from 0.
        is_kept: its result can be taken from the history.
    """

    name: str
    state: str
    epoch: int = 0
    is_kept: bool = False


@dataclass(frozen=True)
class Facts:
    """What is recorded of a task run.

    Attributes:
        state, state_name: its state.
        started: its function was called.
        epoch, last_epoch: under which driver it was written, and the flow run's present one.
        has_identity: its inputs could be told from others.
        is_kept: its result can be taken from the history.
        cache, cache_key: what caching did.
        made_by, made_at: what is known of the run whose value it took.
        earlier: earlier runs of the same work in the same flow run, oldest first.
        unfinished: upstreams that did not complete.
    """

    state: str
    state_name: str
    started: bool = True
    epoch: int = 0
    last_epoch: int = 0
    has_identity: bool = True
    is_kept: bool = True
    cache: str | None = None
    cache_key: str | None = None
    made_by: str | None = None
    made_at: str | None = None
    earlier: Sequence[Seen] = ()
    unfinished: Sequence[Seen] = ()


@dataclass(frozen=True)
class Why:
    """The answer.

    Attributes:
        ran: its function was called.
        reason: a word for programs.
        text: a sentence for people.
        more: what else is worth knowing.
    """

    ran: bool
    reason: str
    text: str
    more: tuple[str, ...] = field(default=())


def why(facts: Facts) -> Why:
    """Say why a task run ran or did not.

    Example:
        >>> why(Facts("COMPLETED", "Completed")).text
        'It ran: it is the first run of this task with these inputs in this flow run.'
    """
    if not facts.started:
        return _did_not_run(facts)
    more = _notes(facts)
    if facts.last_epoch > facts.epoch and facts.state == "COMPLETED" and facts.is_kept:
        text = (
            "It did not run again when the flow run was resumed: it had completed before, and "
            "its result was kept."
        )
        ran_for = _ran(facts)
        return Why(True, KEPT, text, (f"Before that: {ran_for.text}", *more))
    told = _ran(facts)
    return Why(True, told.reason, told.text, more)


def _did_not_run(facts: Facts) -> Why:
    if facts.state_name == "NotReady" or (facts.unfinished and facts.state == "PENDING"):
        named = ", ".join(f"{each.name} ({each.state.lower()})" for each in facts.unfinished)
        text = f"It did not run: it depends on what did not complete: {named or 'see its message'}."
        return Why(False, NOT_READY, text)
    if facts.cache == HIT:
        made = facts.made_by or "a run that is not in this history any more"
        at = f", made {facts.made_at}" if facts.made_at else ""
        text = f"It did not run: it has the value of {made}{at}, whose cache key is the same."
        return Why(False, CACHED, text, _notes(facts))
    if facts.state == "CANCELLED":
        return Why(False, CANCELLED, "It did not run: it was cancelled before.")
    if facts.state == "PENDING":
        return Why(False, WAITING, "It has not run yet: it waits for its turn.")
    return Why(False, facts.state.lower(), f"It did not run: it is {facts.state_name}.")


def _ran(facts: Facts) -> Why:
    if facts.cache in _KEYED:
        return Why(True, facts.cache or "", f"It ran: {_KEYED[facts.cache or '']}")
    if facts.earlier:
        return _again(facts, facts.earlier[-1])
    if facts.epoch and not facts.has_identity:
        text = (
            "It ran when the flow run was resumed: its inputs cannot be told from others, so it is "
            "not known whether it had completed before."
        )
        return Why(True, UNKNOWN, text)
    return Why(
        True, FIRST, "It ran: it is the first run of this task with these inputs in this flow run."
    )


_KEYED: dict[str, str] = {
    MISS: "no usable value was there for its cache key.",
    EXPIRED: "the value for its cache key had expired.",
    REFRESHED: "it was to refresh the value of its cache key.",
}


def _again(facts: Facts, before: Seen) -> Why:
    """Say why work ran although a run of the same work is recorded."""
    again = f"It ran again: {before.name}, the same work, "
    if before.epoch == facts.epoch:
        return Why(True, RETRIED, f"{again}was part of an earlier attempt of the flow.")
    if before.state in ("FAILED", "CANCELLED"):
        return Why(True, FAILED_BEFORE, f"{again}had {_ENDED[before.state]}.")
    if before.state != "COMPLETED":
        return Why(True, LOST_BEFORE, f"{again}was lost with what ran it.")
    if not before.is_kept:
        text = f"{again}had completed, but its result was not kept; see persist_result."
        return Why(True, NOT_KEPT, text)
    text = (
        f"{again}had completed, but its code has changed (--rerun-changed), or its stored result "
        "was missing or damaged."
    )
    return Why(True, CHANGED, text)


_ENDED = {"FAILED": "failed", "CANCELLED": "been cancelled"}


def _notes(facts: Facts) -> tuple[str, ...]:
    notes = []
    if facts.cache_key is not None:
        notes.append(f"Its cache key: {facts.cache_key}")
    if facts.cache == UNKEYED:
        notes.append("Its cache_key_fn gave no key, so it has no part in caching.")
    if not facts.has_identity:
        notes.append("Its inputs cannot be told from others: a resume runs it again.")
    if facts.state == "COMPLETED" and not facts.is_kept:
        notes.append("Its result was not kept: a resume runs it again.")
    return tuple(notes)


def facts_of(
    run: dict[str, Any],
    last_epoch: int,
    epoch_bits: int,
    *,
    earlier: Sequence[dict[str, Any]] = (),
    upstreams: Sequence[dict[str, Any]] = (),
    maker: dict[str, Any] | None = None,
) -> Facts:
    """Gather facts from rows in the shape of `--json`.

    Args:
        run: the task run.
        last_epoch: the present epoch of its flow run.
        epoch_bits: above how many bits of `seq` the epoch stands.
        earlier: task runs of its flow run with its identity that were made before it.
        upstreams: its upstreams.
        maker: the run that made the value it took.
    """

    def seen(row: dict[str, Any]) -> Seen:
        is_kept = row["result_codec"] is not None
        return Seen(row["name"], row["state"]["type"], row["seq"] >> epoch_bits, is_kept)

    return Facts(
        run["state"]["type"],
        run["state"]["name"],
        started=run["started_at"] is not None,
        epoch=run["seq"] >> epoch_bits,
        last_epoch=last_epoch,
        has_identity=run["identity"] is not None or run["flow_run_id"] is None,
        is_kept=run["result_codec"] is not None,
        cache=run.get("cache"),
        cache_key=run.get("cache_key"),
        made_by=None if maker is None else f"{maker['name']} ({maker['id']})",
        made_at=None if maker is None else maker["ended_at"],
        earlier=[seen(row) for row in earlier],
        unfinished=[seen(row) for row in upstreams if row["state"]["type"] != "COMPLETED"],
    )
