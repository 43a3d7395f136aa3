"""What a DaskTaskRunner says and opens in real flow runs."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, task
from penstock.task_runners import DaskTaskRunner
from tests.task_runners.dask.driving import THREADS
from tests.task_runners.dask.external import ExternalCluster
from tests.task_runners.dask.test_cluster import CREATING, cluster_elsewhere

pytestmark = pytest.mark.timeout(90)


@task
def double(number: int) -> int:
    return 2 * number


def run(runner: DaskTaskRunner) -> Any:
    @flow(task_runner=runner)
    def example() -> Any:
        return double.map(range(20))

    assert example() == [2 * number for number in range(20)]


class Records(logging.Handler):
    """Keep level and message. Not caplog: a LocalCluster raises the level of its handler."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


@pytest.fixture
def lines() -> Iterator[list[tuple[str, str]]]:
    logger, handler = logging.getLogger("penstock.task_runner.dask"), Records()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    "options", [{}, {"cluster_class": "distributed.LocalCluster"}, {"adapt_kwargs": {"maximum": 1}}]
)
def test_lines_of_a_temporary_cluster(
    options: dict[str, Any], lines: list[tuple[str, str]]
) -> None:
    run(DaskTaskRunner(cluster_kwargs=THREADS, **options))
    first, second = lines
    assert first == ("INFO", CREATING)
    assert second[0] == "INFO"
    assert second[1].startswith("The Dask dashboard is available at http://127.0.0.1:")


def test_two_flow_runs_at_once_on_one_address(
    external: ExternalCluster, lines: list[tuple[str, str]]
) -> None:
    threads = [
        threading.Thread(target=run, args=(DaskTaskRunner(address=external.address),))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = ("INFO", f"Connecting to an existing Dask cluster at {external.address}")
    assert lines.count(said) == 2
    assert external.scheduler.poll() is None
    assert [worker.poll() for worker in external.workers] == [None]


def test_cluster_object_stays_open(lines: list[tuple[str, str]]) -> None:
    with cluster_elsewhere() as cluster:
        said = f"Connecting to existing Dask cluster {cluster}"
        runner = DaskTaskRunner(cluster=cluster, adapt_kwargs={"minimum": 1, "maximum": 2})
        run(runner)
        run(runner)
        assert lines[0] == ("INFO", said)
        assert cluster.status.name == "running"


def test_performance_report(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    run(DaskTaskRunner(cluster_kwargs=THREADS, performance_report_path=target))
    assert "double" in target.read_text("utf-8")


def test_no_worker_of_this_process_is_kept() -> None:
    from distributed import Worker, core

    from penstock.task_runners.dask import worker

    def workers() -> list[Worker]:
        return [one for one in gc.get_objects() if type(one) is Worker]

    before = {id(one) for one in workers()}  # of other tests, whose tracebacks may hold them
    for _ in range(2):
        run(DaskTaskRunner(cluster_kwargs=THREADS))
    core._expects_comm.cache_clear()  # Dask itself keeps them in it
    gc.collect()
    assert not [one for one in workers() if id(one) not in before]
    assert not [one for one in worker._ports if id(one) not in before]
