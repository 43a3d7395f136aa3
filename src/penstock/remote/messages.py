"""What driver and workers tell each other: tuples of built-in types, pickled.

    driver ──► worker   a `Sent` bundle, through the engine's own way of running things
    worker ──► driver   reports: lists of entries, in the order of what happened
    driver ──► worker   words: answers and cancellations, beside the engine's queue

An entry and a word are tuples whose first element says which kind it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Entries of a report.
(
    STARTED, ENDED, GIVEN_BACK, BUNDLE_ENDED, LINE, REQUEST, STUCK, RAW_ENDED, LEFT, CAME_BACK,
    CODE_MISSING,
) = range(11)  # fmt: skip
# Words to a worker.
CANCEL, RECALL, ANSWER, END = range(4)

# Where the value of a completed task run is.
INLINE, KEPT = range(2)


class Header(NamedTuple):
    """What a worker needs to know of a flow run.

    Attributes:
        reply_to: how the engine finds the driver.
        flow_key: the id of the flow run as 16 bytes.
        log_level, loggers: what is recorded of logging, as in the driver's settings.
        results: which results are kept where: a pickled `ResultPolicy`; None outside flow runs.
        epoch: how many drivers the flow run had before.
        has_kept: task runs may have completed before: the driver is to be asked.
        attempt: of the flow run; tells apart what is left of an earlier one.
    """

    reply_to: Any
    flow_key: bytes
    flow_name: str
    flow_run_name: str
    flow_created_at: int
    flow_preview: str
    tags: frozenset[str]
    log_prints: bool
    log_level: int
    loggers: tuple[str, ...]
    results: bytes | None = None
    epoch: int = 0
    has_kept: bool = False
    attempt: int = 0


class Item(NamedTuple):
    """One attempt of one task run.

    Attributes:
        key: the id of the task run as 16 bytes.
        code: the digest of the task's code.
        attempt: how many attempts came before.
        started_at: when the first attempt began, None before it.
        tags_in_force: tags that runs made inside get as well.
        data: the packed arguments.
        waits_for: keys of task runs of the same bundle that must have completed.
        is_suspect: it may have killed a worker: its start is confirmed before it begins.
        inside: ids of the cached runs that it is inside of.
    """

    key: bytes
    code: str
    attempt: int
    number: int
    custom_name: str | None
    created_at: int
    started_at: int | None
    tags: frozenset[str]
    tags_in_force: frozenset[str]
    log_prints: bool
    data: bytes
    waits_for: tuple[bytes, ...]
    is_suspect: bool
    inside: tuple[bytes, ...] = ()


class Sent(NamedTuple):
    """A bundle on its way.

    Attributes:
        id: the id of the bundle, in hex.
        header: a pickled `Header`.
        code: the code of tasks by digest; None where the workers have it already.
        items: in the order in which they are executed.
        budget: seconds after which the worker gives back what it has not started.
        raw: key and code of a callable that was handed to the runner itself, instead of items.
        given: values of task runs that travelled in the same bundle when an item was first sent,
            as tuples of a `Value`, by key.
    """

    id: str
    header: bytes
    code: dict[str, bytes | None]
    items: list[Item]
    budget: float
    raw: tuple[bytes, bytes] | None = None
    given: dict[bytes, tuple[Any, ...]] | None = None


class Value(NamedTuple):
    """Where the value of a completed task run is.

    Attributes:
        place: INLINE or KEPT.
        data: the encoded value, or the name under which the worker keeps it.
        codec: "json", "pickle", "parcel", "whole" (a parcel with its large buffers), "stored"
            (where it lies in a result storage); of a kept value "own" when it refers to things
            of the engine's own, else None.
        size: its size in bytes, as far as known.
        is_small: small enough for the history.
    """

    place: int
    data: Any
    codec: str | None
    size: int
    is_small: bool
