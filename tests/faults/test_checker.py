"""The history checker finds what is wrong: good histories with one thing changed."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from penstock import flow, get_run_logger, task
from penstock.runtime import recording
from tests.checker import TABLES, problems_of
from tests.faults import judge, workload
from tests.faults.mutations import try_mutations

MUTATIONS = {
    "closed": [
        "DELETE FROM task_runs WHERE upstream IS NULL AND parameters LIKE '%origin%'",
        "UPDATE task_runs SET state = 'FAILED' WHERE parameters LIKE '%origin%'",
        "UPDATE task_runs SET seq = 1000 WHERE parameters LIKE '%origin%'",
        "UPDATE task_runs SET upstream = zeroblob(16) WHERE upstream IS NOT NULL",
    ],
    "settled": [
        "UPDATE task_runs SET state = 'RUNNING', ended_at = NULL WHERE attempt > 1",
        "UPDATE task_runs SET state = 'PENDING', ended_at = NULL WHERE upstream IS NOT NULL",
    ],
    "counted": [
        "UPDATE counts SET number = number + 1",
        "DELETE FROM counts",
        "UPDATE task_runs SET state = 'CANCELLED' WHERE attempt > 1",
        "INSERT INTO task_runs (id, flow_run_id, seq, task, number, state, attempt, created_at,"
        " parameters) SELECT randomblob(16), flow_run_id, seq, task, 99, state, attempt,"
        " created_at, parameters FROM task_runs LIMIT 1",
    ],
    "timed": [
        "UPDATE task_runs SET started_at = ended_at + 1",
        "UPDATE task_runs SET ended_at = NULL",
        "UPDATE flow_runs SET ended_at = NULL",
        "UPDATE task_runs SET attempt = attempt + 1",
        "UPDATE task_runs SET states = NULL WHERE attempt > 1",
        "UPDATE task_runs SET states = json_remove(states, '$[1]') WHERE attempt > 1",
        "UPDATE task_runs SET states = json_remove(states, '$[#-1]') WHERE attempt > 1",
        "UPDATE task_runs SET states = json_set(states, '$[1][2]', 1) WHERE attempt > 1",
        "UPDATE task_runs SET started_at = NULL",
    ],
    "attributed": [
        "DELETE FROM tasks",
        "DELETE FROM flow_runs",
        "UPDATE logs SET task_run_id = randomblob(16)",
        "UPDATE flow_runs SET parent_task_run_id = randomblob(16)",
    ],
}


@task
def step(value: object) -> object:
    get_run_logger().info("a line")
    return value


def write_history(home: Path) -> Path:
    """Record a flow with a dependency and a retried task run."""
    tries = []

    @task(retries=1)
    def flaky() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")

    @flow
    def small() -> None:
        step.submit(step.submit("origin"))
        flaky.submit()

    small()
    recording.close()
    return home / "history.db"


def test_good_history_has_no_problems(penstock_home: Path) -> None:
    assert problems_of(write_history(penstock_home)) == []


@pytest.mark.parametrize(
    ("invariant", "statement"),
    [(name, statement) for name, statements in MUTATIONS.items() for statement in statements],
)
def test_mutated_history_is_found_out(penstock_home: Path, invariant: str, statement: str) -> None:
    path = write_history(penstock_home)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER task_runs_final_states")
        connection.execute("DROP TRIGGER flow_runs_final_states")
        assert connection.execute(statement).rowcount
        connection.commit()
    assert any(problem.startswith(invariant) for problem in problems_of(path))


@pytest.fixture(scope="module")
def good_case(tmp_path_factory: pytest.TempPathFactory) -> judge.Case:
    """Record a flow with some of everything; gives what is known of it."""
    home = tmp_path_factory.mktemp("good")
    variables = {"PENSTOCK_HOME": str(home), "FAULTS_LEDGER": str(home / "ledger")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        began_at = time.time_ns()
        assert workload.mix() == workload.model().value
        recording.close()
    return judge.Case(
        home / "history.db",
        workload.model(),
        judge.read_effects(home / "ledger"),
        began_at=began_at,
        ended_at=time.time_ns(),
        runner="ConcurrentTaskRunner",
        drivers=frozenset({os.getpid()}),
    )


def test_good_case_is_judged_good(good_case: judge.Case) -> None:
    assert judge.verdict(good_case) == []


def test_every_kind_of_mutation_is_found_out(good_case: judge.Case) -> None:
    tried = try_mutations(good_case)
    assert len(tried) > 140
    assert {each.table for each in tried} == set(TABLES)
