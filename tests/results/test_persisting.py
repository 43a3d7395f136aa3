"""What is persisted where: precedence, subflows, flows' own results, settings."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest

from penstock import flow, task
from penstock.errors import InvalidOptionError, ResultStorageError, SettingsError
from penstock.results import policy
from penstock.results.kept import load_kept
from penstock.results.policy import ResultOptions, ResultPolicy, Subject, keep, policy_of
from penstock.results.references import Reference, reference_of
from penstock.results.serializers import serializer_named
from penstock.runtime.recording import close
from penstock.settings import load_settings
from penstock.states import Completed
from penstock.task_runners import ProcessPoolTaskRunner
from tests.history.rows import select
from tests.results import serializers

LARGE = b"x" * 50_000


@task
def large() -> bytes:
    return LARGE


def rows(home: Path, table: str = "task_runs") -> list[Any]:
    """Give (result, codec) of all runs, in order."""
    close()
    return select(home / "history.db", f"SELECT result, result_codec FROM {table} ORDER BY id")


def references(home: Path, table: str = "task_runs") -> list[Reference | None]:
    """Give where the results of all runs lie; None for those that are not stored."""
    return [reference_of(data) if codec == "stored" else None for data, codec in rows(home, table)]


def places(home: Path, table: str = "task_runs") -> list[str | None]:
    return [each and each.storage for each in references(home, table)]


# Who decides.

BASE = ResultPolicy(False, "/settings", serializer_named("pickle"))


@pytest.mark.parametrize(
    ("parent", "of_flow", "of_task", "persist"),
    [
        (None, None, None, False),
        (None, None, True, True),
        (None, True, None, True),
        (None, True, False, False),
        (True, None, None, True),
        (True, False, None, False),
        (True, False, True, True),
        (False, True, None, True),
    ],
)
def test_the_closest_one_that_says_something_decides(
    parent: bool | None, of_flow: bool | None, of_task: bool | None, persist: bool
) -> None:
    in_force = BASE
    for said in (parent, of_flow, of_task):
        in_force = in_force.under(None if said is None else ResultOptions(said))
    assert in_force.persist == persist


def test_each_option_is_decided_on_its_own() -> None:
    json = serializer_named("json")
    in_force = (
        BASE.under(ResultOptions(storage="/parent", serializer=json))
        .under(ResultOptions(persist=True))
        .under(ResultOptions(storage="/task"))
    )
    assert in_force == BASE._replace(persist=True, storage="/task", serializer=json)


def test_key_asks_to_persist_unless_that_is_refused() -> None:
    assert BASE.under(ResultOptions(key="a")).persist
    assert not BASE.under(ResultOptions(False, key="a")).persist


def test_task_then_flow_then_parent_flow_then_settings(
    penstock_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task(result_storage=tmp_path / "task")
    def own() -> bytes:
        return LARGE

    @flow
    def inheriting() -> None:
        large()
        own()

    @flow(result_storage=tmp_path / "child")
    def child() -> None:
        large()

    @flow(result_storage=tmp_path / "parent")
    def parent() -> None:
        inheriting()
        child()

    monkeypatch.setenv("PENSTOCK_PERSIST_RESULT", "on")
    monkeypatch.setenv("PENSTOCK_RESULT_STORAGE", str(tmp_path / "settings"))
    large()
    parent()
    found = [place for place in places(penstock_home) if place]
    named = ["settings", "parent", "task", "child"]
    assert found == [str(tmp_path / name) for name in named]


def test_settings_that_cannot_be_are_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_RESULT_SERIALIZER", "yaml")
    with pytest.raises(SettingsError, match="PENSTOCK_RESULT_SERIALIZER is 'yaml'"):
        large()
    monkeypatch.delenv("PENSTOCK_RESULT_SERIALIZER")
    monkeypatch.setenv("PENSTOCK_RESULT_STORAGE", "s3://")
    with pytest.raises(SettingsError, match="PENSTOCK_RESULT_STORAGE is 's3://'"):
        large()


def test_default_storage_is_at_home(penstock_home: Path) -> None:
    assert policy_of(load_settings()).storage == str(penstock_home / "results")


def test_nothing_is_stored_when_nothing_is_recorded(
    penstock_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_RECORD", "off")

    @task(persist_result=True, result_storage_key="x")
    def stored() -> bytes:
        return LARGE

    @flow(persist_result=True)
    def main() -> bytes:
        return stored()

    assert main() == LARGE
    assert not (penstock_home / "results").exists()


# What is stored.


def test_names_are_made_of_ids(penstock_home: Path) -> None:
    @flow(persist_result=True)
    def main() -> bytes:
        return large()

    main()
    ((flow_id, task_id),) = select(
        penstock_home / "history.db", "SELECT flow_run_id, id FROM task_runs"
    )
    (of_task,), (of_flow,) = references(penstock_home), references(penstock_home, "flow_runs")
    assert of_task is not None
    assert of_flow is not None
    assert of_task.name == f"{flow_id.hex()}/{task_id.hex()}-1"
    assert of_flow.name == f"{flow_id.hex()}/flow-1"


def test_result_of_a_task_alone_is_stored(penstock_home: Path) -> None:
    large.with_options(persist_result=True)()
    (reference,) = references(penstock_home)
    assert reference is not None
    assert reference.name.startswith("tasks/")
    assert load_kept(*rows(penstock_home)[0]) == LARGE


def test_subflow_and_its_task_run_refer_to_one_object(penstock_home: Path) -> None:
    @flow
    def child() -> bytes:
        return LARGE

    @flow(persist_result=True)
    def parent() -> None:
        child()
        child.submit().result()

    parent()
    of_flows = [each for each in references(penstock_home, "flow_runs") if each]
    of_tasks = [each for each in references(penstock_home) if each]
    assert len(of_flows) == 2
    assert sorted(of_flows) == sorted(of_tasks)
    files = [path for path in (penstock_home / "results").rglob("*") if path.is_file()]
    assert len(files) == 2


def test_async_flows_and_tasks_store_theirs(penstock_home: Path) -> None:
    @task
    async def slow() -> bytes:
        await asyncio.sleep(0)
        return LARGE

    @flow(persist_result=True)
    async def main() -> list[bytes]:
        return [await slow(), await slow.submit()]

    assert asyncio.run(main()) == [LARGE, LARGE]
    assert None not in references(penstock_home)
    assert load_kept(*rows(penstock_home, "flow_runs")[0]) == [LARGE, LARGE]


def test_storing_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_goes_on = threading.Event()

    def store(*_: Any) -> Any:
        assert loop_goes_on.wait(20)
        raise ResultStorageError("tried")

    @task
    async def stored() -> bytes:
        return LARGE

    @flow(persist_result=True)
    async def main() -> Any:
        future = stored.submit()
        while not future.task_run.attempt:
            await asyncio.sleep(0.001)
        loop_goes_on.set()
        return future.exception() if await wait_for(future) else None

    async def wait_for(future: Any) -> bool:
        with pytest.raises(ResultStorageError, match="tried"):
            await future
        return True

    monkeypatch.setattr(policy, "_stored", store)
    state: Any = asyncio.run(main(return_state=True))
    assert state.is_completed()


def test_interrupt_while_storing_ends_the_run(
    penstock_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(*_: Any) -> Any:
        raise KeyboardInterrupt

    @flow(persist_result=True)
    def main() -> None:
        large()

    monkeypatch.setattr(policy, "_stored", store)
    with pytest.raises(KeyboardInterrupt):
        main()
    close()
    for table in ("task_runs", "flow_runs"):
        assert select(penstock_home / "history.db", f"SELECT state FROM {table}") == [("CRASHED",)]


def test_cancellation_while_storing_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    is_storing, goes_on = threading.Event(), threading.Event()

    def store(*_: Any) -> Any:
        is_storing.set()
        goes_on.wait(20)
        raise ResultStorageError("too late")

    @task(persist_result=True)
    async def stored() -> bytes:
        return LARGE

    @flow
    async def main() -> Any:
        future = stored.submit()
        while not is_storing.is_set():
            await asyncio.sleep(0.001)
        future.cancel()
        try:
            return await asyncio.wait_for(ended(future), 10)
        finally:
            goes_on.set()

    async def ended(future: Any) -> str:
        while not future.done():
            await asyncio.sleep(0.001)
        return str(future.state.type.value)

    monkeypatch.setattr(policy, "_stored", store)
    assert asyncio.run(main()) == "CANCELLED"


def test_state_of_the_user_is_stored(penstock_home: Path) -> None:
    @task(persist_result=True)
    def made() -> Any:
        return Completed(message="by hand", data=LARGE)

    @flow
    def main() -> None:
        state = made.submit().wait()
        assert state is not None
        assert state.message == "by hand"

    main()
    assert load_kept(*rows(penstock_home)[0]) == LARGE


def test_failed_attempts_store_nothing(penstock_home: Path) -> None:
    tries: list[int] = []

    @task(persist_result=True, retries=1)
    def flaky() -> bytes:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError
        return LARGE

    flaky()
    (reference,) = references(penstock_home)
    assert reference is not None
    assert reference.name.endswith("-2")
    assert len(list((penstock_home / "results" / "tasks").iterdir())) == 1


def test_value_is_pickled_once_for_the_storage(penstock_home: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.times = 0

        def __reduce__(self) -> Any:
            self.times += 1
            return bytes, (LARGE,)

    value = Counting()

    @task(persist_result=True)
    def counted() -> Any:
        return value

    @flow
    def main() -> None:
        counted.submit().result()

    value.times = 0  # its task has a look at what it closes over
    main()
    # Once to see that it is not small, which stops at 16 KiB, and once to store it.
    assert value.times == 2
    assert load_kept(*rows(penstock_home)[0]) == LARGE


def test_array_is_stored_as_it_is(penstock_home: Path) -> None:
    @task(persist_result=True)
    def table() -> Any:
        return numpy.arange(100_000.0)

    table(return_state=True)
    (reference,) = references(penstock_home)
    assert reference is not None
    stored = (Path(reference.storage) / reference.name).read_bytes()
    assert numpy.arange(100_000.0).tobytes() in stored


def test_serializer_of_the_users_own_is_used_on_workers(penstock_home: Path) -> None:
    @task(persist_result=True, result_serializer=serializers.backwards)
    def text() -> str:
        return "ab" * 20_000

    @flow(task_runner=ProcessPoolTaskRunner(1))
    def main() -> None:
        assert text.submit().result() == "ab" * 20_000

    main()
    (reference,) = references(penstock_home)
    assert reference is not None
    assert reference.serializer == "tests.results.serializers:backwards"
    assert b"ba" * 20_000 in (Path(reference.storage) / reference.name).read_bytes()


def test_memory_of_a_worker_is_no_storage() -> None:
    @task(persist_result=True, result_storage="memory://results")
    def stored() -> bytes:
        return LARGE

    @flow(task_runner=ProcessPoolTaskRunner(1))
    def main() -> None:
        with pytest.raises(ResultStorageError, match="only in the memory of one process"):
            stored.submit().result()

    main()


def test_what_tasks_on_workers_call_is_stored_there(penstock_home: Path) -> None:
    @flow
    def child() -> bytes:
        return large()

    @task
    def calling() -> int:
        return len(large()) + len(child())

    @flow(task_runner=ProcessPoolTaskRunner(1), persist_result=True)
    def main() -> None:
        assert calling.submit().result() == 2 * len(LARGE)

    main()
    assert len([each for each in references(penstock_home) if each]) == 3
    assert len([each for each in references(penstock_home, "flow_runs") if each]) == 1
    for data, codec in rows(penstock_home):
        assert load_kept(data, codec) in (LARGE, 2 * len(LARGE))


def test_result_that_refers_to_an_engine_is_not_stored(tmp_path: Path) -> None:
    in_force = BASE._replace(persist=True, storage=str(tmp_path), own=b"engine.Reference")
    subject = Subject(None, bytes(16), 1)
    value = [LARGE, "engine.Reference"]
    assert keep(value, in_force, subject) == (None, None)
    assert keep([LARGE], in_force, subject)[1] == "stored"


# Keys.


def test_key_is_filled_in_with_resolved_parameters(penstock_home: Path) -> None:
    @task
    def day() -> str:
        return "monday"

    @task(result_storage_key="{kind}/{day}/{limit:03}.bin")
    def total(day: str, kind: str = "sum", limit: int = 7) -> int:
        return 1

    @flow
    def main() -> None:
        total.submit(day.submit()).result()

    main()
    names = [each.name for each in references(penstock_home) if each]
    assert names == ["sum/monday/007.bin"]


@pytest.mark.parametrize("value", ["..", "../x", "/etc", "a\0b", "x" * 200, ""])
def test_key_that_leads_elsewhere_fails_the_task(penstock_home: Path, value: str) -> None:
    @task(result_storage_key="a/{value}")
    def total(value: str) -> int:
        return 1

    with pytest.raises(InvalidOptionError, match="is to be stored as"):
        total(value)
    assert rows(penstock_home) == [(None, None)]
    assert not (penstock_home / "results").exists()


def test_key_that_cannot_be_filled_in_fails_the_task() -> None:
    @task(result_storage_key="a/{value.nothing}")
    def total(value: int) -> int:
        return value

    with pytest.raises(InvalidOptionError, match="cannot be filled in: AttributeError"):
        total(1)


def test_later_run_of_the_same_key_takes_its_place(penstock_home: Path) -> None:
    @task(result_storage_key="latest")
    def latest(value: int) -> int:
        return value

    latest(1)
    latest(2)
    first, second = rows(penstock_home)
    assert load_kept(*second) == 2
    with pytest.raises(ResultStorageError, match="is not what was stored"):
        load_kept(*first)


def test_large_result_survives_in_another_process(penstock_home: Path) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(1), persist_result=True)
    def main() -> int:
        return len(large.submit().result())

    assert main() == len(LARGE)
    assert load_kept(*rows(penstock_home)[0]) == LARGE
    assert load_kept(*rows(penstock_home, "flow_runs")[0]) == len(LARGE)
