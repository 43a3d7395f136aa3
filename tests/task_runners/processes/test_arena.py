"""The arena: values in shared memory, and what becomes of them."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.task_runners.processes import arena as module
from penstock.task_runners.processes.arena import Arena, OwnArena, sweep


@pytest.fixture
def arena() -> Any:
    made = OwnArena()
    yield made
    made.close()
    assert not any(map(os.path.exists, made.folders))


@pytest.mark.parametrize(
    "value", [None, {"a": [1, 2]}, bytes(3_000_000), "x/../\0 name", (np.arange(7), "text")]
)
def test_what_is_written_is_read(arena: OwnArena, value: Any) -> None:
    size = arena.write_value("a name / of \0 whatever letters", value)
    got = Arena(arena.folders).read_value("a name / of \0 whatever letters")
    assert repr(got) == repr(value)
    assert size > 0


def test_arrays_use_the_memory_in_place(arena: OwnArena) -> None:
    blocks = [np.full(300_000, number, dtype="f8") for number in range(3)]
    size = arena.write_value("blocks", blocks)
    assert size < sum(block.nbytes for block in blocks) + 10_000
    got = arena.read_value("blocks")
    assert all((one == other).all() for one, other in zip(got, blocks, strict=True))
    assert not got[0].flags.writeable
    assert got[1].ctypes.data % 64 == 0


def test_a_copy_may_be_changed_unseen(arena: OwnArena) -> None:
    arena.write_value("block", np.zeros(200_000))
    mine = arena.read_value("block", mmap.ACCESS_COPY)
    mine[0] = 5
    assert arena.read_value("block")[0] == 0


def test_what_was_removed_stays_where_it_is_mapped(arena: OwnArena) -> None:
    arena.write_value("block", np.ones(200_000))
    got = arena.read_value("block")
    arena.remove("block")
    assert got.sum() == 200_000
    with pytest.raises(FileNotFoundError):
        arena.read_value("block")


def test_another_folder_is_used_where_one_is_full(
    arena: OwnArena, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.path.dirname(arena._paths("x")[0])
    real = module._private

    def refuse(path: str, flags: int) -> int:
        if path.startswith(full):
            raise OSError(28, "No space left on device")
        return real(path, flags)

    monkeypatch.setattr(module, "_private", refuse)
    arena.write_value("x", [1])
    assert arena.read_value("x") == [1]
    assert os.path.exists(arena._paths("x")[1])


def test_the_last_error_is_told_and_nothing_stays(
    arena: OwnArena, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unwilling:
        def __reduce__(self) -> Any:
            raise ValueError("not me")

    with pytest.raises(ValueError, match="not me"):
        arena.write_value("x", [bytes(2_000_000), Unwilling()])
    assert not any(map(os.path.exists, arena._paths("x")))


def test_what_is_held_outlives_the_pool() -> None:
    class Holder:
        pass

    arena, holder = OwnArena(), Holder()
    arena.write_value("kept", [7])
    arena.hold(holder, "kept")
    arena.close()
    assert arena.read_value("kept") == [7]
    del holder
    gc.collect()
    assert not any(map(os.path.exists, arena.folders))


DIES = """
import os, sys
from penstock.task_runners.processes.arena import OwnArena
arena = OwnArena()
arena.write_value("left", [1])
print("\\n".join(arena.folders), flush=True)
os._exit(1)
"""


def test_folders_of_the_dead_are_swept_those_of_the_living_stay(arena: OwnArena) -> None:
    arena.write_value("mine", [1])
    done = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, timeout=30)
    left = done.stdout.split()
    assert len(left) == 2
    assert all(map(os.path.exists, left))
    for folder in left:
        long_ago = time.time() - 60
        os.utime(folder, (long_ago, long_ago))
    sweep()
    assert not any(map(os.path.exists, left))
    assert arena.read_value("mine") == [1]


def test_nobody_else_can_read_it(arena: OwnArena) -> None:
    arena.write_value("secret", [1])
    assert [Path(folder).stat().st_mode & 0o777 for folder in arena.folders] == [0o700] * 2
    assert Path(arena._paths("secret")[0]).stat().st_mode & 0o777 == 0o600
