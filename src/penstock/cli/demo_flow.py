"""The flow of `penstock demo`: measure modules of the standard library; two things go wrong."""

from __future__ import annotations

import ast
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.annotations import allow_failure
from penstock.flows import flow
from penstock.runtime.context import get_run_context
from penstock.runtime.logs import get_run_logger
from penstock.tasks import task

MODULES = 60
BROKEN = "broken.py"


@dataclass(frozen=True)
class Measures:
    """What was found in one module."""

    name: str
    lines: int
    functions: int


@task
def find_modules(number: int) -> list[Path]:
    """List modules of the standard library, and one that is not there as it should be."""
    found = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:number]
    return [*found[: number // 2], Path(BROKEN), *found[number // 2 :]]


@task(retries=2, retry_delay_seconds=0.2)
def read(path: Path) -> str:
    """Read a module; every tenth one fails at first, as a network would."""
    if path.name == BROKEN:
        return "def broken(:\n"
    run = get_run_context().task_run
    if run is not None and run.attempt == 1 and len(path.stem) % 10 == 0:
        get_run_logger().warning("The line to %s was cut, on purpose.", path.name)
        raise ConnectionError("the line was cut")
    return path.read_text("utf-8", errors="replace")


@task
def measure(path: Path, source: str) -> Measures:
    """Parse a module and count."""
    tree = ast.parse(source, path.name)
    functions = sum(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
    return Measures(path.stem, source.count("\n"), functions)


@task
def add_up(measures: list[Measures | Exception]) -> str:
    """Make the report of all that could be measured."""
    good = [each for each in measures if isinstance(each, Measures)]
    largest = max(good, key=lambda each: each.lines)
    get_run_logger().info("Measured %d of %d modules.", len(good), len(measures))
    return (
        f"{len(good)} modules with {sum(each.lines for each in good):,} lines and "
        f"{sum(each.functions for each in good):,} functions; the largest is {largest.name}"
    )


@flow
def module_report(modules: int = MODULES) -> str:
    """Measure modules of the standard library."""
    paths = find_modules(modules)
    sources = read.map(paths)
    measures = measure.map(paths, sources)
    measured: Any = allow_failure(measures)
    report: str = add_up(measured)
    return report
