"""The rows of the table that are about resuming."""

from __future__ import annotations

from functools import partial

from bench.probed import probed
from bench.rows import Row

resumed = partial(probed, "bench.resumes")

RESUME_ROWS = [
    Row(
        "resume-done",
        "a task run already done, of 100,000 killed at 90 %",
        "the plain function",
        "µs",
        15,
        partial(resumed, "done", 100_000, most_rounds=3),
    ),
    Row(
        "resume-identities",
        "identities and small results, 10,000 direct calls",
        "recording without",
        "µs",
        8,
        partial(resumed, "identities", 10_000),
        over=True,
    ),
]
