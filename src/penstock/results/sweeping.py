"""Decide which stored objects nothing refers to any more. Looks, and removes nothing.

named in the history                               stays, whatever else
<flow run>/…     its flow run is live              stays: it may be recorded in a moment
                 its flow run is unknown here      stays, unless that is asked for
                 else                              goes
tasks/…, what users have named, temporary files    goes when it is older than an hour
no container of ours                               stays: it is none of ours
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping

from penstock.errors import ResultStorageError
from penstock.results.base import ALONE, ResultStorage, Stored
from penstock.results.container import MOST_HEAD_BYTES, open_head

OLD_SECONDS = 3600.0
"""The age from which on, in seconds, an object is not one that is just being recorded."""

_OF_FLOW_RUN = re.compile(r"([0-9a-f]{32})/(?:[0-9a-f]{32}|flow)-[0-9]{1,9}")
_OF_LONE_RUN = re.compile(rf"{ALONE}/[0-9a-f]{{32}}-[0-9]{{1,9}}")
_IN_FLOW_RUN = re.compile(r"([0-9a-f]{32})/[^/]+")


class Known:
    """What the history knows, read after the objects were listed.

    Args:
        referred: the names of the objects of one storage that the history refers to.
        flow_runs: whether a flow run may still be recording, by the 32 digits of its id.
        unknown: objects of flow runs that this history does not know may go, too.
        now: seconds since 1970.
    """

    def __init__(
        self, referred: Container[str], flow_runs: Mapping[str, bool], unknown: bool, now: float
    ) -> None:
        self.referred = referred
        self.flow_runs = flow_runs
        self.unknown = unknown
        self.now = now

    def is_old(self, stored: Stored) -> bool:
        """Tell whether it has been lying there for long."""
        return stored.changed_at is not None and self.now - stored.changed_at > OLD_SECONDS

    def is_done_with(self, flow_run: str, stored: Stored) -> bool:
        """Tell whether nothing of a flow run will refer to an object that is not referred to."""
        is_live = self.flow_runs.get(flow_run)
        if is_live is None:
            # Another history may know it, or its first rows are on their way.
            return self.unknown and self.is_old(stored)
        return not is_live


def leftovers(storage: ResultStorage, objects: Iterable[Stored], known: Known) -> Iterator[Stored]:
    """Give the objects that may be removed.

    Args:
        storage: where they lie; asked for the heads of those whose names say nothing.
        objects: all that lies there, listed before `known` was read.
    """
    for stored in objects:
        if stored.name not in known.referred and _may_go(storage, stored, known):
            yield stored


def _may_go(storage: ResultStorage, stored: Stored, known: Known) -> bool:
    if stored.is_temporary:
        of = _IN_FLOW_RUN.fullmatch(stored.name)
        is_known = of is not None and of[1] in known.flow_runs
        return known.is_done_with(of[1], stored) if of and is_known else known.is_old(stored)
    of = _OF_FLOW_RUN.fullmatch(stored.name)
    if of is not None:
        return known.is_done_with(of[1], stored)
    if not known.is_old(stored):
        return False
    return _OF_LONE_RUN.fullmatch(stored.name) is not None or _is_ours(storage, stored, known)


def _is_ours(storage: ResultStorage, stored: Stored, known: Known) -> bool:
    """Tell whether an object with a name of the user's was stored by a run that is done."""
    try:
        opened = open_head(storage.read(stored.name, MOST_HEAD_BYTES))
    except (ResultStorageError, ValueError):
        return False  # it cannot be read, or has a name that we would never give
    if opened is None:
        return False
    flow_run = opened.header.get("flow_run_id")
    return flow_run is None or (isinstance(flow_run, str) and known.is_done_with(flow_run, stored))
