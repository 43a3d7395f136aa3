"""Where a history lies: URLs and paths of database files."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote_from_bytes

from penstock.errors import HistoryError

_PREFIX = "sqlite://"


def sqlite_path(url: str | os.PathLike[str]) -> str:
    """Give the absolute path that `sqlite:///<path>` or a plain path means.

    All that follows `sqlite:///` is the path as it is: nothing is decoded, so that a folder may
    be called `50% done?`. An absolute path makes four slashes, a leading `~` is the home folder.

    Raises:
        HistoryError: the URL names no file.

    Example:
        >>> sqlite_path("sqlite:////tmp/history.db")
        '/tmp/history.db'
    """
    text = os.fspath(url)
    path = text
    if text.startswith(_PREFIX):
        host, slash, path = text.removeprefix(_PREFIX).partition("/")
        if host or not slash:
            raise HistoryError(f"{text!r} names no file. Write sqlite:///PATH.")
    if path in ("", ":memory:") or "\0" in path:
        raise HistoryError(
            f"{text!r} names no file. Write sqlite:///PATH, or set PENSTOCK_RECORD=off "
            "to keep nothing."
        )
    return str(Path(path).expanduser().absolute())


def sqlite_uri(path: str, options: str) -> str:
    """Give the URI by which SQLite opens a file, whatever characters its name has.

    Example:
        >>> sqlite_uri("/tmp/a b?.db", "mode=ro")
        'file:/tmp/a%20b%3F.db?mode=ro'
    """
    return f"file:{quote_from_bytes(os.fsencode(path))}?{options}"
