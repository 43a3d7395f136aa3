"""SQLite's errors, told in Penstock's words."""

from __future__ import annotations

import os
import sqlite3

from penstock.errors import HistoryCorrupt, HistoryError, HistoryUnavailable

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_REFUSED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
_FULL = sqlite3.SQLITE_FULL
_TROUBLE = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL}


# In a damaged database even the name that an error quotes may be no text.
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
Problem = sqlite3.Error | UnicodeDecodeError


def _code(problem: Problem) -> int:
    """Give the primary result code; the upper bits only say more about it."""
    if isinstance(problem, UnicodeDecodeError):
        return sqlite3.SQLITE_CORRUPT
    return (getattr(problem, "sqlite_errorcode", None) or 0) & 0xFF


def is_busy(problem: Problem) -> bool:
    """Tell whether waiting may help."""
    return _code(problem) in _BUSY


def is_refused(problem: Problem) -> bool:
    """Tell whether the file could not be opened or written."""
    return _code(problem) in _REFUSED


def told(problem: Problem, path: str) -> HistoryError:
    """Make the error that a user sees for one of SQLite's."""
    code = _code(problem)
    if code in _DAMAGED:
        return damaged(path, str(problem))
    if code == _FULL:
        return HistoryUnavailable(
            f"The disk of {path} is full. Free some space; what was recorded before is safe."
        )
    if code in _REFUSED:
        return refused(path, str(problem))
    if code in _TROUBLE or code in _BUSY:
        return HistoryUnavailable(f"The history {path} cannot be used now: {problem}.")
    return HistoryError(f"The history {path} did not take this: {problem}.")


def damaged(path: str, why: str) -> HistoryCorrupt:
    """Make the error for a file that is damaged or something else."""
    return HistoryCorrupt(
        f"{path} is damaged or is not a Penstock history: {why}.\n"
        "  It was not changed. Move it away, or name another file in PENSTOCK_DATABASE_URL."
    )


def refused(path: str, why: str) -> HistoryUnavailable:
    """Make the error for a place where no history can be written or read."""
    folder = os.path.dirname(path)
    return HistoryUnavailable(
        f"The history {path} cannot be opened: {why}.\n"
        f"  Make {folder} a folder you can write to, or name another file in "
        "PENSTOCK_DATABASE_URL."
    )
