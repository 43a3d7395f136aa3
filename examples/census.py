"""Measure Python's own standard library: one task per file, one per package, one for the totals.

    python examples/census.py
    python examples/census.py --runner sequential --limit 200
    python examples/census.py --runner dask
    penstock run examples/census.py -p limit=200
    penstock bench examples/census.py -p limit=200

A file that does not parse (the test suite of Python has some on purpose) is counted, not fatal.
"""

from __future__ import annotations

import argparse
import ast
import os
import sysconfig
import time
import tokenize
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from penstock import flow, get_run_logger, task, task_runners
from penstock.task_runners import BaseTaskRunner, ConcurrentTaskRunner

# The names that `penstock run --runner` takes, of the runners that there are.
RUNNERS = {
    name: class_name
    for name, class_name in {
        "sequential": "SequentialTaskRunner",
        "concurrent": "ConcurrentTaskRunner",
        "process": "ProcessPoolTaskRunner",
        "dask": "DaskTaskRunner",
        "ray": "RayTaskRunner",
    }.items()
    if class_name in task_runners.__all__
}
# Parsing keeps a processor busy: more threads than processors would only stand in each other's way.
THREADS = ConcurrentTaskRunner(max_workers=os.cpu_count())
SHOWN = 20  # packages in the table
SINGLE = "(single modules)"
BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.comprehension,
    ast.Assert,
    ast.match_case,
)

# What the parser thinks of old escapes is not our affair.
warnings.filterwarnings("ignore", category=SyntaxWarning)
warnings.filterwarnings("ignore", category=DeprecationWarning, message="invalid")


@dataclass(frozen=True)
class Measures:
    """What is counted, of a file or of many."""

    files: int = 0
    unparsable: int = 0
    lines: int = 0
    code: int = 0  # lines that are neither empty nor a comment
    functions: int = 0
    classes: int = 0
    complexity: int = 0  # decision points, plus one for each function
    imports: int = 0

    def __add__(self, other: Measures) -> Measures:
        return Measures(*(a + b for a, b in zip(self.row(), other.row(), strict=True)))

    def row(self) -> tuple[int, ...]:
        """Give the counts in the order of the fields."""
        return (
            self.files,
            self.unparsable,
            self.lines,
            self.code,
            self.functions,
            self.classes,
            self.complexity,
            self.imports,
        )


@dataclass(frozen=True)
class Summary:
    """The measures of one package."""

    package: str
    measures: Measures


@task
def measure(path: str) -> Measures:
    """Parse one file and count what is in it."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        tree = ast.parse(source, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        get_run_logger().debug("%s does not parse: %s", path, error)
        return Measures(files=1, unparsable=1)
    return count(source, tree)


def count(source: str, tree: ast.Module) -> Measures:
    """Count lines in the text, and the rest in the tree."""
    lines = [line.strip() for line in source.splitlines()]
    functions = classes = branches = imports = 0
    for node in ast.walk(tree):
        if isinstance(node, BRANCHES):
            branches += 1
        elif isinstance(node, ast.BoolOp):
            branches += len(node.values) - 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            functions += 1
        elif isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports += len(node.names)
    return Measures(
        files=1,
        lines=len(lines),
        code=sum(1 for line in lines if line and not line.startswith("#")),
        functions=functions,
        classes=classes,
        complexity=branches + functions,
        imports=imports,
    )


@task(task_run_name="summarise-{package}")
def summarise(package: str, measures: list[Measures]) -> Summary:
    """Add up the files of one package."""
    return Summary(package, sum(measures, Measures()))


@task
def total(summaries: list[Summary]) -> Measures:
    """Add up the packages."""
    return sum((summary.measures for summary in summaries), Measures())


@flow(task_runner=THREADS)
def census(folder: str | None = None, limit: int | None = None) -> dict[str, int]:
    """Measure every Python file below a folder and print a table by package."""
    started = time.perf_counter()
    root = Path(folder or sysconfig.get_paths()["stdlib"])
    paths = python_files(root, limit)
    packages = defaultdict(list)
    for path, measured in zip(paths, measure.map([str(path) for path in paths]), strict=True):
        packages[package_of(path, root)].append(measured)
    summaries = [summarise.submit(package, packages[package]) for package in sorted(packages)]
    totals = total.submit(summaries).result()
    rows = [summary.result() for summary in summaries]
    print(table(rows, totals))
    print(f"\n{totals.files:,} files of {root} in {time.perf_counter() - started:.1f} s")
    return {"packages": len(rows), "files": totals.files, "lines": totals.lines}


def runner_named(name: str) -> BaseTaskRunner:
    """Make the task runner of a name."""
    if name == "concurrent":
        return THREADS
    runner: BaseTaskRunner = getattr(task_runners, RUNNERS[name])()
    return runner


def python_files(root: Path, limit: int | None) -> list[Path]:
    """Find the source files below a folder; a limit takes files evenly spread over them."""
    found = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    if limit is None or limit >= len(found):
        return found
    return [found[position * len(found) // limit] for position in range(limit)]


def package_of(path: Path, root: Path) -> str:
    """Name the first folder on the way from the root to the file."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else SINGLE


def table(summaries: list[Summary], totals: Measures) -> str:
    """Lay out the largest packages by lines, the others together, and the totals."""
    ordered = sorted(summaries, key=lambda summary: -summary.measures.lines)
    rows = [(summary.package, summary.measures) for summary in ordered[:SHOWN]]
    others = ordered[SHOWN:]
    if others:
        rest = sum((summary.measures for summary in others), Measures())
        rows.append((f"{len(others)} more packages", rest))
    header = ["package", "files", "unparsable", "lines", "code"]
    header += ["functions", "classes", "complexity", "imports"]
    cells = [[name, *(f"{number:,}" for number in measures.row())] for name, measures in rows]
    last = ["total", *(f"{number:,}" for number in totals.row())]
    widths = [max(map(len, column)) for column in zip(header, *cells, last, strict=True)]
    rule = "─" * (sum(widths) + 2 * len(widths) - 2)
    lines = [aligned(header, widths), rule, *(aligned(row, widths) for row in cells)]
    return "\n".join([*lines, rule, aligned(last, widths)])


def aligned(cells: list[str], widths: list[int]) -> str:
    """Put the first cell to the left and the numbers to the right."""
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([cells[0].ljust(widths[0]), *numbers])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the Python files below a folder.")
    parser.add_argument("--runner", choices=RUNNERS, default="concurrent")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N files")
    parser.add_argument("--folder", metavar="PATH", help="default: Python's standard library")
    options = parser.parse_args()
    census.task_runner = runner_named(options.runner)
    census(options.folder, options.limit)


if __name__ == "__main__":
    main()
