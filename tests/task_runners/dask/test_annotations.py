"""`dask.annotate` around submissions: seen by where task runs ran, and in which order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask import annotate  # type: ignore[attr-defined]
from distributed import get_worker

from penstock import flow, task
from penstock.task_runners import DaskTaskRunner, get_dask_client
from penstock.task_runners.dask.engine import DaskEngine
from tests.task_runners.dask.external import ExternalCluster, external_cluster

pytestmark = pytest.mark.timeout(90)
NAMES = ("worker-0", "worker-1")


@pytest.fixture(scope="module")
def pair(lasting: None) -> Iterator[ExternalCluster]:
    """Give two workers: "worker-0" declares two DISK, "worker-1" declares nothing."""
    with external_cluster(workers=0) as cluster:
        cluster.add_worker(nthreads=2, resources={"DISK": 2})
        cluster.add_worker(nthreads=2)
        yield cluster


@task
def place(*_: Any) -> str:
    return str(get_worker().name)


@task
def pause(seconds: float) -> None:
    time.sleep(seconds)


@task
def block(started: str, end: str) -> None:
    Path(started).touch()
    while not Path(end).exists():
        time.sleep(0.005)


@task
def note(file: str, word: str) -> None:
    with open(file, "a") as output:
        output.write(word)


def on(cluster: ExternalCluster, **options: Any) -> DaskTaskRunner:
    return DaskTaskRunner(address=cluster.address, **options)


def await_file(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)


@pytest.mark.parametrize(
    "annotations",
    [
        {"workers": "worker-1"},
        {"workers": ["worker-1", "worker-7"]},
        {"workers": ["worker-1"], "allow_other_workers": False},
        {"workers": ["worker-1"], "retries": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("bundle", [True, False])
def test_workers(pair: ExternalCluster, annotations: dict[str, Any], bundle: bool) -> None:
    @flow(task_runner=on(pair, bundle=bundle))
    def example() -> Any:
        with annotate(**annotations):
            return [place.submit(), *place.map(range(20))]

    assert set(example()) == {"worker-1"}


def test_resources(pair: ExternalCluster) -> None:
    @flow(task_runner=on(pair))
    def example() -> Any:
        with annotate(resources={"DISK": 1}):
            return place.map(range(20))

    assert set(example()) == {"worker-0"}


def test_other_workers_are_allowed(pair: ExternalCluster) -> None:
    @flow(task_runner=on(pair))
    def example() -> Any:
        with annotate(workers=["nobody"], allow_other_workers=True):
            return place.submit()

    assert example() in ("worker-0", "worker-1")


def test_annotation_of_the_submission_counts_after_a_wait(pair: ExternalCluster) -> None:
    """Calls that wait for upstreams are sent when no annotation is in force any more."""

    @flow(task_runner=on(pair))
    def example() -> Any:
        first = pause.submit(0.05)
        with annotate(workers="worker-0"):
            submitted = place.submit(first)
            with annotate(workers="worker-1"):
                mapped = place.map(range(5), wait_for=[first])
        return submitted, mapped

    there, mapped = example()
    assert there == "worker-0"
    assert set(mapped) == {"worker-1"}


def test_upstreams_of_another_place_do_not_travel_along(pair: ExternalCluster) -> None:
    """What follows on a call travels with it only if it may run in the same place."""

    @flow(task_runner=on(pair))
    def example() -> Any:
        chains = []
        for name in ("worker-0", "worker-1") * 10:
            with annotate(workers=name):
                first = place.submit()
            other = "worker-1" if name == "worker-0" else "worker-0"
            with annotate(workers=other):
                chains.append((name, first, other, place.submit(first)))
        return chains

    for name, first, other, second in example():
        assert (first, second) == (name, other)


def test_annotations_reach_nothing_else(pair: ExternalCluster) -> None:
    """Not what is submitted after the block, nor what a task submits, nor a later flow run."""

    @task
    def parent() -> Any:
        time.sleep(0.1)
        return place.map(range(30)).result()

    @flow(task_runner=on(pair, bundle=False))
    def example() -> Any:
        with annotate(resources={"DISK": 2}):
            holder = parent.submit()
        return place.map(range(30)), holder

    after, inside = example()
    assert "worker-1" in after
    assert "worker-1" in inside


@pytest.mark.parametrize("bundle", [True, False])
def test_priority(external: ExternalCluster, tmp_path: Path, bundle: bool) -> None:
    """Behind a task run that blocks the only thread, the larger priority goes first."""
    started, end, file = tmp_path / "started", tmp_path / "end", tmp_path / "order"

    @flow(task_runner=on(external, bundle=bundle))
    def example() -> None:
        block.submit(str(started), str(end))
        await_file(started)
        for word, priority in [("a", 0), ("b", -2), ("c", 7), ("d", 7), ("e", 1.5)]:
            with annotate(priority=priority):
                note.submit(str(file), word)
        # The task's own priority is on the same scale; the annotation comes before it.
        note.with_options(priority=5).submit(str(file), "f")
        with annotate(priority=-1):
            note.with_options(priority=9).submit(str(file), "g")
        end.touch()

    example()
    assert file.read_text() == "cdfeagb"


def test_priority_among_many(external: ExternalCluster, tmp_path: Path) -> None:
    """More than are sent ahead: those that wait in the driver are in order, too."""
    started, end, file = tmp_path / "started", tmp_path / "end", tmp_path / "order"

    @flow(task_runner=on(external, bundle=False))
    def example() -> None:
        block.submit(str(started), str(end))
        await_file(started)
        low = note.map(str(file), ["."] * 200)
        high = note.with_options(priority=3).map(str(file), ["x"] * 100)
        end.touch()
        assert len(low + high) == 300

    example()
    order = file.read_text()
    assert (order.count("."), order.count("x")) == (200, 100)
    # What was sent before the others were submitted may be ahead of them; what waited is not.
    sent_ahead = 1 + DaskEngine.looks_ahead
    assert order.rstrip(".").count(".") <= sent_ahead


def annotation_of(client: Any, name: str) -> Any:
    def look(name: str, dask_scheduler: Any) -> Any:
        found = [key for key in dask_scheduler.tasks if str(key).startswith(name)]
        return [dict(dask_scheduler.tasks[key].annotations) for key in found]

    return client.run_on_scheduler(look, name)


def test_retries_are_dasks_own(pair: ExternalCluster, tmp_path: Path) -> None:
    """Passed on; what the task itself raises is our attempt, and `retries` there is not ours."""
    started, end = tmp_path / "started", tmp_path / "end"
    attempts = []

    @task
    def fail() -> None:
        attempts_file = tmp_path / "attempts"
        with attempts_file.open("a") as output:
            output.write("x")
        raise ValueError("as it should")

    @flow(task_runner=on(pair))
    def example() -> Any:
        with annotate(retries=3, unknown="kept from Dask"):
            future = block.submit(str(started), str(end))
            failing = fail.submit()
        await_file(started)
        with get_dask_client() as client:
            attempts.extend(annotation_of(client, "block-0"))
        end.touch()
        ended = failing.wait()
        assert ended is not None
        assert ended.is_failed()
        return future

    example()
    assert [one["retries"] for one in attempts] == [3]
    assert "unknown" not in attempts[0]
    assert (tmp_path / "attempts").read_text() == "x"


# --- submitted inside a task ---------------------------------------------------------------------


@task
def send_to(name: str) -> Any:
    with annotate(workers=[name]):
        mapped = place.map(range(10))
        waiting = place.submit(mapped)
    return mapped.result(), waiting.result(), place.map(range(30)).result()


@task
async def asend_to(name: str) -> Any:
    with annotate(workers=[name]):
        future = place.submit()
    return await future


def test_annotations_inside_a_task(pair: ExternalCluster) -> None:
    @flow(task_runner=on(pair))
    def example() -> Any:
        return {name: (send_to.submit(name), asend_to.submit(name)) for name in NAMES}

    for name, ((mapped, waiting, others), awaited) in example().items():
        assert {*mapped, waiting, awaited} == {name}
        assert set(others) <= set(NAMES)


def test_annotations_that_cannot_travel_are_refused(pair: ExternalCluster) -> None:
    @task
    def parent() -> Any:
        lock = threading.Lock()
        with annotate(priority=lambda key: int(lock.locked())):
            return repr(place.submit().exception())

    @flow(task_runner=on(pair))
    def example() -> Any:
        return parent.submit()

    assert "cannot be pickled" in example()
