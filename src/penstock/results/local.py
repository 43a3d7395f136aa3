"""Results in a folder of this machine, or one that several machines share.

    <folder>/<id of the flow run>/<id of the task run>-<attempt>
    <folder>/<id of the flow run>/.<…>.part          while it is being written, then renamed

Folders below the storage's own are opened one by one, and never through a symbolic link, so
nothing is written outside it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from penstock.errors import ResultMissing, ResultStorageError
from penstock.failpoints import FAILPOINTS, hit
from penstock.results.base import Buffer, Content, ResultStorage, Stored, checked_object_name

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_INSIDE = _FOLDER | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_TEMPORARY = re.compile(r"\.[A-Za-z0-9._-]+\.[0-9a-f]{16}\.part")
_LONGEST_STEM = 100
_MOST_AT_ONCE = 2**30  # what the system writes in one call
_MOST_PIECES = 512
_TRIES = 3
_ADVICE = {
    errno.ENOSPC: "The disk is full: make room, or store results elsewhere.",
    errno.EDQUOT: "The quota is used up: make room, or store results elsewhere.",
    errno.EFBIG: "The file would be larger than this process or file system allows.",
    errno.EROFS: "The disk is read-only: choose another folder.",
    errno.EACCES: "This user may not write there: choose another folder.",
    errno.EPERM: "This user may not write there: choose another folder.",
    errno.ELOOP: "Symbolic links are not followed below a result storage.",
    errno.ENOTDIR: "A part of the path is a file or a symbolic link, not a folder.",
}


class LocalStorage(ResultStorage):
    """A folder.

    Args:
        folder: its absolute path; made when the first object is stored.
        power_safe: what was stored survives a power cut, too. A kill it survives anyway.
    """

    is_local = True

    def __init__(self, folder: str, power_safe: bool = False) -> None:
        self.location = folder
        self._power_safe = power_safe

    def write(self, name: str, content: Content) -> None:
        *folders, last = checked_object_name(name).split("/")
        try:
            for attempt in range(_TRIES):
                try:
                    self._write(folders, last, content)
                except FileNotFoundError:
                    # Whoever cleans up may remove a folder while it is still empty.
                    if attempt == _TRIES - 1:
                        raise
                else:
                    return
        except OSError as exc:
            raise self._problem("stored", name, exc) from exc

    def _write(self, folders: list[str], last: str, content: Content) -> None:
        folder = self._made(folders)
        try:
            temporary = f".{last[:_LONGEST_STEM]}.{os.urandom(8).hex()}.part"
            try:
                self._fill(os.open(temporary, _NEW, 0o600, dir_fd=folder), content)
                if FAILPOINTS:
                    hit("result.temp_written")
                os.rename(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
                if FAILPOINTS:
                    hit("result.renamed")
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            if self._power_safe:
                os.fsync(folder)
        finally:
            os.close(folder)

    def _fill(self, handle: int, content: Content) -> None:
        try:
            if content.body:
                os.lseek(handle, content.head_size, os.SEEK_SET)
                _write_all(handle, content.body)
            # Last, for the digest is taken while the body is written.
            os.lseek(handle, 0, os.SEEK_SET)
            _write_all(handle, [content.head()])
            if self._power_safe:
                os.fsync(handle)
                if FAILPOINTS:
                    hit("result.fsynced")
        finally:
            os.close(handle)

    def _made(self, folders: list[str]) -> int:
        """Open the folder of an object, making what is missing of the path to it."""
        try:
            handle = os.open(self.location, _FOLDER)
        except FileNotFoundError:
            os.makedirs(self.location, 0o700, exist_ok=True)
            handle = os.open(self.location, _FOLDER)
        for folder in folders:
            above = handle
            try:
                try:
                    handle = os.open(folder, _INSIDE, dir_fd=above)
                except FileNotFoundError:
                    with suppress(FileExistsError):
                        os.mkdir(folder, 0o700, dir_fd=above)
                    if self._power_safe:
                        os.fsync(above)
                    handle = os.open(folder, _INSIDE, dir_fd=above)
            finally:
                os.close(above)
        return handle

    def _opened(self, name: str) -> int:
        """Open an object for reading, following no link below the storage's own folder."""
        *folders, last = checked_object_name(name).split("/")
        handle = os.open(self.location, _FOLDER)
        for folder in (*folders, last):
            above = handle
            try:
                handle = os.open(folder, _READ if folder is last else _INSIDE, dir_fd=above)
            finally:
                os.close(above)
        return handle

    def read(self, name: str, limit: int | None = None) -> bytearray:
        try:
            handle = self._opened(name)
            with open(handle, "rb", buffering=0) as file:
                size = self._size_of(handle, name)
                data = bytearray(size if limit is None else min(size, limit))
                view, at = memoryview(data), 0
                while at < len(data) and (count := file.readinto(view[at:])):
                    at += count
                view.release()
                del data[at:]
                return data
        except OSError as exc:
            raise self._problem("read", name, exc) from exc

    def size(self, name: str) -> int:
        try:
            handle = self._opened(name)
            try:
                return self._size_of(handle, name)
            finally:
                os.close(handle)
        except OSError as exc:
            raise self._problem("read", name, exc) from exc

    def _size_of(self, handle: int, name: str) -> int:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ResultStorageError(f"{self._place(name)} is no file.")
        return found.st_size

    def delete(self, name: str) -> None:
        *folders, last = name.split("/")
        try:
            handle = os.open(self.location, _FOLDER)
            for folder in folders:
                above = handle
                try:
                    handle = os.open(folder, _INSIDE, dir_fd=above)
                finally:
                    os.close(above)
            try:
                os.unlink(last, dir_fd=handle)
            finally:
                os.close(handle)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise self._problem("removed", name, exc) from exc
        if folders:
            # Only an empty one can be removed.
            with suppress(OSError):
                os.rmdir(os.path.join(self.location, *folders))

    def objects(self) -> Iterator[Stored]:
        try:
            yield from self._objects_in(self.location, "")
        except OSError as exc:
            raise self._problem("listed", "", exc) from exc

    def _objects_in(self, folder: str, prefix: str) -> Iterator[Stored]:
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        for entry in entries:
            name = prefix + entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._objects_in(entry.path, f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    is_temporary = _TEMPORARY.fullmatch(entry.name) is not None
                    yield Stored(name, found.st_size, found.st_mtime, is_temporary)
            except FileNotFoundError:
                continue  # it was removed or renamed meanwhile

    def _place(self, name: str) -> str:
        return os.path.join(self.location, name)

    def _problem(self, done: str, name: str, exc: OSError) -> ResultStorageError:
        if isinstance(exc, FileNotFoundError) and done == "read":
            return ResultMissing(f"The result {self._place(name)} is not there any more.")
        what = f"The results in {self.location}" if not name else f"The result {self._place(name)}"
        advice = _ADVICE.get(exc.errno or 0, "")
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        return ResultStorageError(f"{what} cannot be {done}: {reason}. {advice}".rstrip())


def _write_all(handle: int, pieces: Any) -> None:
    """Write pieces one after another, few calls for many small ones."""
    rest: list[Buffer] = [memoryview(piece) for piece in pieces if len(piece)]
    rest.reverse()
    while rest:
        batch: list[Any] = []
        size = 0
        while rest and len(batch) < _MOST_PIECES and size < _MOST_AT_ONCE:
            piece = memoryview(rest.pop())
            if size + len(piece) > _MOST_AT_ONCE:
                fits = _MOST_AT_ONCE - size
                rest.append(piece[fits:])
                piece = piece[:fits]
            batch.append(piece)
            size += len(piece)
        written = os.writev(handle, batch)
        while batch:
            piece = batch[0]
            if written < len(piece):
                break
            written -= len(piece)
            del batch[0]
        if batch:
            batch[0] = batch[0][written:]
            rest.extend(reversed(batch))
