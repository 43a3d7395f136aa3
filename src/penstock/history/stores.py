"""Open the history that a URL names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from penstock.errors import HistoryError
from penstock.history.base import HistoryReader, HistoryStore

if TYPE_CHECKING:
    from penstock.history.cache_store import CacheStore

# Loaded on first use: `import penstock` must not load a database driver.
_STORES = {"sqlite": ("penstock.history.sqlite", "SQLiteStore")}
_READERS = {"sqlite": ("penstock.history.reading", "SQLiteReader")}
_CACHES = {"sqlite": ("penstock.history.cached_values", "SQLiteCacheStore")}
_PLANNED = ("postgresql", "postgres")


def open_store(url: str, power_safe: bool = False) -> HistoryStore:
    """Open a history for writing; one that does not exist is made.

    Args:
        url: `sqlite:///PATH`, or a plain path.
        power_safe: survive also a power cut.

    Raises:
        HistoryError: the URL or what it names cannot be used; the text says why.
    """
    return cast(HistoryStore, _adapter(_STORES, url)(url, power_safe))


def open_reader(url: str) -> HistoryReader:
    """Open a history for reading only.

    Raises:
        HistoryUnavailable: there is none yet, or it cannot be opened.
        HistoryError: the URL or what it names cannot be used; the text says why.
    """
    return cast(HistoryReader, _adapter(_READERS, url)(url))


def open_cache(url: str) -> CacheStore:
    """Open what finds and claims the values of cache keys in a history that exists.

    Raises:
        HistoryError: the URL or what it names cannot be used; the text says why.
    """
    return cast("CacheStore", _adapter(_CACHES, url)(url))


def _adapter(table: dict[str, tuple[str, str]], url: str) -> Any:
    scheme = url.partition("://")[0] if "://" in url else "sqlite"
    entry = table.get(scheme)
    if entry is None:
        why = "is not supported yet" if scheme in _PLANNED else "is no kind of history"
        raise HistoryError(
            f"{scheme!r} {why}. Set PENSTOCK_DATABASE_URL to sqlite:///PATH."  # no URL: passwords
        )
    module, name = entry
    return getattr(importlib.import_module(module), name)
