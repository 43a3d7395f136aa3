"""A script that dies when it is told to: what it did is in a ledger, a line for each call."""

from __future__ import annotations

import os
import time
from typing import Any

from penstock import flow, task

LEDGER = os.environ.get("LEDGER", os.devnull)


def note(text: str) -> None:
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{text}\n".encode())
    os.close(file)


@task
def double(x: int) -> int:
    note(f"double {x}")
    return 2 * x


@task
def nested(x: int) -> int:
    """Call a task, and be killed before the end."""
    first = double(x + 100)
    note(f"nested {x}")
    wait_for_death("nested")
    return first + 1


@task
def spread(x: int) -> int:
    """Submit tasks."""
    futures = [double.submit(10 * x + 200 + i) for i in range(2)]
    note(f"spread {x}")
    return sum(future.result() for future in futures)


@flow
def inner(x: int) -> int:
    first = double(x + 300)
    second = double.submit(x + 400).result()
    wait_for_death("inner")
    return first + second


@flow
def main(n: int, token: str = "none") -> int:
    values = [double.submit(i) for i in range(n)]
    values += [spread.submit(i) for i in range(2)]
    called = inner(1)
    submitted = inner.submit(2).result()
    values += [nested.submit(i) for i in range(2)]
    total = sum(future.result() for future in values)
    wait_for_death("end")
    return total + called + submitted


EXPECTED = 2 * sum(range(4)) + (400 + 402 + 420 + 422) + (201 + 203) + (602 + 802) + (604 + 804)


def wait_for_death(where: str) -> None:
    """Hold still where the driver is to be killed, once what was done is on the disk."""
    if os.environ.get("DIE_IN") == where:
        time.sleep(0.5)
        note("ready")
        time.sleep(60)


if __name__ == "__main__":
    import sys

    run: Any = main
    print(main.resume("@last") if "--resume" in sys.argv else main(4))
