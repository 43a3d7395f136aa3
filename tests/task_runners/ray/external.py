"""Start a real Ray cluster, as processes on loopback, for tests.

with external_ray(cpus=4) as cluster:
    runner = RayTaskRunner(address=cluster.address)
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

LOOPBACK = "127.0.0.1"
PATIENCE = 100.0  # seconds until the head must answer
ROOT = Path(__file__).resolve().parents[3]


class ExternalRay:
    """A head node that the test owns; `ray start --head` in a process of its own.

    Attributes:
        address: what drivers connect to.
        client_address: the same for Ray's client; None without `client`.
        process: what has to live for the cluster to do so.
    """

    def __init__(self, cpus: int, client: bool = False) -> None:
        # Sockets lie in there, whose paths may not be long.
        self._folder = tempfile.mkdtemp(prefix="pen-ray-", dir="/tmp")
        self._log = Path(self._folder, "head.log")
        port = free_port()
        client_port = free_port() if client else None
        self.address = f"{LOOPBACK}:{port}"
        self.client_address = f"ray://{LOOPBACK}:{client_port}" if client_port else None
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
            f"--port={port}", f"--node-ip-address={LOOPBACK}", f"--num-cpus={cpus}",
            "--include-dashboard=false", "--disable-usage-stats",
            "--object-store-memory=200000000", f"--temp-dir={self._folder}",
        ]  # fmt: skip
        if client_port is not None:
            command.append(f"--ray-client-server-port={client_port}")
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": python_path, "RAY_AUTH_MODE": "disabled"},
                start_new_session=True,
            )
        try:
            self._wait(port)
            if client_port is not None:
                self._wait(client_port)
        except BaseException:
            self.stop()
            raise

    def pid_of(self, name: str) -> int:
        """Give the id of a process of the head node by the name of its program."""
        for pid in _descendants(self.process.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
            if command.endswith(name.encode()):
                return pid
        raise LookupError(name)

    def stop(self) -> None:
        """End every process, by its id; the second call does nothing."""
        pids = _descendants(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        for pid in pids:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self, port: int) -> None:
        deadline, pause = time.monotonic() + PATIENCE, Event()
        while not _answers(port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray is not up:\n{self._log.read_text(errors='replace')}")
            pause.wait(0.05)


@contextmanager
def external_ray(cpus: int, client: bool = False) -> Iterator[ExternalRay]:
    """Give an `ExternalRay` that is up; end every process after the block."""
    cluster = ExternalRay(cpus, client)
    try:
        yield cluster
    finally:
        cluster.stop()


def free_port() -> int:
    """Give a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def _descendants(pid: int) -> list[int]:
    found = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in listing.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found
