"""Measure the figures that Penstock is held to, each beside its baseline in the same run.

python -m bench                  every row
python -m bench submit history   rows whose name contains one of the words
python -m bench dask             those on a Dask cluster, beside raw Dask
python -m bench pool             those on worker processes, beside Python's own pool
python -m bench ray-             those on Ray, beside raw Ray
python -m bench keep-            those of kept results, beside plain files
python -m bench resume-          those of resuming
python -m bench --quick          fewer rounds, fewer tasks
python -m bench --json FILE      the figures as data, too ("-": on stdout, without the table)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from bench.cached import CACHE_ROWS
from bench.dask_rows import DASK_ROWS
from bench.process_rows import PROCESS_ROWS
from bench.ray_rows import RAY_ROWS
from bench.result_rows import RESULT_ROWS
from bench.resume_rows import RESUME_ROWS
from bench.rows import ROWS, Result, Row, Size

HEADER = ["what", "beside", "baseline", "ours", "lowest - highest", "goal", "ratio", "verdict"]
ALL_ROWS = [*ROWS, *CACHE_ROWS, *DASK_ROWS, *PROCESS_ROWS, *RAY_ROWS, *RESULT_ROWS, *RESUME_ROWS]
RATIO_UNITS = ("µs", "ms", "s")  # of other units the figure is itself a comparison


def chosen_rows(words: list[str]) -> list[Row]:
    """Give the rows whose name contains one of the words; all without words."""
    rows = [row for row in ALL_ROWS if not words or any(word in row.name for word in words)]
    if not rows:
        raise SystemExit(f"No row fits {words}; there are: {', '.join(r.name for r in ALL_ROWS)}")
    return rows


def number(value: float, unit: str) -> str:
    """Write a figure with its unit, to three digits."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def cells_of(result: Result) -> list[str]:
    """Lay a measured row out as text."""
    row, ours = result.row, result.rounds.ours
    ratio = result.ours / result.baseline if result.baseline else 0.0
    is_compared = row.unit in RATIO_UNITS and not row.over
    return [
        row.what,
        row.beside,
        number(result.baseline, row.unit),
        number(result.ours, row.unit),
        f"{number(min(ours), '').strip()} - {number(max(ours), '').strip()}",
        "" if row.goal is None else f"{row.goal:g} {row.unit}",
        f"{ratio:,.{1 if ratio >= 1 else 2}f}" if ratio and is_compared else "",
        result.verdict,
    ]


def table_of(results: list[Result]) -> str:
    """Align the rows; a note stands below its row."""
    cells = [HEADER, *(cells_of(result) for result in results)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    lines.insert(1, "─" * len(lines[0]))
    for position, result in reversed(list(enumerate(results))):
        if result.rounds.notes:
            lines.insert(position + 3, f"    {result.rounds.notes}")
    return "\n".join(line.rstrip() for line in lines)


def machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def measure(rows: list[Row], size: Size) -> list[Result]:
    """Measure one row after the other, saying which."""
    results = []
    for row in rows:
        print(f"measuring {row.name} ...", file=sys.stderr, flush=True)
        results.append(Result(row, row.measure(size)))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="Measure Penstock's figures.")
    parser.add_argument("rows", nargs="*", help="words in the names of rows; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer tasks")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    parser.add_argument("--list", action="store_true", help="name the rows")
    options = parser.parse_args()
    rows = chosen_rows(options.rows)
    if options.list:
        print("\n".join(f"{row.name:16} {row.what}" for row in rows))
        return
    about = machine()
    results = measure(rows, Size.quick() if options.quick else Size.full())
    data = json.dumps({"machine": about, "rows": [r.as_data() for r in results]}, indent=2)
    if options.json == "-":
        print(data)
        return
    print(f"Python {about['python']}, {about['cores']} cores, load {about['load']:.1f} before\n")
    print(table_of(results))
    if options.json:
        Path(options.json).write_text(data + "\n")


if __name__ == "__main__":
    main()
