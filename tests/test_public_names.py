"""The names that users import: there, documented, loaded on first use, and no others."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys

import pytest

PUBLIC = {
    "penstock": [
        "Flow",
        "State",
        "StateType",
        "Task",
        "TaskFuture",
        "allow_failure",
        "as_completed",
        "flow",
        "get_run_context",
        "get_run_logger",
        "quote",
        "run",
        "runs",
        "tags",
        "task",
        "unmapped",
        "wait",
        "wait_async",
    ],
    "penstock.task_runners": [
        "BaseTaskRunner",
        "ConcurrentTaskRunner",
        "DaskTaskRunner",
        "ProcessPoolTaskRunner",
        "RayTaskRunner",
        "SequentialTaskRunner",
        "TaskConcurrencyType",
        "get_async_dask_client",
        "get_dask_client",
        "remote_options",
    ],
    "penstock.states": [
        "Cancelled",
        "Completed",
        "Crashed",
        "Failed",
        "Pending",
        "Running",
        "exception_to_crashed_state",
    ],
    "penstock.tasks": ["exponential_backoff"],
    "penstock.testing": ["TaskRunnerContract"],
}
# Modules whose `__all__` is exactly the list above.
COMPLETE = ["penstock", "penstock.task_runners"]
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_name_is_there_and_documented(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    assert (inspect.getdoc(value) or "").strip(), f"{module}.{name} has no docstring"


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_docstring_opens_with_one_sentence(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    first = (inspect.getdoc(value) or "").splitlines()[0]
    assert first[:1].isupper() or first.startswith("`")
    assert first.endswith((".", ":"))


@pytest.mark.parametrize("module", COMPLETE)
def test_all_is_complete_and_sorted(module: str) -> None:
    listed = list(importlib.import_module(module).__all__)
    assert sorted(name for name in listed if not name.startswith("__")) == PUBLIC[module]
    assert listed == sorted(listed)


@pytest.mark.parametrize("module", COMPLETE)
def test_dir_shows_the_public_names(module: str) -> None:
    assert set(PUBLIC[module]) <= set(dir(importlib.import_module(module)))


@pytest.mark.parametrize("module", COMPLETE)
def test_unknown_name_is_an_attribute_error(module: str) -> None:
    loaded = importlib.import_module(module)
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'flwo'"):
        loaded.flwo  # noqa: B018


def test_version_is_the_distribution_s() -> None:
    import penstock

    assert penstock.__version__ == importlib.metadata.version("penstock")


def test_package_is_typed() -> None:
    assert importlib.resources.files("penstock").joinpath("py.typed").is_file()


@pytest.mark.parametrize("module", PUBLIC)
def test_star_import_works_in_a_fresh_process(module: str) -> None:
    names = ", ".join(PUBLIC[module])
    code = f"from {module} import {names}\nfrom {module} import *"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_names_are_the_same_objects_where_they_are_made() -> None:
    import penstock
    from penstock import flows, tasks

    assert penstock.flow is flows.flow
    assert penstock.task is tasks.task
