"""Start real Dask schedulers and workers, as processes on loopback, for tests.

with external_cluster(workers=2) as cluster:
    runner = DaskTaskRunner(address=cluster.address)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import distributed

LOOPBACK = "127.0.0.1"
PATIENCE = 60.0  # seconds until a process must be up
ROOT = Path(__file__).resolve().parents[3]

Process = subprocess.Popen[bytes]


class ExternalCluster:
    """A scheduler and its workers, each a process that the test owns.

    A worker process has no nanny unless `nanny` is set, so that its id is the id of the process
    that runs tasks. Modules of `tests` can be imported there.

    Attributes:
        address: the scheduler's address.
        scheduler: its process.
        workers: the workers' processes, those that have ended included.
    """

    def __init__(
        self,
        *,
        nthreads: int = 1,
        resources: Mapping[str, float] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        nanny: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="penstock-dask-", ignore_cleanup_errors=True
        )
        self._logs: dict[int, Path] = {}
        self._nthreads = nthreads
        self._resources = dict(resources or {})
        self._env = dict(env or {})
        self._cwd = cwd
        self._nanny = nanny
        self.workers: list[Process] = []
        place = Path(self._folder.name, "scheduler.json")
        options = {"port": 0, "scheduler-file": place}
        self.scheduler = self._spawn("scheduler", [], options, {})
        try:
            self.address = str(self._await(self.scheduler, lambda: _address_in(place)))
        except BaseException:
            self.stop()
            raise

    def add_worker(
        self,
        *,
        nthreads: int | None = None,
        resources: Mapping[str, float] | None = None,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Process:
        """Start one more worker; what is not given is as for the others.

        Args:
            wait: return only when the scheduler knows the worker.
        """
        name = f"worker-{len(self.workers)}"
        options: dict[str, Any] = {
            "name": name,
            "nthreads": nthreads or self._nthreads,
            "memory-limit": 0,
            "local-directory": self._folder.name,
        }
        held = self._resources if resources is None else resources
        if held:
            options["resources"] = ",".join(f"{key}={number:g}" for key, number in held.items())
        kind = [self.address, "--nanny" if self._nanny else "--no-nanny"]
        process = self._spawn("worker", kind, options, env or {})
        self.workers.append(process)
        if wait:
            self.wait_for_workers([name])
        return process

    def wait_for_workers(self, names: list[str]) -> None:
        """Block until the scheduler knows the workers of these names."""
        with distributed.Client(self.address, set_as_default=False) as client:
            known = lambda: set(names) <= set(_names_of_workers(client))  # noqa: E731
            self._await(self.workers[-1], known)

    def log_of(self, process: Process) -> str:
        """Give what a process has written so far."""
        return self._logs[process.pid].read_text("utf-8", errors="replace")

    def stop(self) -> None:
        """End every process, by its id; the second call does nothing."""
        # Not gently: a worker whose scheduler ends with it takes seconds to give up.
        for process in (*self.workers, self.scheduler):
            process.kill()
        for process in (*self.workers, self.scheduler):
            process.wait(5)
        self._folder.cleanup()

    def _spawn(
        self, kind: str, arguments: list[str], options: dict[str, Any], env: Mapping[str, str]
    ) -> Process:
        options = {"host": LOOPBACK, "dashboard-address": f"{LOOPBACK}:0", **options}
        listed = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "dask", kind, *arguments, "--no-dashboard", *listed]
        log = Path(self._folder.name, f"{kind}-{len(self.workers)}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._cwd,
                env={**os.environ, "PYTHONPATH": _python_path(), **self._env, **env},
            )
        self._logs[process.pid] = log
        return process

    def _await(self, process: Process, look: Callable[[], Any]) -> Any:
        """Look until there is something to see; the process must live meanwhile."""
        deadline, pause = time.monotonic() + PATIENCE, Event()
        while not (seen := look()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} is not up:\n{self.log_of(process)}")
            pause.wait(0.01)
        return seen


@contextmanager
def external_cluster(
    workers: int = 1, nthreads: int = 1, **options: Any
) -> Iterator[ExternalCluster]:
    """Give an `ExternalCluster` whose workers are all up; end every process after the block.

    Args:
        workers: how many; 0 is a scheduler alone.
        nthreads: threads per worker.
        options: as for `ExternalCluster`.
    """
    cluster = ExternalCluster(nthreads=nthreads, **options)
    try:
        for _ in range(workers):
            cluster.add_worker(wait=False)
        if workers:
            cluster.wait_for_workers([f"worker-{number}" for number in range(workers)])
        yield cluster
    finally:
        cluster.stop()


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def _address_in(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text("utf-8"))["address"])
    except (OSError, ValueError):  # not written yet, or only half
        return None


def _names_of_workers(client: distributed.Client) -> list[str]:
    names: list[str] = client.run_on_scheduler(
        lambda dask_scheduler: [str(worker.name) for worker in dask_scheduler.workers.values()]
    )
    return names
