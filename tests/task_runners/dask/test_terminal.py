"""Worker processes on a terminal: quiet, deaf to Ctrl-C, and gone with their driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.testing.ledger import wait_until

pytestmark = pytest.mark.timeout(90)


DRIVER = """
import asyncio, os, signal, sys, threading
from penstock.task_runners import DaskTaskRunner

async def main():
    print("starting", flush=True)
    runner = DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1})
    async with runner.start():
        # Outside its own loop the client blocks.
        client = runner._client
        pids = await asyncio.to_thread(client.run, os.getpid)
        print("ready", *pids.values(), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(await asyncio.to_thread(client.submit(sum, [1, 2]).result), flush=True)

if __name__ == "__main__":
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
    left = [one.name for one in threading.enumerate() if not one.name.startswith("Dask-Offload")]
    print("heard", bool(heard), left, flush=True)
"""


@contextmanager
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "starting\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_nothing_is_printed_and_ctrl_c_is_the_drivers(tmp_path: Path) -> None:
    with driver(tmp_path) as process:
        ready = threading.Event()

        def interrupt() -> None:
            while not ready.wait(0.1):
                os.killpg(process.pid, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert process.stdout is not None
        word, pid = process.stdout.readline().split()
        os.killpg(process.pid, signal.SIGINT)
        ready.set()
        thread.join()
        assert word == "ready"
        assert is_alive(int(pid))
        output, errors = process.communicate("go\n", timeout=20)
        assert errors == ""
        assert output == "3\nheard True ['MainThread']\n"
        assert not is_alive(int(pid))


def test_workers_end_with_a_killed_driver(tmp_path: Path) -> None:
    with driver(tmp_path) as process:
        assert process.stdout is not None
        _, pid = process.stdout.readline().split()
        process.kill()
        process.wait(5)
        wait_until(lambda: not is_alive(int(pid)))
