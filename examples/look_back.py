"""Look back at recorded runs: what failed, what took longest, what came out.

    python examples/look_back.py

Everything is read from the history, so it works in another process and another day just as well:
run this file twice, and the first run is there, too.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import penstock
from penstock import flow, get_run_logger, task

MODULES = ["json.decoder", "email.message", "argparse", "no_such_module", "ast"]


@task
def longest_line(module: str) -> int:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise LookupError(f"there is no module {module}")
    lines = Path(found.origin).read_text("utf-8").splitlines()
    get_run_logger().info("%s has %d lines", module, len(lines))
    return max(map(len, lines))


@flow
def longest_lines(modules: list[str] = MODULES) -> None:
    longest_line.map(modules, return_state=True)  # looked at: a failure does not fail the flow


def look_back() -> None:
    run = penstock.run("@last")
    print(f"{run.flow} {run.name}: {run.state.name}, {run.duration:.3f} s, {run.counts}")

    for failed in run.task_runs(state="failed"):
        assert failed.error is not None
        print(f"{failed.name} failed: {failed.error['message']}")

    completed = list(run.task_runs(state="completed"))
    slowest = max(completed, key=lambda task_run: task_run.duration or 0)
    print(f"slowest: {slowest.name} with {slowest.parameters['module']}")
    print(f"longest line: {max(task_run.result() for task_run in completed)} characters")

    for line in run.logs(task=slowest.name):
        print(f"{line.at:%H:%M:%S} {line.message}")

    print(f"runs of this flow so far: {len(penstock.runs(flow=run.flow))}")


if __name__ == "__main__":
    longest_lines()
    look_back()
