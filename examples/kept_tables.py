"""Keep large results: tables of words under names of their own, to be looked at later.

    python examples/kept_tables.py
    penstock result @last words-of-0 | head -c 300

The tables are stored in a folder by the worker processes that make them, and read from there by
the tasks that use them. They are still there when the script has ended.
"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from pathlib import Path

from penstock import flow, run, task
from penstock.task_runners import ProcessPoolTaskRunner

PACKAGES = ("json", "email", "asyncio")


@task(
    persist_result=True,
    result_serializer="json",
    result_storage_key="words/{package}.json",
)
def words_of(package: str) -> dict[str, int]:
    """Count the names in all files of a package."""
    folder = Path(sysconfig.get_paths()["stdlib"]) / package
    counts: Counter[str] = Counter()
    for path in folder.rglob("*.py"):
        counts.update(re.findall(r"[A-Za-z_]{4,}", path.read_text("utf-8", errors="replace")))
    return dict(counts)


@task
def most_used(counts: dict[str, int]) -> str:
    """Give the most frequent name."""
    return max(counts, key=counts.__getitem__)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def tables() -> list[str]:
    """Count the words of some packages, and find the most used one of each."""
    return [most_used.submit(words_of.submit(package)).result() for package in PACKAGES]


if __name__ == "__main__":
    print("most used:", ", ".join(tables()))
    for recorded in run("@last").task_runs(name="words-of"):
        print(f"{recorded.name}: {len(recorded.result()):,} different names, kept")
