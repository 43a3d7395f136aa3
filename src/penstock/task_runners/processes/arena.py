"""The arena: memory where large values and arguments lie, for all processes of a pool to use.

    worker ──write──► one file a value ◄──map── workers, driver        nothing goes through a pipe

A file is the pickle of a value followed by its buffers. Whoever reads maps the file, and arrays
use that memory in place. The files lie in `/dev/shm`, and where that is full, in the folder for
temporary files. A folder is locked while its owner lives: one that nobody locks was left behind by
a process that was killed, and the next owner removes it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from time import time
from typing import Any
from weakref import finalize

from penstock.core.pickling import dump_into

_PREFIX = f"penstock-{os.getuid()}-"
_LOCK = "lock"
_MEMORY = Path("/dev/shm")
_HEAD = Struct("<QQ")  # bytes of the pickle, and of the list of buffer sizes
_ALIGNMENT = 64
_NEW_SECONDS = 10.0


class Arena:
    """Some folders, the first that has room being used. Thread-safe, and used by processes.

    Args:
        folders: their paths; they exist.
    """

    def __init__(self, folders: tuple[str, ...]) -> None:
        self.folders = folders

    def write_value(self, name: str, value: Any) -> int:
        """Write a value under a name and give its size in bytes.

        Raises:
            OSError: there is no room for it.
            SerializationError: it cannot be pickled.
        """
        return self._write(name, lambda file: _write_value(file, value))

    def write_buffer(self, name: str, buffer: Any) -> int:
        """Write a buffer, as it is, under a name and give its size in bytes.

        Raises:
            OSError: there is no room for it.
        """
        return self._write(name, lambda file: _write_all(file, buffer))

    def read_value(self, name: str, access: int = mmap.ACCESS_READ) -> Any:
        """Load a value; its buffers stay where they are.

        Args:
            access: `mmap.ACCESS_COPY` lets the value be changed, without anybody else seeing it.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        memory = self.read_buffer(name, access)
        data_size, sizes_size = _HEAD.unpack_from(memory, 0)
        end = _HEAD.size + data_size
        sizes = pickle.loads(memory[end : end + sizes_size])
        return pickle.loads(
            memory[_HEAD.size : end], buffers=_buffers(memory, sizes, end + sizes_size)
        )

    def read_buffer(self, name: str, access: int = mmap.ACCESS_READ) -> memoryview:
        """Map a file; its memory is let go with the last view of it.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        handle = self._open(name)
        try:
            return memoryview(mmap.mmap(handle, 0, access=access))
        finally:
            os.close(handle)

    def remove(self, name: str) -> None:
        """Remove what lies under a name; where it is mapped it stays."""
        for path in self._paths(name):
            with suppress(OSError):
                os.unlink(path)

    def _paths(self, name: str) -> list[str]:
        # Names are of whatever letters.
        digest = blake2b(name.encode(), digest_size=16).hexdigest()
        return [os.path.join(folder, digest) for folder in self.folders]

    def _open(self, name: str) -> int:
        paths = self._paths(name)
        for path in paths[:-1]:
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return os.open(paths[-1], os.O_RDONLY | os.O_CLOEXEC)

    def _write(self, name: str, write: Any) -> int:
        paths = self._paths(name)
        for path in paths:
            try:
                with open(path, "wb", buffering=0, opener=_private) as file:
                    write(file)
                    return file.tell()
            except BaseException as exc:
                with suppress(OSError):
                    os.unlink(path)
                if not isinstance(exc, OSError) or path == paths[-1]:
                    raise
        raise AssertionError("An arena has a folder.")


class OwnArena(Arena):
    """The arena of the process that makes it and removes it.

    It is closed with the pool, and goes with the last of what is still held of it. Thread-safe.
    """

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._is_closed = False
        folders = []
        self._locks = []
        for place in _places():
            with suppress(OSError):
                folder = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
                self._locks.append(_lock(folder))
                folders.append(folder)
        if not folders:
            raise OSError(f"None of {', '.join(map(str, _places()))} can be written to.")
        super().__init__(tuple(folders))

    def hold(self, holder: Any, name: str) -> None:
        """Keep what lies under a name as long as an object lives."""
        self._held.add(name)
        finalize(holder, self._release, name)

    def close(self) -> None:
        """Remove the folders, as soon as nothing is held."""
        self._is_closed = True
        if not self._held:
            self._remove_folders()

    def _release(self, name: str) -> None:
        self._held.discard(name)
        self.remove(name)
        if self._is_closed and not self._held:
            self._remove_folders()

    def _remove_folders(self) -> None:
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        while self._locks:
            os.close(self._locks.pop())


def _lock(folder: str) -> int:
    """Lock a new folder, or remove it: nobody could tell that its owner lives."""
    try:
        handle = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return handle


def sweep() -> None:
    """Remove the folders of owners that are dead."""
    for place in _places():
        for folder in place.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The owner of a new one may be about to lock it.
        if folder.stat().st_mtime < time() - _NEW_SECONDS or _was_used(folder):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _was_used(folder: Path) -> bool:
    return any(entry.name != _LOCK for entry in folder.iterdir())


def _places() -> list[Path]:
    return [_MEMORY, Path(tempfile.gettempdir())]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _write_value(file: Any, value: Any) -> None:
    file.write(bytes(_HEAD.size))
    buffers = dump_into(file, value)
    data_size = file.tell() - _HEAD.size
    sizes = pickle.dumps([buffer.nbytes for buffer in buffers], 5)
    _write_all(file, sizes)
    for buffer in buffers:
        _write_all(file, bytes(-file.tell() % _ALIGNMENT))
        _write_all(file, buffer)
    os.pwrite(file.fileno(), _HEAD.pack(data_size, len(sizes)), 0)


def _write_all(file: Any, data: Any) -> None:
    rest = memoryview(data)
    rest = rest.cast("B") if rest.nbytes else rest
    while rest.nbytes:
        rest = rest[file.write(rest) :]


def _buffers(memory: memoryview, sizes: list[int], end: int) -> Iterator[memoryview]:
    for size in sizes:
        end += -end % _ALIGNMENT
        yield memory[end : end + size]
        end += size
