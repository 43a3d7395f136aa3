"""What holds for every test: a history of its own, and nothing left behind."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from penstock.task_runners.processes import nursery_process
from tests.leaks import take_snapshot, wait_for_no_leaks

MEMORY = Path("/dev/shm")
ROOM = 1 << 30
_numbers = itertools.count()

# Every new worker of a process pool would load it for itself, which takes most of its test's time.
nursery_process.preloaded.append("penstock.testing")

# Hundreds of processes load the package, and compile it each if nobody keeps what was compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The same examples every time in CI; new ones in every run elsewhere.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the folder in which every test has its `PENSTOCK_HOME`.

    Nearly every test makes a history, writes it to disk and removes it, and where that is a real
    disk it is half of the test's time. So it lies in memory, if there is room.
    """
    if not (
        MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM and os.access(MEMORY, os.W_OK)
    ):
        yield tmp_path_factory.mktemp("homes")
        return
    with tempfile.TemporaryDirectory(
        prefix="penstock-homes-", dir=MEMORY, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def penstock_home(homes: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give each test its own `PENSTOCK_HOME`, not made yet; fail a test that leaks.

    The rest of the user's Penstock settings are out of sight. After the test the process's
    history is closed, and then threads, child processes and descriptors are as before.
    """
    home = homes / str(next(_numbers))
    environment = dict(os.environ)
    for name in environment:
        if name.startswith("PENSTOCK_"):
            del os.environ[name]
    os.environ["PENSTOCK_HOME"] = str(home)
    before = take_snapshot()
    yield home
    close_history()
    os.environ.clear()
    os.environ.update(environment)
    found = wait_for_no_leaks(before)
    shutil.rmtree(home, ignore_errors=True)
    if found:
        pytest.fail(f"{request.node.nodeid} leaves behind: " + "; ".join(found), pytrace=False)


def close_history() -> None:
    """Write out and close the process's history, and stop the clock, if the test used them."""
    recording = sys.modules.get("penstock.runtime.recording")
    close = getattr(recording, "close", None)
    if close is not None:
        close()
    clock = sys.modules.get("penstock.clock")
    if clock is not None:
        clock.clock.close()
