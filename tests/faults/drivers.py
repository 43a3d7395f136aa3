"""Run, kill and resume a workload in processes of its own, and keep the evidence."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from tests.checker import History
from tests.faults import judge, workload

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0
GONE_LIMIT = 15.0
RUNNERS = {
    "threads": ("concurrent", "ConcurrentTaskRunner"),
    "sequential": ("sequential", "SequentialTaskRunner"),
    "processes": ("process", "ProcessPoolTaskRunner"),
    "dask": ("dask", "DaskTaskRunner"),
    "ray": ("ray", "RayTaskRunner"),
}


class Warm:
    """The process that forks drivers (`tests/faults/warm.py`), from where it is ordered.

    Args:
        modules: what it loads beside Penstock.
    """

    def __init__(self, *modules: str) -> None:
        self._number = 0
        self._codes: dict[int, int] = {}
        self._pids: dict[int, int] = {}
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )

    def start(
        self, arguments: Sequence[str], variables: dict[str, str], folder: Path, seed: int
    ) -> int:
        """Start a driver; gives its process id."""
        self._number += 1
        order = {
            "number": self._number,
            "arguments": list(arguments),
            "variables": variables,
            "folder": str(folder),
            "output": str(folder / "output"),
            "seed": seed,
        }
        _of(self._process.stdin).write((json.dumps(order) + "\n").encode())
        _of(self._process.stdin).flush()
        self._read_until(self._number, self._pids, LIMIT)
        return self._pids.pop(self._number)

    def wait(self, pid: int, seconds: float = LIMIT) -> int:
        """Wait for a driver to end; gives its exit code, negative for a signal.

        Raises:
            TimeoutError: it has not ended in time.
        """
        self._read_until(pid, self._codes, seconds)
        return self._codes.pop(pid)

    def has_ended(self, pid: int) -> bool:
        """Tell whether a driver has ended."""
        with suppress(TimeoutError):
            self._read_until(pid, self._codes, 0.0)
        return pid in self._codes

    def close(self) -> None:
        """End the process."""
        _of(self._process.stdin).close()
        self._process.wait(LIMIT)
        _of(self._process.stdout).close()

    def _read_until(self, key: int, answers: dict[int, int], seconds: float) -> None:
        output = _of(self._process.stdout)
        give_up_at = time.monotonic() + seconds
        while key not in answers:
            left = max(give_up_at - time.monotonic(), 0.0)
            if not select.select([output], [], [], left)[0]:
                raise TimeoutError(f"nothing was heard of {key} for {seconds} seconds")
            self._rest += os.read(output.fileno(), 1 << 16)
            *whole, self._rest = self._rest.split(b"\n")
            for line in whole:
                self._take(json.loads(line))

    def _take(self, said: dict[str, Any]) -> None:
        if "started" in said:
            self._pids[said["started"]] = said["pid"]
        else:
            self._codes[said["ended"]] = said["code"]


def _of(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def session_of(leader: int) -> list[int]:
    """Give the living processes of the session that a driver was the leader of."""
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                words = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(words[3]) == leader and words[0] not in "ZX":
                    members.append(int(folder.name))
    return members


@dataclass
class Story:
    """A flow run and all that befalls it.

    Args:
        warm: what forks its drivers.
        folder: where its history, its ledger and its output are.
        runner: a name of `RUNNERS`.
        seed: what its chances depend on.
        width: how large the workload is; `pause`: how many seconds each task body takes.
        losses: how many workers may have died.
        flow: which flow of the workload.
    """

    warm: Warm
    folder: Path
    runner: str = "threads"
    seed: int = 0
    width: int = 4
    pause: float = 0.0
    losses: int = 0
    flow: str = "mix"
    crashes: list[judge.Crash] = field(default_factory=list)
    drivers: list[int] = field(default_factory=list)
    began_at: int = field(default_factory=time.time_ns)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.counts.mkdir(exist_ok=True)

    @property
    def path(self) -> Path:
        """The history."""
        return self.folder / "history.db"

    @property
    def counts(self) -> Path:
        """The folder in which the processes of one driver count failpoints."""
        return self.folder / "counts"

    def run(self, failpoints: str = "") -> int:
        """Start the flow run; gives the process id of its driver."""
        target = f"{ROOT / 'tests' / 'faults' / 'workload.py'}:{self.flow}"
        return self._start(["run", target, "-p", f"width={self.width}"], failpoints)

    def resume(self, failpoints: str = "", *options: str) -> int:
        """Start to resume the flow run; gives the process id of the driver."""
        return self._start(["resume", "@last", *options], failpoints)

    def _start(self, arguments: list[str], failpoints: str) -> int:
        workers = [] if self.runner == "sequential" else ["--workers", "2"]
        runner = ["--runner", RUNNERS[self.runner][0], *workers]
        pid = self.command([*arguments, *runner], failpoints)
        self.drivers.append(pid)
        return pid

    def command(self, arguments: list[str], failpoints: str = "") -> int:
        """Start a command of `penstock`; gives its process id."""
        for file in self.counts.iterdir():
            file.unlink()
        variables = {
            **{key: value for key, value in os.environ.items() if key.startswith("PYTHON")},
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "PENSTOCK_HOME": str(self.folder),
            "PENSTOCK_TESTING": "1",
            "PENSTOCK_FAILPOINTS": failpoints,
            "PENSTOCK_FAILPOINT_COUNTS": str(self.counts),
            "FAULTS_LEDGER": str(self.folder / "ledger"),
            "FAULTS_PAUSE": str(self.pause),
        }
        self.seed += 1
        return self.warm.start(arguments, variables, self.folder, self.seed)

    def wait(self, pid: int, seconds: float = LIMIT) -> int:
        """Wait for a driver and all it has started to end; a death by a signal is kept in mind.

        Raises:
            AssertionError: a process outlived it. Two agents of Ray's may (docs/ray.md).
        """
        code = self.warm.wait(pid, seconds)
        is_ray = self.runner == "ray"
        give_up_at = time.monotonic() + (GONE_LIMIT / 3 if is_ray else GONE_LIMIT)
        while left := session_of(pid):
            if time.monotonic() > give_up_at:
                for each in left:
                    with suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
                if not is_ray:
                    raise AssertionError(f"{left} outlived driver {pid} (seed {self.seed})")
            time.sleep(0.005)
        if code < 0:
            self.note_crash()
        return code

    def copy(self, folder: Path) -> Story:
        """Give the same flow run once more, in a folder of its own; no driver may be alive."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder, crashes=list(self.crashes), drivers=list(self.drivers))

    def note_crash(self) -> None:
        """Keep in mind how the history stands, now that a driver is dead."""
        left = self.left()
        if left is not None:
            self.crashes.append(judge.Crash(time.time_ns(), left))

    def left(self) -> History | None:
        """Give the history as it stands; None where there is none yet."""
        try:
            return History.read(self.path)
        except sqlite3.OperationalError:
            return None

    def finish(self, attempts: int = 1) -> None:
        """Resume until the flow run is complete, which must not take more than some attempts."""
        codes: list[int] = []
        while not codes or codes[-1] != 0:
            assert len(codes) < attempts, f"resuming ended with {codes}:\n{self.output()}"
            # A driver that died before anything was on disk has left nothing to resume.
            left = self.left()
            codes.append(self.wait(self.resume() if left and left.flow_runs else self.run()))

    def output(self) -> str:
        """Give what the drivers have said."""
        return (self.folder / "output").read_text(errors="replace")[-3000:]

    def case(self) -> judge.Case:
        """Give all that is known."""
        return judge.Case(
            self.path,
            workload.MODELS[self.flow](self.width),
            judge.read_effects(self.folder / "ledger"),
            began_at=self.began_at,
            ended_at=time.time_ns(),
            runner=RUNNERS[self.runner][1],
            drivers=frozenset(self.drivers),
            crashes=self.crashes,
            losses=self.losses,
        )

    def judge(self) -> list[str]:
        """Give all that is wrong with the history."""
        return judge.verdict(self.case())
