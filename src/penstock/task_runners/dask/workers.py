"""Check that a cluster's workers can run our work, before any is sent."""

from __future__ import annotations

import asyncio
import builtins
import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import dask.config
import distributed
from dask.utils import parse_timedelta

from penstock.errors import EngineError
from penstock.version import __version__

# Sent as text and evaluated by `builtins.eval`: a function of ours cannot be loaded where there
# is no Penstock, nor the byte code of one Python version in another.
PROBE = """
def look():
    import platform, socket
    found = {"host": socket.gethostname(), "python": platform.python_version()}
    try:
        import penstock
        import penstock.task_runners.dask.worker  # so that the first task finds it loaded
        found["penstock"] = penstock.__version__
    except Exception as exc:
        found["problem"] = type(exc).__name__ + ": " + str(exc)
    try:
        import cloudpickle
        found["cloudpickle"] = cloudpickle.__version__
    except Exception:
        pass
    return found
found = look()
"""
EXPRESSION = f"(lambda names: (exec({PROBE!r}, names), names['found'])[1])({{}})"


async def check_workers(client: distributed.Client, logger: logging.Logger | None = None) -> None:
    """Ask every worker for its versions; a few milliseconds.

    A different Penstock or cloudpickle only gives a warning, and so does a worker that is too
    busy to answer within the connection time limit.

    Raises:
        EngineError: workers without Penstock, or with another minor version of Python.
    """
    logger = logger or logging.getLogger("penstock.task_runner.dask")
    limit = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"), "s")
    try:
        async with asyncio.timeout(limit):
            answers = await client.run(builtins.eval, EXPRESSION, on_error="return")
    except TimeoutError:
        logger.warning("Not every Dask worker told its versions within %g seconds.", limit)
        return
    # An error is a worker that went away meanwhile.
    found = {worker: said for worker, said in answers.items() if isinstance(said, dict)}
    problems = [text for worker, said in found.items() if (text := _problem(worker, said))]
    if problems:
        raise EngineError(
            "These Dask workers cannot run tasks of this process: " + "; ".join(problems) + ". "
            f"Install penstock {__version__} with Python {_python_here()} there."
        )
    for worker, said in found.items():
        _warn_of_versions(worker, said, logger)


def _problem(worker: str, said: dict[str, Any]) -> str | None:
    name = f"{worker} on host {said['host']}"
    if _minor(said["python"]) != _minor(_python_here()):
        return f"{name} has Python {said['python']}, not {_python_here()}"
    if "problem" in said:
        return f"{name} cannot import Penstock ({said['problem']})"
    return None


def _warn_of_versions(worker: str, said: dict[str, Any], logger: logging.Logger) -> None:
    here = {"penstock": __version__, "cloudpickle": _version_of("cloudpickle")}
    for package, wanted in here.items():
        there = said.get(package)
        if _minor(there or "") != _minor(wanted):
            logger.warning(
                "The Dask worker %s on host %s has %s %s; here it is %s.",
                worker,
                said["host"],
                package,
                there,
                wanted,
            )


def _minor(text: str) -> list[str]:
    return text.split(".")[:2]


def _python_here() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
