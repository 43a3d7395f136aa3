"""A file system in memory that fails by a schedule: `faulty://`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

# What the next calls do: None works, an exception is raised, "short" loses a byte, "lost" loses
# all. What is not in the schedule any more works.
schedule: list[Any] = []
calls: list[str] = []


def _next(call: str) -> Any:
    calls.append(call)
    fault = schedule.pop(0) if schedule else None
    if isinstance(fault, Exception):
        raise fault
    return fault


class FaultyFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Fails when a file is opened, as the schedule says."""

    protocol = "faulty"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://"))
        return stripped

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        fault = _next(mode)
        file = super().open(path, mode, **options)
        return _Losing(file, fault, self, path) if fault else file


class _Losing:
    """A file that loses something of what is written to it."""

    def __init__(self, file: Any, fault: str, files: FaultyFileSystem, path: str) -> None:
        self._file, self._fault, self._files, self._path = file, fault, files, path

    def close(self) -> None:
        self._file.close()
        if self._fault == "lost":
            self._files.rm_file(self._path)

    def write(self, data: Any) -> int:
        kept = bytes(data)[:-1] if self._fault == "short" else data
        return int(self._file.write(kept))


def registered() -> Iterator[None]:
    """Have fsspec know the file system, empty and with an empty schedule."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    schedule.clear()
    calls.clear()
    FaultyFileSystem.store.clear()
    FaultyFileSystem.pseudo_dirs[:] = [""]
    yield
    schedule.clear()
