"""`@task(resources=…)` on Dask: where task runs ran, how many at a time, and what is refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask import annotate  # type: ignore[attr-defined]
from distributed import get_worker

from penstock import flow, task
from penstock.errors import InvalidOptionError, ResourceError
from penstock.task_runners import ConcurrentTaskRunner, DaskTaskRunner
from penstock.task_runners.dask import resources as resource_side
from penstock.task_runners.dask import worker as worker_side
from tests.task_runners.dask.driving import THREADS
from tests.task_runners.dask.external import ExternalCluster, external_cluster

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def pair(lasting: None) -> Iterator[ExternalCluster]:
    """Give two workers of four threads: "worker-0" has GPUs and memory, "worker-1" nothing."""
    with external_cluster(workers=0, nthreads=4) as cluster:
        cluster.add_worker(resources={"GPU": 2, "memory": 4e9})
        cluster.add_worker()
        yield cluster


@task
def place(*_: Any) -> str:
    return str(get_worker().name)


@task
def span(folder: str, seconds: float = 0.05) -> str:
    """Tell how many ran at the same time as this one, itself included, and where it ran."""
    began = time.time()
    time.sleep(seconds)
    row = [began, time.time()]
    with Path(folder, "spans").open("a") as output:
        output.write(json.dumps(row) + "\n")
    return str(get_worker().name)


def most_at_a_time(folder: Path) -> int:
    spans = [json.loads(line) for line in (folder / "spans").read_text().splitlines()]
    return max(len([1 for one in spans if one[0] <= began < one[1]]) for began, _ in spans)


def on(cluster: ExternalCluster, **options: Any) -> DaskTaskRunner:
    return DaskTaskRunner(address=cluster.address, **options)


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({"gpu": 1}, 2),
        ({"gpu": 2}, 1),
        ({"GPU": 1, "memory": "3GB"}, 1),
        ({"Memory": "1 GB"}, 4),
        ({"gpu": 0.5}, 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("bundle", [True, False])
def test_where_and_how_many_at_a_time(
    pair: ExternalCluster, tmp_path: Path, asked: dict[str, Any], most: int, bundle: bool
) -> None:
    @flow(task_runner=on(pair, bundle=bundle))
    def example() -> Any:
        return span.with_options(resources=asked).map([str(tmp_path)] * 8)

    assert set(example()) == {"worker-0"}
    found = most_at_a_time(tmp_path)
    assert found <= most
    assert bundle or found == most


def test_annotation_and_option_together(pair: ExternalCluster, tmp_path: Path) -> None:
    """The annotation comes before the option where both name the same."""
    greedy = span.with_options(resources={"gpu": 1, "memory": "1GB"})

    @flow(task_runner=on(pair, bundle=False))
    def example() -> Any:
        with annotate(resources={"GPU": 2}):
            return greedy.map([str(tmp_path)] * 3)

    assert set(example()) == {"worker-0"}
    assert most_at_a_time(tmp_path) == 1


def test_others_go_on_while_many_wait_for_a_resource(pair: ExternalCluster, tmp_path: Path) -> None:
    """What waits for the GPU does not stand in the way of what needs none."""

    @flow(task_runner=on(pair, bundle=False))
    def example() -> Any:
        slow = span.with_options(resources={"gpu": 2}).map([str(tmp_path)] * 200, 0.02)
        began = time.monotonic()
        place.map(range(20)).result()
        took = time.monotonic() - began
        for one in slow:
            one.cancel()
        return took

    assert example() < 2


def test_what_follows_does_not_travel_along_to_another_resource(pair: ExternalCluster) -> None:
    narrow = place.with_options(resources={"gpu": 1})

    @flow(task_runner=on(pair))
    def example() -> Any:
        with annotate(workers="worker-1"):
            first = [place.submit(number) for number in range(20)]
        return [narrow.submit(one) for one in first], first

    there, before = example()
    assert set(there) == {"worker-0"}
    assert set(before) == {"worker-1"}


def test_a_task_that_waits_for_its_children_lends_them_its_resources(
    pair: ExternalCluster, tmp_path: Path
) -> None:
    child = span.with_options(resources={"gpu": 2})

    @task(resources={"gpu": 2})
    def parent(depth: int) -> Any:
        if depth:
            return parent.submit(depth - 1).result()
        return child.map([str(tmp_path)] * 3, 0.01).result()

    @flow(task_runner=on(pair))
    def example() -> Any:
        return [parent.submit(2), parent.submit(0)]

    assert {name for names in example() for name in names} == {"worker-0"}
    assert most_at_a_time(tmp_path) == 1


def test_what_is_lent_is_seen_by_those_that_wait_for_it_already(pair: ExternalCluster) -> None:
    child = place.with_options(resources={"gpu": 2})

    @task(resources={"gpu": 2})
    def parent() -> Any:
        # It is lent only when the child has arrived on the worker, which has then nothing to do.
        change = worker_side._change_available

        def change_later(worker: Any, *what: Any) -> None:
            worker_side._change_available = change
            worker.loop.asyncio_loop.call_later(0.5, change, worker, *what)

        worker_side._change_available = change_later  # type: ignore[assignment]
        return child.submit().result()

    assert flow(task_runner=on(pair))(lambda: parent.submit().result())() == "worker-0"


# --- the option ---------------------------------------------------------------------------------


def test_the_option() -> None:
    given = {"CPU": 2, "Memory": "1.5 GiB", "licence": 0.5}
    assert place.with_options(resources=given).resources == {
        "cpu": 2.0,
        "memory": 1.5 * 2**30,
        "licence": 0.5,
    }
    assert place.with_options(resources={"memory": "4GB"}).resources == {"memory": 4e9}
    assert place.resources == {}


@pytest.mark.parametrize(
    "given",
    [3, {"gpu": 0}, {"gpu": "1"}, {"gpu": True}, {"memory": "much"}, {"": 1}, {"a": 1, "A": 1}],
    ids=str,
)
def test_options_that_cannot_be(given: Any) -> None:
    with pytest.raises(InvalidOptionError, match="resources"):
        place.with_options(resources=given)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"gpu": 3}, {"tpu": 1}, {"gpu": 1, "memory": "5GB"}], ids=str)
def test_more_than_any_worker_declares(pair: ExternalCluster, asked: dict[str, Any]) -> None:
    greedy = place.with_options(resources=asked)
    submissions: dict[str, Any] = {
        "submit": greedy.submit,
        "map": lambda: greedy.map(range(3)),
    }
    problems = []

    @flow(task_runner=on(pair))
    def example() -> Any:
        for submit in submissions.values():
            with pytest.raises(ResourceError) as caught:
                submit()
            problems.append(str(caught.value))
        return place.submit()

    assert example().startswith("worker-")
    assert len(set(problems)) == 1
    told = ", ".join(f"{name}={value}" for name, value in asked.items() if name != "memory")
    assert problems[0].startswith(f"Task 'place' asks for {told}")
    assert (
        "no Dask worker declares as much; the workers declare GPU=2, memory=3.73 GiB. "
        in (problems[0])
    )
    assert 'dask worker --resources "' in problems[0]


def test_refused_in_a_task(pair: ExternalCluster) -> None:
    @task
    def parent() -> None:
        place.with_options(resources={"tpu": 1}).submit().result()

    @flow(task_runner=on(pair))
    def example() -> Any:
        return parent.submit().wait()

    with pytest.raises(Exception, match="asks for tpu=1"):
        example()


@pytest.mark.parametrize("runner", [ConcurrentTaskRunner()], ids=str)
def test_in_process_runners_have_what_the_machine_has(runner: Any) -> None:
    greedy = place.with_options(resources={"gpu": 4096})

    @flow(task_runner=runner)
    def example() -> None:
        greedy.submit()

    with pytest.raises(ResourceError, match="asks for gpu=4096; there is cpu="):
        example()


# --- clusters that may grow ----------------------------------------------------------------------


def test_empty_cluster_waits_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The worker that comes spells the name in its own way."""
    narrow = place.with_options(resources={"gpu": 1})
    with external_cluster(workers=0) as cluster:

        @flow(task_runner=on(cluster))
        def example() -> Any:
            futures = [narrow.submit(), *narrow.map(range(3))]
            assert futures[0].wait(0.3) is None
            free = place.submit()
            cluster.add_worker(nthreads=1)
            assert free.result() == "worker-0"
            assert futures[0].wait(0.1) is None
            cluster.add_worker(nthreads=1, resources={"Gpu": 1})
            return futures

        assert set(example()) == {"worker-1"}
    lines = [one for one in caplog.records if one.name == "penstock.task_runner.dask"]
    [warning] = [one for one in lines if one.levelname != "INFO"]
    assert warning.levelname == "WARNING"
    assert warning.getMessage() == (
        "Task 'place' waits for a Dask worker that declares gpu=1; now the workers declare "
        'nothing. It runs once there is one: dask worker --resources "gpu=1"'
    )


def test_adaptive_cluster_grows_for_a_resource() -> None:
    runner = DaskTaskRunner(
        cluster_kwargs={**THREADS, "n_workers": 0}, adapt_kwargs={"minimum": 0, "maximum": 1}
    )

    @flow(task_runner=runner)
    def example() -> Any:
        return place.with_options(resources={"cpu": 2}).submit()

    assert example() is not None


# --- what workers of our own declare -------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "declared"),
    [
        ({"memory_limit": "1GB"}, {"cpu": 2, "memory": 1e9}),
        ({"resources": {"GPU": 1}}, {"GPU": 1}),
        ({"resources": {}}, {}),
    ],
    ids=str,
)
def test_local_workers_declare(kwargs: dict[str, Any], declared: dict[str, float]) -> None:
    found = []

    @task
    def look() -> Any:
        return dict(get_worker().state.total_resources)

    @flow(task_runner=DaskTaskRunner(cluster_kwargs={**THREADS, **kwargs}))
    def example() -> Any:
        found.append(look.submit().result())
        if "cpu" in declared:
            with pytest.raises(ResourceError, match=re.escape("asks for cpu=3")) as caught:
                look.with_options(resources={"cpu": 3}).submit()
            assert "cluster_kwargs={\"resources\": {'cpu': 3.0}}" in str(caught.value)
            return look.with_options(resources={"cpu": 2, "memory": "1GB"}).submit()
        return None

    example()
    assert found == [declared]


def test_memory_without_a_limit_is_that_of_the_machine() -> None:
    found = resource_side._memory({"memory_limit": None}, 1)
    assert found == resource_side._memory({"memory_limit": 0}, 1) > 2**20


@pytest.mark.parametrize(
    ("request_", "declared", "expected"),
    [
        ({"gpu": 1}, [{"GPU": 1}, {"gpu": 1}, {"GPU": 1}], {"GPU": 1}),
        ({"gpu": 2}, [{"GPU": 1}, {"gpu": 2}], {"gpu": 2}),
        ({"gpu": 1, "x": 1}, [{"gpu": 1}, {"x": 1}], None),
        ({"gpu": 1}, [], None),
    ],
    ids=str,
)
def test_spelling(
    request_: dict[str, float], declared: list[Any], expected: dict[str, float] | None
) -> None:
    assert resource_side.spelled(request_, declared) == expected
