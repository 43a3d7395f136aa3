"""`penstock gc`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from penstock.cli.exits import CommandError, Exit, Problem
from penstock.cli.session import READ_OPTIONS, Session, with_session
from penstock.cli.text import clean
from penstock.errors import (
    HistoryError,
    MissingDependencyError,
    ResultCorrupt,
    ResultStorageError,
)
from penstock.failpoints import FAILPOINTS, hit
from penstock.history.base import HistoryReader
from penstock.history.kept_results import flow_runs_and_life, stored_results
from penstock.results.base import ResultStorage, Stored
from penstock.results.references import Reference, reference_of
from penstock.results.storage import checked_location, open_storage
from penstock.results.sweeping import Known, leftovers
from penstock.settings import load_settings

_PROBLEMS = (ResultStorageError, MissingDependencyError, OSError)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@click.option(
    "--unknown",
    is_flag=True,
    help="Also results, older than an hour, of flow runs that this history does not know.",
)
@with_session(READ_OPTIONS)
def gc(session: Session, dry_run: bool, unknown: bool) -> None:
    """Remove stored results that nothing in the history refers to.

    Looks at the default storage and at those that the history names. Results of flow runs that
    may still be recording stay, and so does everything that is not a result.
    """
    reader = session.reader()
    removed, problems = [], []
    # First what lies there, then what is known of it: what is stored meanwhile is in no list.
    listed = []
    for location in _locations(reader):
        try:
            storage = open_storage(location)
            listed.append((storage, list(storage.objects())))
        except _PROBLEMS as exc:
            problems.append({"storage": location, "reason": str(exc)})
    flow_runs = flow_runs_and_life(reader)
    names = _names(reader)
    if FAILPOINTS:
        hit("gc.mark")
    for storage, objects in listed:
        known = Known(names.get(storage.location, set()), flow_runs, unknown, time.time())
        try:
            for stored in _removed(storage, objects, known, dry_run):
                removed.append(_told(storage, stored))
        except _PROBLEMS as exc:
            problems.append({"storage": storage.location, "reason": str(exc)})
    _tell(session, removed, problems, dry_run)
    if problems:
        text = "; ".join(problem["reason"] for problem in problems)
        raise CommandError(Problem(Exit.UNAVAILABLE, "result_storage", text))


def _locations(reader: HistoryReader) -> list[str]:
    default = checked_location(load_settings().result_storage, "PENSTOCK_RESULT_STORAGE")
    named = [reference.storage for reference in _references(reader)]
    return [location for location in dict.fromkeys([default, *named]) if location]


def _references(reader: HistoryReader) -> Iterator[Reference]:
    for data in stored_results(reader):
        try:
            yield reference_of(data)
        except ResultCorrupt as exc:
            # What such a row meant to keep cannot be told: nothing may go.
            raise HistoryError(f"{exc} Nothing was removed.") from exc


def _names(reader: HistoryReader) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for reference in _references(reader):
        names.setdefault(reference.storage, set()).add(reference.name)
    return names


def _removed(
    storage: ResultStorage, objects: list[Stored], known: Known, dry_run: bool
) -> Iterator[Stored]:
    for stored in leftovers(storage, objects, known):
        if not dry_run:
            storage.delete(stored.name)
            if FAILPOINTS:
                hit("gc.delete")
        yield stored


def _told(storage: ResultStorage, stored: Stored) -> dict[str, Any]:
    return {"storage": storage.location, "name": stored.name, "size": stored.size}


def _tell(
    session: Session, removed: list[dict[str, Any]], problems: list[dict[str, str]], dry_run: bool
) -> None:
    total = sum(each["size"] for each in removed)
    if session.for_machines:
        if not problems:
            session.emit(removed=removed, bytes=total, dry_run=dry_run)
        return
    for each in removed:
        session.out.line(session.out.encodable(clean(f"{each['storage']}/{each['name']}")))
    done = "would be removed" if dry_run else "removed"
    noun = "result" if len(removed) == 1 else "results"
    session.talk(f"{len(removed):,} stored {noun} {done}, {total:,} bytes.")
