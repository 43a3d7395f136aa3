"""Flow runs that are continued: what is kept, what runs again, and what is refused."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import flow, task
from penstock.errors import (
    AmbiguousRun,
    FailedRun,
    LeaseHeld,
    LeaseLost,
    ResumeError,
    RunNotFound,
    UpstreamFailed,
)
from penstock.history.leases import STALE_SECONDS
from penstock.runtime.recording import recorder_for
from penstock.settings import load_settings
from penstock.task_runners import ProcessPoolTaskRunner, SequentialTaskRunner
from tests.checker import problems_of

calls: list[Any] = []
switch: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def clean() -> None:
    calls.clear()
    switch.clear()


@task
def double(x: int) -> int:
    calls.append(("double", x))
    return 2 * x


@task
def brittle(x: int) -> int:
    calls.append(("brittle", x))
    if not switch.get("mended"):
        raise ValueError("broken")
    return x + 1


@flow
def simple(n: int, token: str = "none") -> int:
    values = [double.submit(i) for i in range(n)]
    last = brittle.submit(values[0])
    return sum(value.result() for value in values) + last.result()


def failed_and_resumed(flow: Any) -> Any:
    """Have a run of a flow fail, and resume it once that is mended; `calls` are the new ones."""
    flow(return_state=True)
    calls.clear()
    switch["mended"] = True
    return flow.resume("@last")


def history(home: Path) -> Callable[..., list[Any]]:
    def select(query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(home / "history.db")) as connection:
            return connection.execute(query, values).fetchall()

    return select


def test_a_failed_run_goes_on_and_keeps_what_completed(penstock_home: Path) -> None:
    with pytest.raises(ValueError, match="broken"):
        simple(3)
    before = history(penstock_home)("SELECT id, name FROM flow_runs")
    calls.clear()
    switch["mended"] = True
    assert simple.resume("@last") == 0 + 2 + 4 + 1
    assert calls == [("brittle", 0)]
    assert history(penstock_home)("SELECT id, name FROM flow_runs") == before
    states = history(penstock_home)("SELECT state, states, seq >> 40, attempt FROM flow_runs")[0]
    assert states[0] == "COMPLETED"
    assert [state[0] for state in json.loads(states[1])] == [
        "PENDING", "RUNNING", "FAILED", "RUNNING", "COMPLETED",
    ]  # fmt: skip
    assert states[2:] == (1, 2)
    assert problems_of(penstock_home / "history.db") == []


def test_names_go_on_where_they_were(penstock_home: Path) -> None:
    simple(2, return_state=True)
    switch["mended"] = True
    simple.resume("@last")
    rows = history(penstock_home)(
        "SELECT t.name || '-' || r.number, r.state FROM task_runs AS r JOIN tasks AS t"
        " ON t.flow_run_id = r.flow_run_id AND t.number = r.task ORDER BY r.id"
    )
    assert rows == [
        ("double-0", "COMPLETED"),
        ("double-1", "COMPLETED"),
        ("brittle-0", "FAILED"),
        ("brittle-1", "COMPLETED"),
    ]


def test_a_completed_run_gives_its_result_and_runs_nothing() -> None:
    switch["mended"] = True
    value = simple(2)
    calls.clear()
    assert simple.resume("@last") == value
    assert calls == []


def test_runs_are_refused_that_are_none_of_the_flow(penstock_home: Path) -> None:
    @flow
    def other() -> None:
        brittle(1)

    other(return_state=True)
    with pytest.raises(ResumeError, match=r"is a run of the flow 'other' .* not of 'simple'"):
        simple.resume("@last")
    with pytest.raises(RunNotFound):
        simple.resume("no-such-run")
    with pytest.raises(RunNotFound):
        simple.resume("abcdef012345")
    simple(1, return_state=True)
    ids = [row[0].hex() for row in history(penstock_home)("SELECT id FROM flow_runs")]
    assert len(ids) == 2
    same = {id[:4] for id in ids}
    if len(same) == 1:
        with pytest.raises(AmbiguousRun):
            simple.resume(same.pop())


def test_subflow_runs_are_resumed_with_what_they_are_a_part_of(penstock_home: Path) -> None:
    @flow
    def outer() -> int:
        inner: int = simple(2)
        return inner

    outer(return_state=True)
    select = history(penstock_home)
    (inner_id,) = select("SELECT id FROM flow_runs WHERE parent_task_run_id IS NOT NULL")[0]
    with pytest.raises(ResumeError, match="resume the flow run that it is a part of"):
        simple.resume(inner_id.hex())
    calls.clear()
    switch["mended"] = True
    assert outer.resume("@last") == 3
    assert calls == [("brittle", 0)]
    assert select("SELECT count(*) FROM flow_runs") == [(2,)]
    assert problems_of(penstock_home / "history.db") == []


def test_arguments_are_kept_but_secrets_are_not(penstock_home: Path) -> None:
    @flow
    def guarded(n: int, *more: int, api_token: str, **options: Any) -> Any:
        brittle(n)
        return n, more, api_token, options

    guarded(1, 2, 3, api_token="hunter2", depth=4, return_state=True)
    assert b"hunter2" not in (penstock_home / "history.db").read_bytes()
    wal = penstock_home / "history.db-wal"
    assert not wal.exists() or b"hunter2" not in wal.read_bytes()
    with pytest.raises(ResumeError, match="argument 'api_token' of the run was not kept"):
        guarded.resume("@last")
    with pytest.raises(ResumeError, match="has no parameter 'nothing'"):
        guarded.resume("@last", parameters={"nothing": 1})
    assert history(penstock_home)("SELECT max(seq >> 40) FROM flow_runs") == [(0,)]
    switch["mended"] = True
    again = guarded.resume("@last", parameters={"api_token": "new"})
    assert again == (1, (2, 3), "new", {"depth": 4})


def test_arguments_that_cannot_be_kept_are_named() -> None:
    @flow
    def locked(lock: Any, size: bytes) -> str:
        brittle(1)
        return type(lock).__name__

    locked(threading.Lock(), b"x" * (2 << 20), return_state=True)
    with pytest.raises(ResumeError, match="argument 'lock'"):
        locked.resume("@last")
    with pytest.raises(ResumeError, match="argument 'size'"):
        locked.resume("@last", parameters={"lock": 1})
    switch["mended"] = True
    assert locked.resume("@last", parameters={"lock": 1, "size": b""}) == "int"


def test_equal_calls_are_told_apart_by_their_ordinal() -> None:
    @flow
    def repeated() -> list[int]:
        values = [double.submit(7) for _ in range(3)]
        numbers = [value.result() for value in values]
        if not switch.get("mended"):
            raise RuntimeError("stop")
        return [*numbers, *[double(7) for _ in range(2)]]

    assert failed_and_resumed(repeated) == [14] * 5
    assert calls == [("double", 7)] * 2


def test_nested_runs_are_told_apart_by_what_made_them() -> None:
    @task
    def outer(name: str) -> int:
        value = double(5)
        if name == "b" and not switch.get("mended"):
            raise RuntimeError("stop")
        return value

    @flow
    def nested() -> int:
        return outer("a") + outer("b")

    nested(return_state=True)
    assert calls == [("double", 5)] * 2
    calls.clear()
    switch["mended"] = True
    assert nested.resume("@last") == 20
    assert calls == []


def test_branches_may_differ() -> None:
    @flow
    def branching() -> int:
        values = [1, 2, 3] if not switch.get("mended") else [3, 9, 1]
        total = sum(double.submit(value).result() for value in values)
        brittle(0)
        return total

    assert failed_and_resumed(branching) == 26
    assert calls == [("double", 9), ("brittle", 0)]


def test_downstream_of_what_failed_becomes_runnable(penstock_home: Path) -> None:
    @flow
    def chain() -> int:
        first = brittle.submit(1)
        return double.submit(first).result()

    with pytest.raises(UpstreamFailed):
        chain()
    calls.clear()
    switch["mended"] = True
    assert chain.resume("@last") == 4
    assert calls == [("brittle", 1), ("double", 2)]
    assert history(penstock_home)("SELECT count(*) FROM task_runs WHERE state = 'PENDING'") == [
        (0,)
    ]
    assert problems_of(penstock_home / "history.db") == []


def test_inputs_without_identity_run_again_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @task
    def odd(thing: object) -> int:
        calls.append("odd")
        return 1

    @flow
    def strange() -> int:
        value = odd(object())
        brittle(0)
        return value

    assert failed_and_resumed(strange) == 1
    assert calls == ["odd", ("brittle", 0)]
    assert "1 run of 'odd' run in any case" in caplog.text


def test_large_results_run_again_unless_they_are_persisted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @task
    def large(x: int) -> bytes:
        calls.append("large")
        return bytes(50_000)

    @task(persist_result=True)
    def stored(x: int) -> bytes:
        calls.append("stored")
        return bytes(50_000)

    @flow
    def heavy() -> int:
        size = len(large(1)) + len(stored.submit(2).result())
        brittle(0)
        return size

    assert failed_and_resumed(heavy) == 100_000
    assert calls == ["large", ("brittle", 0)]
    assert "1 run of 'large' repeated: results take more than 16 KiB" in caplog.text


@pytest.mark.parametrize("harm", ["remove", "flip", "cut"])
def test_results_that_were_lost_or_changed_run_again(
    penstock_home: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    @task(persist_result=True)
    def stored(x: int) -> bytes:
        calls.append("stored")
        return bytes(50_000)

    @flow
    def heavy() -> int:
        size = len(stored(2))
        brittle(0)
        return size

    heavy(return_state=True)
    (file,) = [path for path in (penstock_home / "results").rglob("*") if path.is_file()]
    if harm == "remove":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[:-1] if harm == "cut" else data[:-9] + b"!" + data[-8:])
    switch["mended"] = True
    calls.clear()
    assert heavy.resume("@last") == 50_000
    assert calls == ["stored", ("brittle", 0)]
    assert "1 run of 'stored' repeated: " in caplog.text


def made(body: str) -> Any:
    """Make a flow whose task has some code, under the same name each time."""
    scope = {"calls": calls, "brittle": brittle, "flow": flow, "task": task}
    source = f"""
@task
def step(x):
    calls.append(("step", x))
    return {body}

@flow
def changing():
    value = step(5)
    brittle(0)
    return value
"""
    exec(source, scope)
    return scope["changing"]


def test_changed_code_is_kept_and_told(caplog: pytest.LogCaptureFixture) -> None:
    made("x + 1")(return_state=True)
    calls.clear()
    switch["mended"] = True
    assert made("x + 2").resume("@last") == 6
    assert calls == [("brittle", 0)]
    assert "1 run of 'step' kept, though made by older code" in caplog.text


def test_changed_code_runs_again_when_that_is_asked_for(penstock_home: Path) -> None:
    made("x + 1")(return_state=True)
    calls.clear()
    switch["mended"] = True
    assert made("x + 2").resume("@last", rerun_changed=True) == 7
    assert calls == [("step", 5), ("brittle", 0)]
    assert problems_of(penstock_home / "history.db") == []
    tasks = history(penstock_home)("SELECT name, count(*) FROM tasks GROUP BY name ORDER BY name")
    assert tasks == [("brittle", 1), ("step", 2)]


def test_another_runner_may_go_on() -> None:
    with pytest.raises(ValueError, match="broken"):
        simple(3)
    calls.clear()
    switch["mended"] = True
    assert simple.with_options(task_runner=SequentialTaskRunner()).resume("@last") == 7
    assert calls == [("brittle", 0)]


def test_values_reach_a_process_pool() -> None:
    @flow
    def summed() -> int:
        values = [double.submit(i) for i in range(3)]
        brittle(0)
        return double.submit(values[2]).result()

    summed(return_state=True)
    switch["mended"] = True
    pool = summed.with_options(task_runner=ProcessPoolTaskRunner(max_workers=1))
    assert pool.resume("@last") == 8


def test_async_flows_go_on() -> None:
    @flow
    async def later() -> int:
        value = await double.submit(4)
        brittle(0)
        return value

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(later())
    calls.clear()
    switch["mended"] = True
    assert asyncio.run(later.resume("@last")) == 8
    assert calls == [("brittle", 0)]


def test_retries_of_the_flow_have_a_budget_of_their_own() -> None:
    @flow(retries=1)
    def tried() -> int:
        calls.append("flow")
        double(1)
        return brittle(0)

    tried(return_state=True)
    assert calls.count("flow") == 2
    assert calls.count(("double", 1)) == 1
    calls.clear()
    tried.resume("@last", return_state=True)
    assert calls == ["flow", ("brittle", 0)] * 2


def test_a_run_that_is_going_on_is_refused() -> None:
    begun, go_on = threading.Event(), threading.Event()

    @flow
    def waiting() -> int:
        begun.set()
        go_on.wait(30)
        return 1

    thread = threading.Thread(target=waiting)
    thread.start()
    assert begun.wait(10)
    recorder_for(load_settings()).flush()
    try:
        with pytest.raises(LeaseHeld, match=r"is being driven by process \d+ .*last sign of life"):
            waiting.resume("@last")
    finally:
        go_on.set()
        thread.join()


def test_a_resume_inside_a_flow_is_refused() -> None:
    simple(1, return_state=True)

    @flow
    def outer() -> None:
        simple.resume("@last")

    with pytest.raises(ResumeError, match="cannot be resumed inside another one"):
        outer()


def test_nothing_is_resumed_without_a_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RECORD", "off")
    with pytest.raises(ResumeError, match="PENSTOCK_RECORD is off"):
        simple.resume("@last")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_driver_that_lost_its_claim_stops_and_records_nothing(
    penstock_home: Path, is_async: bool
) -> None:
    """Another process takes the flow run over while it goes on."""

    def steal() -> None:
        with closing(sqlite3.connect(penstock_home / "history.db")) as connection:
            while not connection.execute("SELECT count(*) FROM leases").fetchone()[0]:
                pass
            connection.execute("UPDATE leases SET epoch = epoch + 1, pid = 1")
            connection.commit()

    def go_on() -> None:
        double(1)
        simple.resume  # noqa: B018 (bytecode to be interrupted at)
        steal()
        for number in range(2_000_000):
            double(number + 10)

    @flow
    def robbed() -> None:
        go_on()

    @flow
    async def arobbed() -> None:
        await asyncio.to_thread(steal)
        while True:
            double(1)
            await asyncio.sleep(0.001)

    with pytest.raises(LeaseLost) as caught:
        asyncio.run(arobbed()) if is_async else robbed()
    assert caught.value.code == 75
    select = history(penstock_home)
    assert select("SELECT state FROM flow_runs") == [("RUNNING",)]
    assert select("SELECT epoch FROM leases") == [(1,)]
    assert select("SELECT max(seq >> 40) FROM task_runs") in ([(0,)], [(None,)])


def test_limits_are_those_that_are_promised() -> None:
    assert STALE_SECONDS <= 15


def test_failures_without_exception_resume_too() -> None:
    @flow
    def vague() -> Any:
        calls.append("vague")
        return penstock.states.Failed("no") if not switch.get("mended") else 3

    with pytest.raises(FailedRun):
        vague()
    switch["mended"] = True
    assert vague.resume("@last") == 3


@task
def noted(path: str, x: int) -> int:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{x}\n")
    return x


@task
def calling(path: str, x: int) -> int:
    value = noted(path, x)
    if not Path(f"{path}.mended").exists():
        Path(f"{path}.mended").touch()
        raise RuntimeError("stop")
    return value


def test_a_retry_of_the_flow_keeps_what_a_task_on_a_worker_called(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger")

    @flow(retries=1, task_runner=ProcessPoolTaskRunner(max_workers=1))
    def tried() -> int:
        return calling.submit(path, 5).result()

    assert tried() == 5
    assert Path(path).read_text("utf-8") == "5\n"


def test_secrets_inside_arguments_are_not_kept(penstock_home: Path) -> None:
    @flow
    def nested(options: dict[str, str], url: str, plain: list[str]) -> int:
        brittle(0)
        return len(plain)

    given = {"api_key": "hunter2"}
    nested(given, "postgres://ada:hunter2@host/db", ["a", "b"], return_state=True)
    recorder_for(load_settings()).flush()
    for file in penstock_home.glob("history.db*"):
        assert b"hunter2" not in file.read_bytes()
    switch["mended"] = True
    with pytest.raises(ResumeError, match="argument 'options' of the run was not kept"):
        nested.resume("@last")
    assert nested.resume("@last", parameters={"options": {}, "url": ""}) == 2
