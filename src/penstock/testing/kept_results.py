"""The contract of kept results: what is persisted, by whom, and what is said where it cannot be."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from typing import Any

import pytest

from penstock import StateType, flow, task
from penstock.errors import ResultStorageError, SerializationError
from penstock.history.stores import open_reader
from penstock.results.kept import load_kept, why_unusable
from penstock.settings import load_settings
from penstock.task_runners import BaseTaskRunner

LARGE = 100_000
"""More than a small result may take, in bytes."""


class Traced:
    """A value that remembers which processes made and pickled it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.made_by = os.getpid()
        self.pickled_by: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "pickled_by": os.getpid()}


def held(future: Any) -> tuple[bytes | None, str | None]:
    """Give what the history keeps of a task run and its codec, once its flow run has ended."""
    with closing(open_reader(load_settings().database_url)) as reader:
        return reader.kept_result(str(future.task_run.id)) or (None, None)


def loaded(future: Any) -> Any:
    """Load the kept result of a task run from the history and its storage."""
    data, codec = held(future)
    assert data is not None
    assert codec is not None
    assert why_unusable(data, codec) is None
    return load_kept(data, codec)


class KeptResultsContract:
    """Section 10: large results are kept where that is asked for, small ones always."""

    def test_large_persisted_result_is_stored(self, task_runner: BaseTaskRunner) -> None:
        @task(persist_result=True)
        def large() -> Any:
            return b"x" * LARGE

        @task
        def size(data: Any) -> Any:
            return len(data)

        @flow(task_runner=task_runner)
        def example() -> None:
            futures.append(large.submit())
            assert size.submit(futures[0]).result() == LARGE
            assert futures[0].result() == b"x" * LARGE

        futures: list[Any] = []
        example()
        assert held(futures[0])[1] == "stored"
        assert loaded(futures[0]) == b"x" * LARGE

    def test_large_result_that_is_not_persisted_is_not_kept(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @task
        def large() -> Any:
            return b"x" * LARGE

        @flow(task_runner=task_runner)
        def example() -> None:
            futures.append(large.submit())

        futures: list[Any] = []
        example()
        assert held(futures[0]) == (None, None)

    def test_flow_persists_what_its_tasks_give(self, task_runner: BaseTaskRunner) -> None:
        @task
        def large() -> Any:
            return "x" * LARGE

        @task(persist_result=False)
        def other() -> Any:
            return "x" * LARGE

        @flow(task_runner=task_runner, persist_result=True)
        def example() -> None:
            futures.extend([large.submit(), other.submit()])

        futures: list[Any] = []
        example()
        assert loaded(futures[0]) == "x" * LARGE
        assert held(futures[1]) == (None, None)

    def test_async_result_is_stored(self, task_runner: BaseTaskRunner) -> None:
        @task(persist_result=True)
        async def large() -> Any:
            return "x" * LARGE

        @flow(task_runner=task_runner)
        def example() -> None:
            futures.append(large.submit())

        futures: list[Any] = []
        example()
        assert loaded(futures[0]) == "x" * LARGE

    def test_process_that_ran_the_task_stores_its_result(self, task_runner: BaseTaskRunner) -> None:
        @task(persist_result=True)
        def large() -> Any:
            return Traced(b"x" * LARGE)

        @flow(task_runner=task_runner)
        def example() -> None:
            futures.append(large.submit())

        futures: list[Any] = []
        example()
        value = loaded(futures[0])
        assert value.pickled_by == value.made_by

    def test_small_persisted_result_is_in_the_history(self, task_runner: BaseTaskRunner) -> None:
        @task(persist_result=True)
        def small() -> Any:
            return [1, "a"]

        @flow(task_runner=task_runner)
        def example() -> None:
            futures.append(small.submit())

        futures: list[Any] = []
        example()
        assert held(futures[0])[1] == "pickle"
        assert loaded(futures[0]) == [1, "a"]

    def test_result_with_a_key_is_stored_under_it(self, task_runner: BaseTaskRunner) -> None:
        @task(result_storage_key="totals/{day}.bin")
        def total(day: str) -> Any:
            return len(day)

        @flow(task_runner=task_runner)
        def example() -> None:
            futures.append(total.submit("monday"))

        futures: list[Any] = []
        example()
        assert held(futures[0])[1] == "stored"
        assert (load_settings().home / "results" / "totals" / "monday.bin").is_file()
        assert loaded(futures[0]) == 6

    def test_key_that_leads_elsewhere_fails_the_task(self, task_runner: BaseTaskRunner) -> None:
        @task(result_storage_key="totals/{day}")
        def total(day: str) -> Any:
            return len(day)

        @flow(task_runner=task_runner)
        def example() -> None:
            state = total.submit("../../etc").wait()
            assert state is not None
            assert state.type is StateType.FAILED
            assert "result is to be stored as" in (state.message or "")

        example()

    def test_result_as_json_comes_back(self, task_runner: BaseTaskRunner) -> None:
        @task(persist_result=True, result_serializer="json")
        def table(size: int) -> Any:
            return {"rows": ["ü"] * size, "mean": 1.5}

        @flow(task_runner=task_runner)
        def example() -> None:
            futures.extend([table.submit(2), table.submit(LARGE)])

        futures: list[Any] = []
        example()
        assert [held(future)[1] for future in futures] == ["json", "stored"]
        assert loaded(futures[0]) == {"rows": ["ü"] * 2, "mean": 1.5}
        assert loaded(futures[1]) == {"rows": ["ü"] * LARGE, "mean": 1.5}

    def test_result_that_is_no_json_fails_the_task(self, task_runner: BaseTaskRunner) -> None:
        @task(persist_result=True, result_serializer="json")
        def pair() -> Any:
            return {"pair": (1, 2)}

        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(SerializationError, match=r"the result\['pair'\] .* 'tuple'"):
                pair.submit().result()

        example()

    def test_persisted_result_that_cannot_be_pickled_fails_the_task(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @task(persist_result=True)
        def lock() -> Any:
            return [threading.Lock()]

        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(SerializationError, match=r"the result -> \[0\] .*lock"):
                lock.submit().result()

        example()

    def test_storage_that_cannot_be_written_fails_the_task_and_retries_apply(
        self, task_runner: BaseTaskRunner, tmp_path: Any
    ) -> None:
        (tmp_path / "file").write_text("")

        @task(persist_result=True, result_storage=tmp_path / "file" / "below", retries=1)
        def large() -> Any:
            return b"x" * LARGE

        @flow(task_runner=task_runner)
        def example() -> None:
            future = large.submit()
            with pytest.raises(ResultStorageError, match="cannot be stored: Not a directory"):
                future.result()
            assert future.task_run.attempt == 2

        example()
