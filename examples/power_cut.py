"""Survive a power cut: the process dies in the middle, and the next one goes on from there.

    python examples/power_cut.py

The flow counts lines of Python's standard library, a package at a time. The first process ends
itself half-way, as `kill -9` would. The second one resumes the flow run: packages that had been
counted are not counted again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from penstock import flow, task

LIBRARY = Path(os.__file__).parent
PACKAGES = ["asyncio", "collections", "concurrent", "email", "html", "http", "json", "logging"]


@task
def count_lines(package: str) -> int:
    print(f"  process {os.getpid()} counts {package}", flush=True)
    files = (LIBRARY / package).rglob("*.py")
    return sum(len(file.read_bytes().splitlines()) for file in files)


@flow
def survey(packages: list[str]) -> int:
    total = 0
    for number, package in enumerate(packages):
        if number == len(packages) // 2 and os.environ.get("POWER_CUT"):
            time.sleep(0.2)  # what ended in the last tenth of a second is not yet on the disk
            os._exit(9)
        total += count_lines(package)
    return total


if __name__ == "__main__":
    if os.environ.get("POWER_CUT"):
        survey(PACKAGES)
    else:
        print("The first process:", flush=True)
        cut = {**os.environ, "POWER_CUT": "yes"}
        died = subprocess.run([sys.executable, __file__], env=cut, check=False)
        print(f"It died with exit code {died.returncode}. The second one:", flush=True)
        print(f"{survey.resume('@last'):,} lines in {len(PACKAGES)} packages")
