"""Which process drives a run, and whether it lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from penstock.history.owners import host_name, is_gone, process_started_at
from tests.history.rows import let_go, start_python


def test_living_process_has_one_start_time() -> None:
    assert process_started_at(os.getpid()) == process_started_at(os.getpid()) is not None


def test_host_is_named_as_the_system_does() -> None:
    assert host_name() == socket.gethostname()


def test_dead_process_has_none_also_before_it_is_reaped() -> None:
    with start_python("import sys; print(1, flush=True); sys.stdin.readline()") as child:
        assert child.stdout is not None
        child.stdout.readline()
        started_at = process_started_at(child.pid)
        assert not is_gone(host_name(), child.pid, started_at)
        let_go(child)
        assert child.stdout.read() == ""  # it has closed its files
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_started_at(child.pid) is None
        assert is_gone(host_name(), child.pid, started_at)
    assert process_started_at(child.pid) is None


def test_pid_that_is_used_again_is_noticed() -> None:
    started_at = process_started_at(os.getpid())
    assert started_at is not None
    assert is_gone(host_name(), os.getpid(), started_at - 1)
    assert not is_gone(host_name(), os.getpid(), None)


@pytest.mark.parametrize(("host", "pid"), [("elsewhere", 1), (None, 1), ("here", None)])
def test_what_cannot_be_known_counts_as_alive(host: str | None, pid: int | None) -> None:
    assert not is_gone(host_name() if host == "here" else host, pid, 1)


def test_program_names_may_hold_anything(tmp_path: Path) -> None:
    link = tmp_path / "a) R 1 (b"
    os.symlink(os.path.realpath("/bin/sleep"), link)
    child = os.spawnv(os.P_NOWAIT, str(link), ["x", "60"])
    try:
        assert process_started_at(child) is not None
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_without_proc_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    answer = process_started_at(os.getpid())
    assert answer == process_started_at(os.getpid())
    assert process_started_at(2**22 + 1) is None
