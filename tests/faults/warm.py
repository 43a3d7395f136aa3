"""A process that has loaded everything and forks drivers: starting one costs milliseconds.

    test ──► order (a line of JSON) ──► this process ── fork ──► driver: `penstock run …`
         ◄── which process, how it ended ◄──────┘

Each driver is the leader of a session of its own, so that what it leaves behind can be found. The
process has a single thread: forking it is safe.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import select
import signal
import sys
from contextlib import suppress
from typing import Any

from penstock import failpoints
from penstock.cli.app import run_app

# What a driver needs. None of it may start a thread.
LOADED = (
    "asyncio",
    "penstock.cli.resume",
    "penstock.cli.run",
    "penstock.history.sqlite",
    "penstock.task_runners.concurrent",
    "penstock.task_runners.processes.runner",
    "tests.faults.workload",
)


def main() -> None:
    """Fork a driver for each order, until there will be no more."""
    for name in (*LOADED, *sys.argv[1:]):
        importlib.import_module(name)
    alarm, ring = os.pipe()
    for end in (alarm, ring):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(ring)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    orders = b""
    while True:
        ready, _, _ = select.select([0, alarm], [], [])
        if alarm in ready:
            with suppress(BlockingIOError):
                os.read(alarm, 4096)
            _tell_ended()
        if 0 in ready:
            arrived = os.read(0, 1 << 16)
            if not arrived:
                return
            *whole, orders = (orders + arrived).split(b"\n")
            for line in whole:
                _fork(json.loads(line), (alarm, ring))


def _tell(**what: Any) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


def _tell_ended() -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _tell(ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))


def _fork(order: dict[str, Any], ours: tuple[int, int]) -> None:
    pid = os.fork()
    if pid:
        _tell(started=order["number"], pid=pid)
        return
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for end in ours:
        os.close(end)
    _settle_in(order)
    # Not `os._exit`: what an interpreter does at its end is a part of what is tested.
    sys.exit(run_app(order["arguments"]))


def _settle_in(order: dict[str, Any]) -> None:
    """Become what a driver is that somebody has just started."""
    os.environ.clear()
    os.environ.update(order["variables"])
    os.chdir(order["folder"])
    output = os.open(order["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(ours, theirs)
    os.close(output)
    os.close(nothing)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv[1:] = order["arguments"]
    random.seed(order["seed"])
    failpoints.FAILPOINTS.update(failpoints.read_failpoints(os.environ))


if __name__ == "__main__":
    main()
