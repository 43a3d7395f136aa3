"""Compare packages of the standard library: a flow that other flows call.

    python examples/subflows.py
    penstock run examples/subflows.py:compare -p first=re

`count_words` is a flow like any other: called, it runs as a subflow and gives its value;
submitted, it runs beside others and gives a future. Each has a flow run of its own.
"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from pathlib import Path

from penstock import flow, tags, task


@task
def words_of(path: str) -> dict[str, int]:
    """Count the names in one file."""
    text = Path(path).read_text("utf-8", errors="replace")
    return Counter(re.findall(r"[A-Za-z_]{4,}", text))


@task
def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    """Add counts up."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


@flow(flow_run_name="words-of-{package}")
def count_words(package: str) -> dict[str, int]:
    """Count the names in all files of a package."""
    folder = Path(sysconfig.get_paths()["stdlib"]) / package
    files = sorted(str(path) for path in folder.glob("*.py"))
    words: dict[str, int] = merge.submit(words_of.map(files)).result()
    return words


@flow
def compare(first: str = "json", second: str = "logging") -> list[str]:
    """Name the words that both packages use, the most frequent first."""
    with tags("comparison"):
        later = count_words.submit(second)
        here = count_words(first)
        there = later.result()
    shared = here.keys() & there.keys()
    return sorted(shared, key=lambda word: (-min(here[word], there[word]), word))


if __name__ == "__main__":
    for word in compare()[:10]:
        print(word)
