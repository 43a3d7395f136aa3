"""Drivers on Ray that are interrupted or killed, and a head that is: rows A9 and D4."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from penstock.testing.ledger import wait_until
from tests.leaks import lend_sockets
from tests.task_runners.ray.external import external_ray

pytestmark = pytest.mark.timeout(180)
SCRIPT = """
import sys, time
from pathlib import Path
from penstock import flow, task
from penstock.task_runners import RayTaskRunner

BEGUN = sys.argv[1]

@task
def hold() -> None:
    Path(BEGUN).write_text("begun")
    time.sleep(60)

@flow(task_runner=RayTaskRunner({arguments}))
def example() -> None:
    hold.submit().result()

example()
"""
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
LOCAL = 'init_kwargs={"num_cpus": 1, "object_store_memory": 100_000_000}'


class Driver:
    """A script in a process of its own, in a session of its own."""

    def __init__(self, folder: Path, arguments: str) -> None:
        self.begun = folder / "begun"
        path = folder / "script.py"
        path.write_text(SCRIPT.replace("{arguments}", arguments))
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(path), str(self.begun)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
            )

    def wait_until_it_runs(self) -> None:
        for _ in range(4):
            try:
                wait_until(self.begun.exists)
            except TimeoutError:
                continue
            return
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        """End the script, whatever has become of it."""
        self.process.kill()
        self.process.wait(10)

    def left_behind(self) -> dict[int, str]:
        """Give the processes that belong to its session still: their commands by id."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != self.process.pid:
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self.process.pid and fields[0] != "Z":
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().decode()
                except OSError:
                    continue
        return found


@contextmanager
def driver_of(folder: Path, arguments: str) -> Iterator[Driver]:
    """Give a driver that has begun its task; end it after the block."""
    driver = Driver(folder, arguments)
    try:
        driver.wait_until_it_runs()
        yield driver
    finally:
        driver.stop()


@pytest.fixture(autouse=True, scope="module")
def lent_sockets() -> Iterator[None]:
    with lend_sockets():
        yield


def test_a9_ctrl_c_ends_the_flow_run_and_its_local_ray(tmp_path: Path) -> None:
    with driver_of(tmp_path, LOCAL) as driver:
        driver.process.send_signal(signal.SIGINT)
        # 130 for a shell: Python ends by the signal itself.
        assert driver.process.wait(30) in (130, -signal.SIGINT), driver.log.read_text()
        wait_until(lambda: not driver.left_behind())


def test_a1_a_killed_driver_takes_its_local_ray_along(tmp_path: Path) -> None:
    with driver_of(tmp_path, LOCAL) as driver:
        driver.process.kill()
        driver.process.wait(10)
        # For a minute two agents of Ray's own try to tell its control store, which is dead as
        # well, how their node has ended.
        wait_until(lambda: all(name.startswith(AGENTS) for name in driver.left_behind().values()))
        for pid in driver.left_behind():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_d4_a_killed_head_ends_the_flow_run(tmp_path: Path) -> None:
    with (
        external_ray(cpus=1) as cluster,
        driver_of(tmp_path, f"address={cluster.address!r}") as driver,
    ):
        os.kill(cluster.pid_of("gcs_server"), signal.SIGKILL)
        assert driver.process.wait(30) == 1
    said = driver.log.read_text()
    assert "EngineLost" in said, said
    assert "run the flow again" in said
