"""The write gate: many writers of one file, and nobody meets a lock."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest

from penstock.errors import HistoryUnavailable
from penstock.history import gate as gates
from penstock.history.gate import Patience, WriteGate, holder_of
from penstock.history.sqlite import SQLiteStore
from tests.history.rows import is_sound, let_go, new_id, one_flow_run, select, start_python

PROCESSES = 8
GROUPS = 60
ROWS = 20

WRITER = """
import os, sys
from penstock.history.sqlite import SQLiteStore
from penstock.history.base import Group
from tests.history.rows import task_run_row, log_row

print("ready", flush=True)
sys.stdin.readline()
store = SQLiteStore(sys.argv[1])
flow_run_id = os.urandom(16)
for number in range(int(sys.argv[2])):
    rows = [task_run_row(flow_run_id, id=os.urandom(16)) for _ in range(int(sys.argv[3]))]
    count = (flow_run_id, 1, "COMPLETED", (number + 1) * len(rows))
    store.write(Group(task_runs=rows, logs=[log_row(flow_run_id, str(number))], counts=[count]))
store.close()
"""


def run_together(script: str, *arguments: str, number: int = PROCESSES) -> None:
    """Run a script in several processes that begin at the same moment; all must succeed."""
    children = [start_python(script, *arguments) for _ in range(number)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        let_go(child)
    for child in children:
        assert child.stdout is not None
        with child:
            assert child.wait(50) == 0


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[WriteGate]:
    with closing(WriteGate(str(tmp_path / "history.db"))) as gate:
        yield gate


@pytest.fixture
def other(tmp_path: Path) -> Iterator[WriteGate]:
    with closing(WriteGate(str(tmp_path / "history.db"))) as gate:
        yield gate


def test_many_processes_write_one_file_without_a_lock_error(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    run_together(WRITER, str(path), str(GROUPS), str(ROWS))
    assert is_sound(path)
    total = PROCESSES * GROUPS * ROWS
    assert select(path, "SELECT count(*) FROM task_runs") == [(total,)]
    assert select(path, "SELECT count(*) FROM logs") == [(PROCESSES * GROUPS,)]
    counts = select(path, "SELECT number FROM counts")
    assert counts == [(GROUPS * ROWS,)] * PROCESSES
    orders = select(path, "SELECT message FROM logs ORDER BY flow_run_id, position")
    assert [int(number) for (number,) in orders] == list(range(GROUPS)) * PROCESSES


def test_two_stores_of_one_process_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "history.db"

    def work(_: int) -> None:
        with closing(SQLiteStore(path)) as store:
            for _ in range(20):
                store.write(one_flow_run(os.urandom(16), 0))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert select(path, "SELECT count(*) FROM flow_runs") == [(80,)]


def test_gate_excludes_and_lets_in_again(gate: WriteGate, other: WriteGate) -> None:
    gate.acquire(Patience(1))
    with pytest.raises(HistoryUnavailable, match="HistoryBusy"):
        other.acquire(Patience(0.01))
    gate.release()
    other.acquire(Patience(0.01))
    other.release()


def test_waiting_writer_is_let_in(gate: WriteGate, other: WriteGate) -> None:
    gate.acquire(Patience(1))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.acquire, Patience(20))
        assert not wait([waiting], timeout=0.05).done
        gate.release()
        waiting.result(10)
    other.release()


def test_holder_is_named_after_a_while(
    gate: WriteGate,
    other: WriteGate,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gates, "WARN_AFTER", 0.1)
    gate.acquire(Patience(1))
    with caplog.at_level(logging.WARNING, "penstock.history"):
        with pytest.raises(HistoryUnavailable, match=f"process {os.getpid()} has locked"):
            other.acquire(Patience(0.4))
    assert len(caplog.records) == 1
    assert "Work goes on" in caplog.text


def test_gate_ends_with_its_process(tmp_path: Path, gate: WriteGate) -> None:
    script = (
        "import sys; from penstock.history.gate import *\n"
        "gate = WriteGate(sys.argv[1]); gate.acquire(Patience(1)); print('held', flush=True)\n"
        "sys.stdin.readline()"
    )
    with start_python(script, str(tmp_path / "history.db")) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert holder_of(gate._file) in (child.pid, None)
        child.kill()
        assert child.wait(10) == -9
    gate.acquire(Patience(5))
    gate.release()


def test_filesystem_without_flock_is_survived(
    gate: WriteGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    gate.acquire(Patience(0.01))
    gate.release()


def test_other_errors_of_flock_are_not_hidden(
    gate: WriteGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"):
        gate.acquire(Patience(0.01))


FORKED = """
import os, sys
from penstock.history.gate import Patience, WriteGate
from penstock.history.sqlite import SQLiteStore

store = SQLiteStore(sys.argv[1])
store._gate.acquire(Patience(1))
if os.fork():
    print("held", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
sys.stdin.readline()
"""


def test_forked_child_does_not_keep_a_dead_parents_gate(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with start_python(FORKED, str(path)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.kill()
        child.wait(10)
        with closing(SQLiteStore(path, patience=5)) as store:
            store.write(one_flow_run(new_id(), 1))
        assert isinstance(child, subprocess.Popen)
        let_go(child)  # ends the forked one
