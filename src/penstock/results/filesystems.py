"""Results in whatever fsspec reaches: S3 and other object stores, other machines, memory.

An object is put once, under its name: object stores show a new object as a whole or not at all,
and the digest in the history tells if one does not. What passes, such as "slow down", a lost
connection or a time limit, is tried again for a while; what does not pass fails at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from penstock.core.previews import mask_secrets
from penstock.errors import MissingDependencyError, ResultMissing, ResultStorageError
from penstock.results.base import Content, ResultStorage, Stored, checked_object_name
from penstock.states import describe_exception

T = TypeVar("T")
FIRST_DELAY = 0.2
"""Seconds before something is tried again the first time; doubled each time, with jitter."""
LONGEST_DELAY = 20.0
PATIENCE = 300.0
"""Seconds after which nothing is tried again."""

_EXTRAS = {"s3": "s3", "s3a": "s3"}
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "sftp": "paramiko"}
_ONLY_HERE = frozenset({"memory"})
_LASTING = (
    PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError,
    ImportError, TypeError, ValueError, NotImplementedError, AttributeError, LookupError,
)  # fmt: skip
_LASTING_NAMES = frozenset(
    {
        "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
        "NoAuthTokenError", "TokenRetrievalError", "UnauthorizedSSOTokenError",
        "SSOTokenLoadError", "ParamValidationError", "NoSuchBucket", "InvalidRegionError",
    }
)  # fmt: skip
_WITH_FOLDERS = frozenset({"memory", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs"})
_WHOLE_OR_NOT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"})
"""Where a file is there once it is closed, and not before."""
_AS_GIVEN = 64 * 2**20


class FsspecStorage(ResultStorage):
    """A place that fsspec reaches, by its URL.

    What it takes to get in, such as keys, comes from where the library of that kind of storage
    looks for it (environment variables, configuration files), never from the URL.

    Args:
        location: the URL, without a slash at its end.

    Raises:
        MissingDependencyError: fsspec or what it needs for this kind of URL is not installed.
        ResultStorageError: there is no such kind of URL.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._scheme = location.partition("://")[0]
        self.is_shared = self._scheme not in _ONLY_HERE
        self._files, self._root = _filesystem(location, self._scheme)

    def write(self, name: str, content: Content) -> None:
        path = self._path(checked_object_name(name))
        head = content.head()
        try:
            self._tried("stored", name, lambda: self._put(path, head, content))
        except _PartRemains as exc:
            with suppress(Exception):
                self._files.rm_file(path)
            raise exc.problem from exc.problem.__cause__

    def _put(self, path: str, head: bytes, content: Content) -> None:
        if self._scheme in _WITH_FOLDERS:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        file = self._files.open(path, "wb")
        try:
            file.write(head)
            for piece in content.body:
                for at in range(0, len(piece), _AS_GIVEN):
                    file.write(piece[at : at + _AS_GIVEN])
        except BaseException:
            _give_up(file)
            if self._scheme not in _WHOLE_OR_NOT:
                with suppress(Exception):
                    self._files.rm_file(path)
            raise
        file.close()
        try:
            found = self._files.info(path)["size"]
        except FileNotFoundError as exc:
            raise OSError("it is not there after it was put") from exc
        if found != content.size:
            raise Incomplete(f"{found} bytes of {content.size} have arrived")

    def read(self, name: str, limit: int | None = None) -> bytearray:
        path = self._path(checked_object_name(name))

        def get() -> bytearray:
            with self._files.open(path, "rb", **_READING) as file:
                data = file.read() if limit is None else file.read(limit)
            return bytearray(data)

        return self._tried("read", name, get)

    def size(self, name: str) -> int:
        path = self._path(checked_object_name(name))
        self._files.invalidate_cache()
        return int(self._tried("read", name, lambda: self._files.info(path)["size"]))

    def delete(self, name: str) -> None:
        path = self._path(name)

        def remove() -> None:
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                pass

        self._tried("removed", name, remove)

    def objects(self) -> Iterator[Stored]:
        def listed() -> dict[str, Any]:
            self._files.invalidate_cache()
            try:
                found: dict[str, Any] = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
            return found

        beginning = self._root.strip("/") + "/"
        for path, about in self._tried("listed", "", listed).items():
            name = path.strip("/").removeprefix(beginning)
            changed = about.get("LastModified") or about.get("created") or about.get("mtime")
            yield Stored(name, int(about.get("size") or 0), _seconds(changed))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _tried(self, done: str, name: str, action: Callable[[], T]) -> T:
        """Do something, again and again while it fails for a reason that may pass."""
        delay, attempts = FIRST_DELAY, 0
        deadline = time.monotonic() + PATIENCE
        while True:
            attempts += 1
            try:
                return action()
            except Exception as exc:
                pause = random.uniform(delay / 2, delay)
                if _is_lasting(exc) or time.monotonic() + pause > deadline:
                    problem = self._problem(done, name, exc, attempts)
                    problem.__cause__ = _without_secrets(exc)
                    if isinstance(exc, Incomplete):
                        raise _PartRemains(problem) from exc
                    raise problem from problem.__cause__
            time.sleep(pause)
            delay = min(2 * delay, LONGEST_DELAY)

    def _problem(self, done: str, name: str, exc: Exception, attempts: int) -> ResultStorageError:
        what = f"The result {self.location}/{name}" if name else f"The results in {self.location}"
        if isinstance(exc, FileNotFoundError) and done == "read":
            return ResultMissing(f"{what} is not there any more.")
        text = mask_secrets(describe_exception(exc))[:500].rstrip(".")
        tries = "" if attempts == 1 else f" after {attempts} attempts"
        return ResultStorageError(f"{what} cannot be {done}{tries}: {text}. {_advice(exc)}")


class Incomplete(OSError):
    """What lies there is not all that was put."""


class _PartRemains(Exception):
    """An object has not arrived as a whole, time and again, and must not stay."""

    def __init__(self, problem: ResultStorageError) -> None:
        self.problem = problem


def _give_up(file: Any) -> None:
    """Leave a file that could not be written: closing it would put what there is of it."""
    with suppress(Exception):
        file.discard()
    with suppress(Exception):
        file.closed = True


_READING = {"cache_type": "none"}


def _without_secrets(exc: Exception) -> BaseException | None:
    """Give the cause to chain: none where its text would tell what has to stay secret."""
    text = describe_exception(exc)
    return exc if mask_secrets(text) == text else None


def _filesystem(location: str, scheme: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as exc:
        raise MissingDependencyError(_missing(location, "fsspec", scheme), name="fsspec") from exc
    try:
        files, root = fsspec.core.url_to_fs(location, **_settings(scheme))
    except ImportError as exc:
        package = _PACKAGES.get(scheme, exc.name or "its package")
        raise MissingDependencyError(_missing(location, package, scheme), name=exc.name) from exc
    except Exception as exc:
        text = mask_secrets(describe_exception(exc))
        raise ResultStorageError(
            f"The result storage {location!r} cannot be used: {text}"
        ) from _without_secrets(exc)
    return files, root.rstrip("/")


def _settings(scheme: str) -> dict[str, Any]:
    # What another process has just put there is not to be missed.
    return {"use_listings_cache": False} if scheme in ("s3", "s3a", "gs", "gcs") else {}


def _missing(location: str, package: str, scheme: str) -> str:
    extra = _EXTRAS.get(scheme)
    what = f'"penstock[{extra}]"' if extra else " ".join(dict.fromkeys(["fsspec", package]))
    needed = "s3fs" if extra else package
    return (
        f"The result storage {location!r} requires `{needed}`; install it with: pip install {what}"
    )


def _is_lasting(exc: Exception) -> bool:
    names = {kind.__name__ for kind in type(exc).__mro__}
    return isinstance(exc, _LASTING) or not names.isdisjoint(_LASTING_NAMES)


def _advice(exc: Exception) -> str:
    if isinstance(exc, PermissionError) or "Credentials" in type(exc).__name__:
        return (
            "Check the credentials, whether they have expired, whether they allow it, and the "
            "clock of this machine."
        )
    if isinstance(exc, FileNotFoundError):
        return "Check that the bucket or folder exists."
    return "Check that the storage can be reached from this machine."


def _seconds(changed: Any) -> float | None:
    if hasattr(changed, "timestamp"):
        return float(changed.timestamp())
    return float(changed) if isinstance(changed, int | float) else None
