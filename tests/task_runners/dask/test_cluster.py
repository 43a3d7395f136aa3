"""DaskTaskRunner on real clusters: what it opens, says and leaves behind."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.config
import distributed
import pytest

from penstock.errors import (
    EngineError,
    EngineUnreachable,
    InvalidOptionError,
    MissingDependencyError,
)
from penstock.task_runners import DaskTaskRunner
from penstock.task_runners.dask import cluster as cluster_side
from penstock.task_runners.dask.workers import check_workers
from penstock.testing.ledger import wait_until
from tests.task_runners.dask.driving import THREADS, add, started
from tests.task_runners.dask.external import ExternalCluster

pytestmark = pytest.mark.timeout(90)
CREATING = "Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`"


class Lines(logging.Handler):
    """Keep messages. Not caplog: a LocalCluster raises the level of stream handlers it can see."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    logger, handler = logging.getLogger("penstock.task_runner.dask"), Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: handler.messages
    logger.setLevel(level)
    logger.removeHandler(handler)


def listeners() -> set[str]:
    """Give the addresses, in hexadecimal, that any process here listens on."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found.add(fields[1])
    return found


# --- a cluster of our own ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "has_dashboard"),
    [
        ({"n_workers": 1, "threads_per_worker": 1}, True),
        (THREADS, True),
        ({**THREADS, "dashboard_address": ":0"}, True),
        ({**THREADS, "dashboard_address": None}, False),
    ],
    ids=["processes", "threads", "port-only", "no-dashboard"],
)
def test_temporary_cluster(
    kwargs: dict[str, Any], has_dashboard: bool, lines: Callable[[], list[str]]
) -> None:
    runner = DaskTaskRunner(cluster_kwargs=kwargs)
    before = listeners()

    async def use(client: Any) -> tuple[Any, set[str], DaskTaskRunner]:
        assert runner.scheduler_address == client.scheduler.address
        assert runner.security is not None
        return await add(client), listeners() - before, pickle.loads(pickle.dumps(runner))

    value, opened, copy = started(runner, use)
    assert value == 3
    assert [one for one in opened if not one.startswith("0100007F:")] == []
    assert opened
    assert lines()[0] == CREATING
    said = [re.fullmatch(r"The Dask dashboard is available at (\S+)", one) for one in lines()[1:]]
    assert len(said) == has_dashboard
    assert all(one is not None and "//127.0.0.1:" in one[1] for one in said)
    assert (runner.scheduler_address, runner.security) == (None, None)
    assert copy == runner
    assert copy.scheduler_address is not None


def address_of_nested() -> str | None:
    runner = DaskTaskRunner()

    async def main() -> str | None:
        async with runner.start():
            return runner.scheduler_address

    return asyncio.run(main())


def test_runner_on_a_worker_uses_the_cluster_of_the_worker() -> None:
    """The worker is a daemonic process, which cannot start worker processes of its own."""

    async def use(client: Any) -> None:
        assert await client.submit(address_of_nested) == client.scheduler.address

    started(DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1}), use)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (":8787", "127.0.0.1:8787"),
        (8787, "127.0.0.1:8787"),
        ("0", "127.0.0.1:0"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        (":1,:2", "127.0.0.1:1,127.0.0.1:2"),
        ([1, ":2"], ["127.0.0.1:1", "127.0.0.1:2"]),
    ],
)
def test_dashboard_address_without_host(given: Any, expected: Any) -> None:
    assert cluster_side._local_kwargs({"dashboard_address": given})["dashboard_address"] == expected


@pytest.mark.parametrize(
    ("given", "preload", "argv"),
    [
        ({}, [], []),
        ({"preload": "mine"}, ["mine"], [[]]),
        ({"preload": ["mine", "other"], "preload_argv": ["--x"]}, ["mine", "other"], [["--x"]] * 2),
        ({"preload": ["mine"], "preload_argv": [["--x"]]}, ["mine"], [["--x"]]),
    ],
)
def test_preloads_of_the_user_are_kept(
    given: dict[str, Any], preload: list[str], argv: list[list[str]]
) -> None:
    kwargs = cluster_side._local_kwargs(given)
    assert kwargs["preload"] == ["penstock.task_runners.dask.terminal", *preload]
    assert kwargs["preload_argv"] == [[], *argv]


class StandIn:
    """A cluster class of the user's, in front of a scheduler that runs already."""

    scheduler_address = ""
    events: list[Any]

    def __init__(self, *, asynchronous: bool, **kwargs: Any) -> None:
        assert asynchronous
        self.events = kwargs["events"]
        self.events.append("made")

    async def __aenter__(self) -> StandIn:
        self.events.append("opened")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.events.append("closed")

    def adapt(self, **kwargs: Any) -> Any:
        async def later() -> None:
            await asyncio.sleep(0)
            self.events.append(kwargs)

        return later()


def test_cluster_class_and_awaitable_adapt(
    external: ExternalCluster, monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(StandIn, "scheduler_address", external.address)
    events: list[Any] = []
    runner = DaskTaskRunner(
        cluster_class=f"{__name__}.StandIn",
        cluster_kwargs={"events": events},
        adapt_kwargs={"minimum": 1, "maximum": 2},
    )
    assert started(runner, add) == 3
    assert events == ["made", "opened", {"minimum": 1, "maximum": 2}, "closed"]
    assert lines()[0] == f"Creating a new Dask cluster with `{__name__}.StandIn`"


def test_opened_half_way_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "scheduler_address", "tcp://127.0.0.1:9")
    events: list[Any] = []
    runner = DaskTaskRunner(
        cluster_class=StandIn, cluster_kwargs={"events": events}, client_kwargs={"timeout": 0.2}
    )
    with pytest.raises(EngineUnreachable):
        started(runner, add)
    assert events == ["made", "opened", "closed"]


def test_cluster_that_cannot_be_made() -> None:
    with pytest.raises(EngineError, match="could not be started with `.*StandIn`: KeyError"):
        started(DaskTaskRunner(cluster_class=StandIn), add)


def test_adaptive_scaling_of_our_own() -> None:
    runner = DaskTaskRunner(
        cluster_kwargs={**THREADS, "n_workers": 0}, adapt_kwargs={"minimum": 1, "maximum": 1}
    )
    assert started(runner, add) == 3


# --- a scheduler that runs already ---------------------------------------------------------------


def test_address(external: ExternalCluster, lines: Callable[[], list[str]]) -> None:
    assert started(DaskTaskRunner(address=external.address), add) == 3
    assert lines()[0] == f"Connecting to an existing Dask cluster at {external.address}"
    assert external.scheduler.poll() is None
    assert external.workers[0].poll() is None


def test_nobody_at_the_address() -> None:
    runner = DaskTaskRunner(address="tcp://127.0.0.1:9", client_kwargs={"timeout": 0.3})
    began = time.monotonic()
    with pytest.raises(EngineUnreachable, match="No Dask scheduler answers") as caught:
        started(runner, add)
    assert time.monotonic() - began < 10
    assert isinstance(caught.value, ConnectionError)
    assert "'tcp://127.0.0.1:9' (tried for 0.3 seconds)" in str(caught.value)
    assert "Check the address and that the scheduler runs" in str(caught.value)


def test_scheduler_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        runner = DaskTaskRunner(address=address, client_kwargs={"timeout": 0.3})
        began = time.monotonic()
        with pytest.raises(EngineUnreachable, match="No Dask scheduler answers"):
            started(runner, add)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("address", ["nonsense://here:1", "tcp://no-such-host.invalid:1"])
def test_address_that_means_nothing(address: str) -> None:
    runner = DaskTaskRunner(address=address, client_kwargs={"timeout": 0.3})
    with pytest.raises(EngineUnreachable, match=re.escape(repr(address))):
        started(runner, add)


# --- a cluster object ----------------------------------------------------------------------------


@contextmanager
def cluster_elsewhere() -> Iterator[Any]:
    """Give an asynchronous cluster that lives on the loop of another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    async def make() -> Any:
        local: Any = distributed.LocalCluster
        return await local(
            asynchronous=True, dashboard_address="127.0.0.1:0", protocol="tcp", **THREADS
        )

    async def close() -> None:
        await cluster.close()

    cluster = call(make())
    try:
        yield cluster
    finally:
        call(close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_cluster_object(lines: Callable[[], list[str]]) -> None:
    with cluster_elsewhere() as cluster:
        runner = DaskTaskRunner(cluster=cluster, adapt_kwargs={"minimum": 2, "maximum": 2})
        assert started(runner, add) == 3
        assert started(runner.duplicate(), add) == 3
        assert lines()[0] == f"Connecting to existing Dask cluster {cluster}"
        wait_until(lambda: len(cluster.scheduler_info["workers"]) == 2)
        assert cluster.status.name == "running"
        copy = pickle.loads(pickle.dumps(runner))
        assert copy == runner == copy.duplicate()
        assert started(copy, add) == 3
    with pytest.raises(EngineError, match="is closed. Pass a cluster that runs."):
        started(runner, add)


def test_cluster_object_whose_loop_is_blocked() -> None:
    with cluster_elsewhere() as cluster:
        release = threading.Event()
        cluster.loop.asyncio_loop.call_soon_threadsafe(release.wait)
        for adapt_kwargs in (None, {"maximum": 1}):
            runner = DaskTaskRunner(
                cluster=cluster, adapt_kwargs=adapt_kwargs, client_kwargs={"timeout": 0.3}
            )
            with pytest.raises(EngineUnreachable, match="event loop .*must keep running"):
                started(runner, add)
        release.set()


# --- workers that cannot run our work ------------------------------------------------------------


def test_worker_without_penstock(external: ExternalCluster, tmp_path: Path) -> None:
    Path(tmp_path, "penstock.py").write_text("raise ModuleNotFoundError('no penstock')")
    good = external.workers[0]
    bad = external.add_worker(env={"PYTHONPATH": str(tmp_path)})
    try:
        with pytest.raises(EngineError, match="cannot run tasks of this process") as caught:
            started(DaskTaskRunner(address=external.address), add)
        assert str(caught.value).count("cannot import Penstock") == 1
        assert f"on host {socket.gethostname()}" in str(caught.value)
    finally:
        bad.terminate()
        bad.wait(10)
        external.workers.remove(bad)
    assert good.poll() is None
    assert started(DaskTaskRunner(address=external.address), add) == 3


def checked(**said: Any) -> None:
    here = {"host": "far", "python": "3.11.1", "penstock": "9.9.1", "cloudpickle": "3.1.0"}

    async def run(*_: Any, **__: Any) -> dict[str, Any]:
        return {"tcp://far:1": {**here, **said}, "tcp://gone:1": OSError("it went away")}

    asyncio.run(check_workers(SimpleNamespace(run=run)))  # type: ignore[arg-type]


def test_worker_with_another_python() -> None:
    with pytest.raises(EngineError, match=r"tcp://far:1 on host far has Python 3\.7\.2, not 3\."):
        checked(python="3.7.2")


def test_other_versions_are_warned_of(lines: Callable[[], list[str]]) -> None:
    python = ".".join(map(str, sys.version_info[:3]))
    checked(python=python)
    assert any("tcp://far:1 on host far has penstock 9.9.1; here" in one for one in lines())


def test_check_is_quick(external: ExternalCluster) -> None:
    async def measure(client: Any) -> float:
        took = []
        for _ in range(5):
            began = time.perf_counter()
            await check_workers(client)
            took.append(time.perf_counter() - began)
        return min(took)

    assert started(DaskTaskRunner(address=external.address), measure) < 0.5


# --- the performance report ----------------------------------------------------------------------


def test_performance_report(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    runner = DaskTaskRunner(cluster_kwargs=THREADS, performance_report_path=target)
    assert started(runner, add) == 3
    assert "<html" in target.read_text("utf-8")[:500]
    assert dask.config.get("scheduler", None) is None


def test_report_that_cannot_be_written(tmp_path: Path) -> None:
    runner = DaskTaskRunner(cluster_kwargs=THREADS, performance_report_path=tmp_path)
    with pytest.raises(InvalidOptionError, match="which cannot be written: Is a directory"):
        started(runner, add)


def test_report_without_bokeh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_side, "_has_bokeh", lambda: False)
    runner = DaskTaskRunner(cluster_kwargs=THREADS, performance_report_path="report.html")
    with pytest.raises(MissingDependencyError, match="pip install bokeh"):
        started(runner, add)
