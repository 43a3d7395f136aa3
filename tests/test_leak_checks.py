"""The leak checks catch what they are for."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.leaks import leaks_since, lend_loop, take_snapshot, wait_for_no_leaks

ROOT = Path(__file__).resolve().parent.parent

LEAKY = """
import threading, sys, subprocess
import tests.leaks

tests.leaks.PATIENCE = 0.05
kept = []

def test_thread():
    thread = threading.Thread(target=threading.Event().wait, name="stray", daemon=True)
    thread.start()

def test_file():
    kept.append(open(__file__))

def test_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

def test_clean():
    with open(__file__) as file:
        file.read()
"""


def test_nothing_changed() -> None:
    assert leaks_since(take_snapshot()) == []


def test_what_lives_on_a_lent_loop_is_no_leak() -> None:
    loop = asyncio.new_event_loop()
    with lend_loop(loop):
        before = take_snapshot()
        watched, own = socket.socketpair()
        loop.add_reader(watched, print)
        loop.run_until_complete(loop.run_in_executor(None, int))
        (found,) = leaks_since(before)
        assert found.startswith(f"descriptor {own.fileno()} -> socket:")
        loop.remove_reader(watched)
        watched.close()
        own.close()
        loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_thread_is_caught_until_it_ends() -> None:
    before, release = take_snapshot(), threading.Event()
    thread = threading.Thread(target=release.wait, name="stray")
    thread.start()
    assert leaks_since(before) == ["thread 'stray'"]
    release.set()
    assert wait_for_no_leaks(before) == []


def test_patience_has_an_end() -> None:
    before, release = take_snapshot(), threading.Event()
    thread = threading.Thread(target=release.wait, name="stray")
    thread.start()
    assert wait_for_no_leaks(before, patience=0.02) == ["thread 'stray'"]
    release.set()
    thread.join()


def test_process_is_caught_until_it_is_waited_for() -> None:
    before = take_snapshot()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = wait_for_no_leaks(before, patience=0.02)
    assert any(leak.startswith(f"process {child.pid} ") for leak in found)
    child.communicate(b"\n")
    assert wait_for_no_leaks(before) == []


def test_open_file_is_caught() -> None:
    before = take_snapshot()
    with tempfile.NamedTemporaryFile() as file:
        found = leaks_since(before)
        assert found == [f"descriptor {file.fileno()} -> {file.name}"]
    assert leaks_since(before) == []


def test_open_socket_and_pipe_are_caught() -> None:
    before = take_snapshot()
    reader, writer = os.pipe()
    with socket.socket():
        assert len(leaks_since(before)) == 3
    os.close(reader)
    os.close(writer)
    assert leaks_since(before) == []


def test_each_leaking_test_fails_by_name(tmp_path: Path) -> None:
    file = tmp_path / "test_leaky.py"
    file.write_text(LEAKY)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-q", "--rootdir", str(tmp_path), "-c", os.devnull, str(file)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=40,
    )
    assert "3 errors" in done.stdout, done.stdout
    assert "thread 'stray'" in done.stdout
    assert f"-> {file}" in done.stdout
    assert "test_clean leaves behind" not in done.stdout
