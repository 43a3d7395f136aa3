"""What Ray says when a bundle could not be executed, in the words of Penstock."""

from __future__ import annotations

from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
    WorkerCrashedError,
)

from penstock.errors import EngineError, WorkerLost
from penstock.remote.recovery import Unrun
from penstock.states import describe_exception

_MOST_CHARACTERS = 600


def explained(problem: BaseException, worker: str | None) -> BaseException:
    """Say what it means that the Ray task of a bundle has failed.

    Args:
        worker: what had begun the bundle, as far as known.
    """
    named = f"The Ray worker {worker}" if worker else "A Ray worker"
    if isinstance(problem, OutOfMemoryError):
        return WorkerLost(
            f"{named} was killed while it had the task run, because its node was short of memory "
            f"(oom_suspected): {_first_lines(problem)}"
        )
    if isinstance(problem, NodeDiedError):
        return WorkerLost(f"{named} died with its node while it had the task run.")
    if isinstance(problem, WorkerCrashedError):
        return WorkerLost(f"{named} died while it had the task run.")
    if isinstance(problem, RuntimeEnvSetupError):
        return EngineError(
            f"Ray could not set up the `runtime_env` of the task run: {_first_lines(problem)}"
        )
    if isinstance(problem, TaskUnschedulableError):
        return EngineError(f"Ray can place the task run nowhere: {_first_lines(problem)}")
    return _of_the_task(problem)


def _of_the_task(problem: BaseException) -> BaseException:
    """Explain what our own Ray task raised before it could report."""
    cause = problem.cause if isinstance(problem, RayTaskError) else problem
    text = str(problem)
    if isinstance(cause, ImportError) or "No module named" in text:
        said = describe_exception(cause) if isinstance(cause, ImportError) else _module_in(text)
        return ImportError(
            f"{said} on a Ray worker: the same release of Penstock must be installed there."
        )
    if isinstance(problem, RayTaskError | RaySystemError):
        return EngineError(f"Ray could not run the task run: {describe_exception(cause)}")
    return Unrun(f"Ray gave up the task run: {describe_exception(problem)}")


def _module_in(text: str) -> str:
    return next(line for line in text.splitlines() if "No module named" in line).strip()


def _first_lines(problem: BaseException) -> str:
    text = " ".join(str(problem).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"
