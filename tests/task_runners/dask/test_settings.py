"""DaskTaskRunner: its settings, without any cluster."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from penstock.errors import InvalidOptionError
from penstock.task_runners import DaskTaskRunner, TaskConcurrencyType
from penstock.task_runners.dask.runner import ClusterElsewhere

ADDRESS = "tcp://127.0.0.1:8786"


class Cluster:
    """What a running cluster object looks like to the settings."""

    asynchronous = True
    scheduler_address = ADDRESS

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def make_cluster(**kwargs: Any) -> Any:
    return kwargs


PLACE = "Cannot specify `address` and `cluster`/`cluster_class`/`cluster_kwargs`/`adapt_kwargs`"
BOTH = "Cannot specify `cluster` and `cluster_class`/`cluster_kwargs`"
MANAGED = "cannot set `asynchronous`. This option is managed by Penstock."
MUTE = Cluster(asynchronous=False)
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"address": ADDRESS, "cluster": Cluster()}, PLACE),
    ({"address": ADDRESS, "cluster_class": make_cluster}, PLACE),
    ({"address": ADDRESS, "cluster_kwargs": {"n_workers": 1}}, PLACE),
    ({"address": ADDRESS, "adapt_kwargs": {"maximum": 1}}, PLACE),
    ({"cluster": Cluster(), "cluster_class": make_cluster}, BOTH),
    ({"cluster": Cluster(), "cluster_kwargs": {"n_workers": 1}}, BOTH),
    (
        {"cluster": MUTE},
        "The cluster must have `asynchronous=True` to be used with `DaskTaskRunner`. "
        "For a synchronous one pass `address=cluster.scheduler_address` instead.",
    ),
    ({"client_kwargs": {"asynchronous": True}}, f"`client_kwargs` {MANAGED}"),
    ({"cluster_kwargs": {"asynchronous": True}}, f"`cluster_kwargs` {MANAGED}"),
    # The first that applies is said.
    ({"address": ADDRESS, "cluster": MUTE, "client_kwargs": {"asynchronous": 1}}, PLACE),
    ({"cluster": MUTE, "cluster_kwargs": {"asynchronous": True}}, BOTH),
    ({"cluster": MUTE, "client_kwargs": {"asynchronous": True}}, "The cluster must have"),
    (
        {"client_kwargs": {"asynchronous": 1}, "cluster_kwargs": {"asynchronous": 1}},
        f"`client_kwargs` {MANAGED}",
    ),
    # What no other check names.
    ({"address": 8786}, "`address` is 8786; it must be a scheduler's address as text"),
    ({"address": " "}, "`address` is ' '; it must be"),
    ({"cluster_kwargs": ["n_workers"]}, "it must be a dictionary of keyword arguments"),
    ({"cluster_class": 3}, "`cluster_class` is 3; it must be a class, a callable, or an"),
    ({"cluster_class": "penstock.nothing"}, "which cannot be imported"),
    ({"cluster_class": "Nameless"}, "it names no module"),
    ({"cluster_class": "no_such_module.Cluster"}, "No module named 'no_such_module'"),
    ({"cluster_class": "sys.version"}, "`cluster_class` is 'sys.version'; it must be a class"),
    ({"performance_report_path": 3}, "it must be the path of a file to write"),
    ({"bundle": 3}, "`bundle` is 3; it must be True or False."),
]


@pytest.mark.parametrize(("settings", "text"), WRONG)
def test_wrong_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        DaskTaskRunner(**settings)
    assert isinstance(caught.value, ValueError)
    assert text in str(caught.value)


def test_defaults() -> None:
    runner = DaskTaskRunner()
    assert runner.name == "dask"
    assert str(runner) == "DaskTaskRunner"
    assert repr(runner) == "DaskTaskRunner()"
    assert runner.logger.name == "penstock.task_runner.dask"
    assert runner.suspends
    assert (runner.cluster, runner.address, runner.cluster_class) == (None, None, None)
    assert (runner.cluster_kwargs, runner.adapt_kwargs, runner.client_kwargs) == ({}, {}, {})
    assert (runner.performance_report_path, runner.bundle) == (None, True)
    assert (runner.scheduler_address, runner.security) == (None, None)


def test_keywords_are_copied() -> None:
    kwargs = {"n_workers": 1}
    runner = DaskTaskRunner(cluster_kwargs=kwargs, adapt_kwargs=kwargs, client_kwargs=kwargs)
    copy = runner.duplicate()
    kwargs["n_workers"] = 2
    copy.cluster_kwargs["n_workers"] = 3
    held = [runner.cluster_kwargs, runner.adapt_kwargs, runner.client_kwargs]
    assert held == [{"n_workers": 1}] * 3


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"cluster": Cluster()},
    {"cluster": Cluster(number=2)},
    {"address": ADDRESS},
    {"cluster_class": make_cluster},
    {"cluster_kwargs": {"n_workers": 2}},
    {"adapt_kwargs": {"maximum": 2}},
    {"client_kwargs": {"timeout": 2}},
    {"performance_report_path": "report.html"},
    {"bundle": False},
]


@pytest.mark.parametrize("settings", DIFFERENT, ids=lambda one: "-".join(one) or "none")
def test_duplicate_and_equality_cover_every_setting(settings: dict[str, Any]) -> None:
    runner = DaskTaskRunner(**settings)
    copy = runner.duplicate()
    assert copy is not runner
    assert copy == runner
    assert hash(copy) == hash(runner)
    assert copy.cluster is runner.cluster
    equal = [DaskTaskRunner(**other) == runner for other in DIFFERENT]
    assert equal.count(True) == 1
    assert repr(runner).count("=") >= len(settings)


def test_duplicate_in_a_thread_without_the_loop_of_the_cluster() -> None:
    """Dask's own property says False there."""

    class Elsewhere(Cluster):
        asynchronous = False
        _Cluster__asynchronous = True

    runner = DaskTaskRunner(cluster=Elsewhere())
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(runner.duplicate).result() == runner


def test_import_path_of_a_cluster_class() -> None:
    runner = DaskTaskRunner(cluster_class="collections.OrderedDict")
    from collections import OrderedDict

    assert runner.cluster_class is OrderedDict
    assert runner == DaskTaskRunner(cluster_class=OrderedDict)


PARALLEL, CONCURRENT = TaskConcurrencyType.PARALLEL, TaskConcurrencyType.CONCURRENT


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, PARALLEL),
        ({"cluster_kwargs": {"processes": True}}, PARALLEL),
        ({"cluster_kwargs": {"processes": None}}, PARALLEL),
        ({"cluster_kwargs": {"processes": False}}, CONCURRENT),
        ({"address": ADDRESS}, PARALLEL),
        ({"address": "inproc://192.0.2.2/1/1"}, CONCURRENT),
        ({"cluster": Cluster()}, PARALLEL),
        ({"cluster": Cluster(processes=True)}, PARALLEL),
        ({"cluster": Cluster(processes=False)}, CONCURRENT),
    ],
)
def test_concurrency_type(settings: dict[str, Any], expected: TaskConcurrencyType) -> None:
    assert DaskTaskRunner(**settings).concurrency_type is expected


@pytest.mark.parametrize("settings", [one for one in DIFFERENT if "cluster" not in one])
def test_settings_travel(settings: dict[str, Any]) -> None:
    runner = DaskTaskRunner(**settings)
    assert cloudpickle.loads(cloudpickle.dumps(runner)) == runner
    assert pickle.loads(pickle.dumps(runner)) == runner


def test_copy_of_a_runner_on_a_cluster_object_equals_it() -> None:
    """The object stays where it is; what stands for it has the address of its scheduler."""
    security = SimpleNamespace(require_encryption=True)
    cluster = Cluster(security=security, processes=False)
    runner = DaskTaskRunner(cluster=cluster, adapt_kwargs={"maximum": 2})
    copy = pickle.loads(pickle.dumps(runner))
    assert copy == runner == copy.duplicate() == pickle.loads(pickle.dumps(copy))
    assert isinstance(copy.cluster, ClusterElsewhere)
    assert repr(copy.cluster) == f"ClusterElsewhere({ADDRESS!r})"
    assert (copy.scheduler_address, copy.cluster.security) == (ADDRESS, security)
    assert copy.concurrency_type is runner.concurrency_type is CONCURRENT
    assert runner.cluster is cluster
    assert copy != DaskTaskRunner(cluster=Cluster(scheduler_address="tcp://127.0.0.1:9"))
    assert copy != DaskTaskRunner(address=ADDRESS)


WITHOUT_DISTRIBUTED = """
import asyncio, sys
sys.modules["distributed"] = sys.modules["dask"] = None
from penstock.errors import MissingDependencyError
from penstock.task_runners import DaskTaskRunner, get_dask_client, get_async_dask_client
runner = DaskTaskRunner(cluster_kwargs={"n_workers": 1})
runner.duplicate(), repr(runner), runner.concurrency_type
assert {name for name in sys.modules if name.startswith("dask")} == {"dask"}
text = (
    "Using the `DaskTaskRunner` requires `distributed`; "
    'install it with: pip install "penstock[dask]"'
)

async def start():
    async with runner.start():
        pass

def client():
    with get_dask_client():
        pass

for use in (lambda: asyncio.run(start()), client):
    try:
        use()
    except MissingDependencyError as exc:
        assert str(exc) == text, exc
    else:
        raise SystemExit("no error")
"""


def test_missing_extra_is_said_on_use(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_DISTRIBUTED],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
