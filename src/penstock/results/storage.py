"""Result storages by what they are called: a folder, or a URL."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from penstock.errors import InvalidOptionError
from penstock.results.base import ResultStorage
from penstock.results.filesystems import FsspecStorage
from penstock.results.local import LocalStorage

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://(.*)", re.DOTALL)
_LONGEST = 2000
_FILE = "file"
_storages: dict[tuple[str, bool], ResultStorage] = {}
_lock = threading.Lock()


def checked_location(given: Any, option: str = "result_storage") -> str | None:
    """Check the option: a folder, a URL, or None. Nothing is opened, nothing is imported.

    Args:
        option: how it is called, for messages.

    Returns:
        An absolute path, or a URL without a slash at its end.

    Raises:
        InvalidOptionError: it is neither; the text names the option and the value.

    Example:
        >>> checked_location("s3://bucket/results/")
        's3://bucket/results'
    """
    if given is None:
        return None
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise InvalidOptionError(
            f"{option} is {given!r}; it must be a folder, or a URL such as s3://bucket/prefix."
        )
    text = os.fspath(given)
    if not text.strip() or len(text) > _LONGEST or not text.isprintable():
        raise InvalidOptionError(
            f"{option} is {text[:100]!a}; it must be a folder, or a URL such as s3://bucket/prefix."
        )
    url = _URL.fullmatch(text)
    if url is None and "://" in text:
        raise InvalidOptionError(f"{option} is {text!r}, which is neither a folder nor a URL.")
    return _checked_folder(text) if url is None else _checked_url(text, option)


def _checked_folder(text: str) -> str:
    return str(Path(text).expanduser().absolute())


def _checked_url(text: str, option: str) -> str:
    try:
        parts = urlsplit(text)
        has_password = parts.password is not None
    except ValueError as exc:
        raise InvalidOptionError(f"{option} is no URL: {exc}.") from None
    if has_password:
        raise InvalidOptionError(
            f"{option} is a {parts.scheme}:// URL with a password in it. The history keeps the "
            "URL, so put what is secret where the library looks for it, such as environment "
            "variables."
        )
    if parts.scheme == _FILE:
        if parts.netloc:
            raise InvalidOptionError(f"{option} is {text!r}; write file:///PATH, or the path.")
        return _checked_folder(parts.path or "/")
    place = text.partition("://")[2].strip("/")
    if "?" in text or "#" in text or ".." in place.split("/"):
        raise InvalidOptionError(
            f"{option} is {text!r}; a URL with '?', '#' or '..' in it cannot be used."
        )
    if not place:
        raise InvalidOptionError(
            f"{option} is {text!r}, which names no bucket or folder; write it as "
            f"{parts.scheme}://bucket/prefix."
        )
    return text.rstrip("/")


def open_storage(location: str, power_safe: bool = False) -> ResultStorage:
    """Give the storage of that name; the same one each time in a process.

    Args:
        location: as `checked_location` gives it.
        power_safe: what is stored in a local folder survives a power cut.

    Raises:
        MissingDependencyError: a package that it takes is not installed.
        ResultStorageError: it cannot be used.
    """
    key = location, power_safe
    storage = _storages.get(key)
    if storage is None:
        with _lock:
            storage = _storages.get(key)
            if storage is None:
                is_url = _URL.fullmatch(location) is not None
                storage = FsspecStorage(location) if is_url else LocalStorage(location, power_safe)
                _storages[key] = storage
    return storage


def _after_fork() -> None:
    # What is connected belongs to the parent.
    global _lock
    _lock = threading.Lock()
    _storages.clear()


os.register_at_fork(after_in_child=_after_fork)
