"""Ways to kill a driver, for the tests and for the soak."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from penstock.failpoints import NAMES
from tests.faults.drivers import LIMIT, Story

DRIVER_POINTS = (
    "lease.acquire",
    "lease.beat",
    "history.batch_built",
    "history.begin",
    "history.before_commit",
    "history.committed",
    "history.reply",
    "result.temp_written",
    "result.renamed",
    "result.stored",
    "event.completed_buffered",
    "cancel.requested",
    "migrate.step",
)
"""What the driver of a new flow run on threads comes to."""
RESUME_POINTS = (
    "resume.loaded",
    "lease.steal",
    "resume.requeued",
    "history.committed",
)
"""What comes when it is resumed."""
WORKER_POINTS = (
    "worker.received",
    "worker.body_start",
    "worker.body_end",
    "worker.serialised",
    "worker.send",
)
"""Where only a worker dies."""


def hits_of(story: Story) -> dict[str, int]:
    """Run undisturbed, and count how often each failpoint was reached.

    Raises:
        AssertionError: the flow run has not completed.
    """
    code = story.wait(story.run(";".join(f"{name}=sleep:0" for name in NAMES)))
    assert code == 0, story.output()
    return {file.name: file.stat().st_size for file in story.counts.iterdir()}


def crash_at(story: Story, name: str, nth: int) -> int:
    """Have the driver die at the nth time at a place, then resume; gives how it ended.

    0 means that it does not come there so often.
    """
    code = story.wait(story.run(f"{name}=kill@{nth}"))
    assert code in (0, -signal.SIGKILL), story.output()
    if code:
        story.finish()
    return code


def crash_while_resuming(story: Story, points: Sequence[str]) -> int:
    """Have the driver die half-way, then one that resumes at each of these; then resume.

    Returns:
        0 if one of them came to the end, else what the last one ended with.
    """
    code = story.wait(story.run("history.committed=kill@1"))
    assert code == -signal.SIGKILL, story.output()
    for point in points:
        code = story.wait(story.resume(point))
        assert code in (0, -signal.SIGKILL), story.output()
        if code == 0:
            return 0
    story.finish()
    return code


def kill_at_random(story: Story, dice: random.Random, most: int) -> int:
    """Kill the driver at a random moment, and those that resume with a falling chance.

    Args:
        most: drivers that are killed at most.

    Returns:
        How many were killed.
    """
    killed = 0
    while True:
        left = story.left()
        pid = story.resume() if left is not None and left.flow_runs else story.run()
        if killed == most or (killed and dice.random() < 0.4):
            code = story.wait(pid)
            assert code == 0, story.output()
            return killed
        _kill_after(story, pid, dice)
        code = story.wait(pid)
        assert code in (0, -signal.SIGKILL), story.output()
        if code == 0:
            return killed
        killed += 1


def resume_twice(story: Story) -> list[int]:
    """Resume by two drivers at the same instant: both know the flow run, none has claimed it.

    Returns:
        Their exit codes, the smaller one first.
    """
    pids = [story.resume("resume.loaded=stop") for _ in range(2)]
    for pid in pids:
        _wait_until_stopped(pid)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    return sorted(story.wait(pid) for pid in pids)


def freeze(story: Story, dice: random.Random) -> int:
    """Start the flow run, and stop its driver half-way; gives its process id."""
    pid = story.run()
    _wait_for_effects(story, pid, 0, dice)
    os.kill(pid, signal.SIGSTOP)
    _wait_until_stopped(pid)
    story.note_crash()
    return pid


def _wait_until_stopped(pid: int) -> None:
    give_up_at = time.monotonic() + LIMIT
    while _state_of(pid) != "T":
        assert time.monotonic() < give_up_at, f"{pid} is not stopped, but {_state_of(pid)}"
        time.sleep(0.001)


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _kill_after(story: Story, pid: int, dice: random.Random) -> None:
    """Kill a driver once the ledger has grown by some lines, and a little later than that."""
    _wait_for_effects(story, pid, dice.random() * 0.02, dice)
    if not story.warm.has_ended(pid):
        os.kill(pid, signal.SIGKILL)


def _wait_for_effects(story: Story, pid: int, pause: float, dice: random.Random) -> None:
    """Wait until some task bodies more have left evidence, or the driver has ended."""
    ledger = story.folder / "ledger"
    begun = ledger.stat().st_size if ledger.exists() else 0
    # A line has some 80 characters, and a task body leaves two.
    aim = begun + dice.randrange(160 * (story.width * 2 + 15))
    give_up_at = time.monotonic() + LIMIT
    while not story.warm.has_ended(pid) and time.monotonic() < give_up_at:
        if ledger.exists() and ledger.stat().st_size >= aim:
            break
        time.sleep(0.001)
    time.sleep(pause)
