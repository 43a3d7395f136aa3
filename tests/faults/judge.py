"""The judge: whether what a history says is what happened, whatever befell its drivers.

    model      what the tasks of a workload give, worked out without Penstock
    effects    a ledger that every task body writes into when it starts and when it ends
    crashes    how the history stood when a driver was dead

    present    every task of the model is recorded as completed, once; nothing else is
    repeated   what was recorded as completed before a crash has not started after it
    values     values, inputs, identities and places are those of the model
    kept       what a crash left is as it was, lost or gone, as its state demands
    epochs     what was written after a crash was written by a later driver
    told       the log lines of what completed are there, in order

The checks of a history alone are in tests/checker.py and part of the verdict.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.history.leases import LOST_MESSAGE
from penstock.results.kept import load_kept
from penstock.version import __version__
from tests.checker import History, epoch_of, problems_in, problems_of, told, upstreams_of
from tests.shapes import FINAL, Row

CANCELLED_MESSAGE = "The task run was cancelled."
_MINUTE = 60 * 10**9


@dataclass(frozen=True)
class Expected:
    """What becomes of one task run, or of one subflow run, which is known by its label.

    Attributes:
        task: the name of its task or flow.
        value: what it gives.
        upstream: labels of those that it depends on.
        parent: label of the task run or subflow run in which it is made.
        attempts: how many it takes when nothing disturbs it.
        certain: False: whether it is made at all is left to chance.
        cancelled: it may have been cancelled instead.
    """

    task: str
    value: object
    upstream: tuple[str, ...] = ()
    parent: str | None = None
    attempts: int = 1
    certain: bool = True
    cancelled: bool = False


@dataclass(frozen=True)
class Model:
    """A workload: what its flow begins with and gives, its task runs and subflow runs by label."""

    flow: str
    arguments: Mapping[str, object]
    value: object
    tasks: Mapping[str, Expected]
    subflows: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Effect:
    """A line of the ledger."""

    kind: str
    label: str
    task_run_id: bytes
    attempt: int
    at: int
    pid: int


@dataclass(frozen=True)
class Crash:
    """A driver has died: when that was certain, and how the history stood then."""

    at: int
    history: History


@dataclass
class Case:
    """All that is known of a flow run that was disturbed.

    Attributes:
        path: the history.
        began_at, ended_at: times before and after everything.
        runner: the name of its task runner, as far as known.
        drivers: the ids of the processes that drove it, as far as known.
        identities: those of an undisturbed run, by label; sources: those of its tasks, by key.
        losses: how many workers have died.
    """

    path: Path
    model: Model
    effects: Sequence[Effect]
    began_at: int = 0
    ended_at: int = 1 << 62
    runner: str | None = None
    drivers: frozenset[int] = frozenset()
    crashes: Sequence[Crash] = ()
    identities: Mapping[str, bytes] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    losses: int = 0


def read_effects(path: Path) -> list[Effect]:
    """Read a ledger; a last line that was cut is left out."""
    effects = []
    for line in path.read_text().splitlines() if path.exists() else []:
        words = line.split("\t")
        if len(words) == 6:
            kind, label, key, attempt, at, pid = words
            effects.append(Effect(kind, label, bytes.fromhex(key), int(attempt), int(at), int(pid)))
    return effects


def label_of(row: Row) -> str | None:
    """Give the label of a task run or flow run: its parameter of that name."""
    shown = json.loads(row["parameters"]).get("label")
    return None if shown is None else str(ast.literal_eval(shown))


def verdict(case: Case) -> list[str]:
    """Give all that is wrong; empty when nothing is."""
    return problems_of(case.path) or judged(case, History.read(case.path))


def judged(case: Case, history: History) -> list[str]:
    """Give all that is wrong with a history, from its rows."""
    if problems := problems_in(history):
        return problems  # what is judged below may stumble over them
    labelled: dict[str, list[Row]] = defaultdict(list)
    for row in history.task_runs.values():
        labelled[label_of(row) or "?"].append(row)
    return [
        *_present(case, history, labelled),
        *_repeated(case, history),
        *_values(case, history, labelled),
        *_kept(case, history),
        *_told(case, history),
        *_placed(case, history),
    ]


def _present(case: Case, history: History, labelled: Mapping[str, list[Row]]) -> Iterator[str]:
    for label, expected in case.model.tasks.items():
        states = Counter(row["state"] for row in labelled.get(label, ()))
        completed = states["COMPLETED"]
        fine = completed == 1 or (expected.cancelled and completed < 2 and states["CANCELLED"])
        if not fine and (expected.certain or completed):
            yield f"present: {label} completed {completed} times: {dict(states)}"
        for row in labelled.get(label, ()):
            yield from _expected_end(row, label, expected)
    numbers: dict[tuple[bytes, int], set[int]] = defaultdict(set)
    for row in history.task_runs.values():
        numbers[row["flow_run_id"], row["task"]].add(row["number"])
    for (_, task), given in numbers.items():
        # A crash may have taken along those that had not started.
        if not case.crashes and given != set(range(len(given))):
            yield f"present: the runs of task {task} have the numbers {given}"
    for label in labelled.keys() - case.model.tasks.keys():
        yield f"present: nobody expects {label}"
    outermost = [row for row in history.flow_runs.values() if row["parent_task_run_id"] is None]
    for row in outermost:
        if row["state"] != "COMPLETED" or row["flow"] != case.model.flow:
            yield f"present: the flow run is {told(row)} of {row['flow']}"
    subflows = Counter(
        label_of(row) for row in history.flow_runs.values() if row["parent_task_run_id"]
    )
    if len(outermost) != 1 or subflows != Counter(case.model.subflows):
        yield f"present: there are {len(outermost)} flow runs and the subflow runs {subflows}"


def _expected_end(row: Row, label: str, expected: Expected) -> Iterator[str]:
    states = {"COMPLETED", "CRASHED"} | ({"CANCELLED"} if expected.cancelled else set())
    if row["state"] not in states and row["state_name"] != "NotReady":
        yield f"present: {label} is {told(row)}"
    messages = {"COMPLETED": None, "CANCELLED": CANCELLED_MESSAGE, "CRASHED": LOST_MESSAGE}
    if row["message"] != messages.get(row["state"], row["message"]):
        yield f"present: {label} is {told(row)} with the message {row['message']!r}"


def _repeated(case: Case, history: History) -> Iterator[str]:
    by_run: dict[bytes, list[Effect]] = defaultdict(list)
    starts: dict[str, list[Effect]] = defaultdict(list)
    for effect in case.effects:
        by_run[effect.task_run_id].append(effect)
        if effect.kind == "start":
            starts[effect.label].append(effect)
    for row in history.task_runs.values():
        label = label_of(row) or "?"
        if label in case.model.tasks and label not in case.model.subflows:
            yield from _happened(row, label, by_run[row["id"]])
    for label, effects in starts.items():
        expected = case.model.tasks.get(label)
        allowed = expected.attempts * (1 + len(case.crashes)) + case.losses if expected else 0
        if len(effects) > allowed:
            yield f"repeated: {label} started {len(effects)} times, at most {allowed} are fine"
    for number, crash in enumerate(case.crashes, 1):
        for row in crash.history.task_runs.values():
            if row["state"] != "COMPLETED":
                continue
            label = label_of(row) or "?"
            late = [effect for effect in starts.get(label, ()) if effect.at > crash.at]
            if late:
                yield f"repeated: {label} had completed at crash {number}, and started again"


def _happened(row: Row, label: str, effects: list[Effect]) -> Iterator[str]:
    """Compare a row with what its task run has written into the ledger."""
    starts = [effect for effect in effects if effect.kind == "start"]
    ends = [effect for effect in effects if effect.kind == "end"]
    if any(effect.label != label for effect in effects):
        yield f"repeated: {told(row)} is {label}, but wrote as {effects[0].label}"
    if row["state"] == "COMPLETED":
        if not starts or not ends:
            yield f"repeated: {label} is recorded as completed and did not run"
        elif not row["started_at"] <= starts[0].at <= ends[-1].at <= row["ended_at"]:
            yield f"repeated: {label} ran at another time than is recorded"
        elif ends[-1].attempt != row["attempt"]:
            yield f"repeated: {label} completed with attempt {ends[-1].attempt}: {told(row)}"
    # Of what ran at a crash the last attempt may not be recorded.
    if len(starts) > (row["attempt"] or 0) + (row["message"] == LOST_MESSAGE):
        yield f"repeated: {label} started {len(starts)} times in {row['attempt']} attempts"


def value_of(row: Row) -> Any:
    """Give the kept value of a run; a stored one is read and its digest compared."""
    return load_kept(row["result"], row["result_codec"])


def _values(case: Case, history: History, labelled: Mapping[str, list[Row]]) -> Iterator[str]:
    for label, expected in case.model.tasks.items():
        for row in labelled.get(label, ()):
            yield from _fits(case, history, row, label, expected)
            yield from _worth(row, label, expected.value)
    for row in history.flow_runs.values():
        subflow = case.model.tasks.get(label_of(row) or "")
        value = case.model.value if subflow is None else subflow.value
        if subflow is not None and row["flow"] != subflow.task:
            yield f"values: flow run {told(row)} is of {row['flow']}"
        yield from _worth(row, "the flow run", value)


def _worth(row: Row, label: str, value: object) -> Iterator[str]:
    if row["state"] != "COMPLETED":
        return
    try:
        given = "nothing" if row["result"] is None else value_of(row)
    except Exception as exc:
        yield f"values: the value of {label} cannot be read: {exc!r}"
    else:
        if given != value:
            yield f"values: {label} gave {given!r} instead of {value!r}"


def _fits(case: Case, history: History, row: Row, label: str, expected: Expected) -> Iterator[str]:
    task = history.tasks.get((row["flow_run_id"], row["task"]))
    if task is not None and task["name"] != expected.task:
        yield f"values: {label} is a run of {task['name']}"
    if case.identities.get(label, row["identity"]) != row["identity"]:
        yield f"values: {label} has another identity than in an undisturbed run"
    upstreams = [history.task_runs.get(key) for key in upstreams_of(row)]
    labels = [label_of(upstream) for upstream in upstreams if upstream is not None]
    is_whole = row["state"] == "COMPLETED" or None not in upstreams
    if is_whole and Counter(labels) != Counter(expected.upstream):
        yield f"values: {label} depends on {labels}"
    parent = _parent_of(history, row)
    if parent != expected.parent:
        yield f"values: {label} was made in {parent}"


def _parent_of(history: History, row: Row) -> str | None:
    """Give the label of the task run or subflow run in which a task run was made."""
    key = json.loads(row["detail"] or "{}").get("parent_task_run_id")
    if key is not None:
        parent = history.task_runs.get(bytes.fromhex(key))
        return "?" if parent is None else label_of(parent)
    flow_run = history.flow_runs.get(row["flow_run_id"])
    return None if flow_run is None else label_of(flow_run)


def _kept(case: Case, history: History) -> Iterator[str]:
    for number, crash in enumerate(case.crashes, 1):
        for key, before in crash.history.task_runs.items():
            yield from _went_on(before, history.task_runs.get(key), number)
        for key, lease in crash.history.leases.items():
            now = history.leases.get(key)
            if now is not None and now["epoch"] < lease["epoch"]:
                yield f"epochs: at crash {number} the epoch was {lease['epoch']}"
        yield from _written_later(crash.history, history, number)


def _went_on(before: Row, now: Row | None, number: int) -> Iterator[str]:
    state = before["state"]
    if state in FINAL:
        if now != before:
            yield f"kept: {told(before)} was final at crash {number} and changed: {now}"
    elif before["started_at"] is None:
        if now is not None:
            yield f"kept: {told(before)} had not started at crash {number}, and is {told(now)}"
    elif now is None or now["state"] != "CRASHED":
        lost = "gone" if now is None else told(now)
        yield f"kept: {told(before)} was running at crash {number} and is {lost}"


def _written_later(before: History, now: History, number: int) -> Iterator[str]:
    """Check that what was written after a crash belongs to a later epoch."""
    for row in [*now.flow_runs.values(), *now.task_runs.values()]:
        table = before.task_runs if "task" in row else before.flow_runs
        flow_run = before.flow_runs.get(row.get("flow_run_id", row["id"]))
        is_new = flow_run is not None and table.get(row["id"]) != row
        was_lost = row["message"] == LOST_MESSAGE
        if is_new and not was_lost and epoch_of(row) <= epoch_of(flow_run or row):
            yield f"epochs: {told(row)} was written after crash {number} by who had died"


def _told(case: Case, history: History) -> Iterator[str]:
    lines: dict[bytes, list[Row]] = defaultdict(list)
    for line in sorted(history.logs, key=lambda line: int(line["position"])):
        of_task_run = line["task_run_id"] is not None
        if of_task_run != ((line["level"], line["logger"]) == (20, "penstock.task_runs")):
            yield f"told: {line['message']!r} was logged by {line['logger']} at {line['level']}"
        if not case.began_at <= line["at"] <= case.ended_at:
            yield f"told: {line['message']!r} was written before or after everything"
        if of_task_run:
            lines[line["task_run_id"]].append(line)
    effects: dict[bytes, list[tuple[int, str]]] = defaultdict(list)
    for effect in case.effects:
        effects[effect.task_run_id].append((effect.attempt, f"{effect.label} {effect.kind}s"))
    for key, row in history.task_runs.items():
        times = [(line["attempt"] or 0, line["at"]) for line in lines[key]]
        if times != sorted(times) or (times and times[-1][1] > (row["ended_at"] or 1 << 62)):
            yield f"told: the log lines of {told(row)} are not in order, or behind its end"
        messages = [(line["attempt"], line["message"]) for line in lines[key]]
        happened = effects[key]
        if row["state"] != "COMPLETED":
            # A crash takes lines along, and a cancelled body may only come to say that it ends.
            messages = messages[: max(len(happened), 1)]
            happened = happened[: len(messages)]
        if messages != happened:
            yield f"told: the log lines of {told(row)} are {messages} instead of {happened}"


def _begun(case: Case, row: Row) -> Iterator[str]:
    """Check what a flow run could be continued with."""
    if row["parent_task_run_id"] is not None:
        if row["arguments"] is not None or row["origin"] is not None:
            yield f"values: subflow run {told(row)} has what only outermost ones have"
        return
    try:
        packed = pickle.loads(row["arguments"] or pickle.dumps({}))
        arguments = {name: pickle.loads(data) for name, data in packed.items()}
    except Exception as exc:
        arguments = {"": exc}
    if arguments != case.model.arguments:
        yield f"values: {told(row)} began with {arguments}"
    if json.loads(row["origin"] or "{}").get("name") != row["flow"]:
        yield f"values: {told(row)} comes from {row['origin']}"


def _driven(history: History, row: Row) -> Iterator[str]:
    """Compare a flow run with its lease."""
    lease = history.leases.get(row["id"])
    if row["parent_task_run_id"] is not None:
        if lease is not None:
            yield f"epochs: subflow run {told(row)} has a lease of its own"
        return
    if lease is None:
        yield f"epochs: {told(row)} has no lease"
        return
    names = ("host", "pid", "pid_started_at")
    if any(lease[name] != row[name] for name in names) or lease["epoch"] != epoch_of(row):
        yield f"epochs: {told(row)} was not written by who has the lease: {lease}"
    # The last sign of life is given with the end.
    if not row["created_at"] <= lease["beat_at"] <= (row["ended_at"] or 1 << 62) + _MINUTE:
        yield f"epochs: the lease of {told(row)} dates from {lease['beat_at']}"
    if not 0 < lease["counter"] <= len(history.logs) + len(history.task_runs) + 1000:
        yield f"epochs: the lease of {told(row)} has the counter {lease['counter']}"


def _placed(case: Case, history: History) -> Iterator[str]:
    """Check what is said about the programs that ran."""
    for row in history.flow_runs.values():
        known = (os.uname().nodename, __version__)
        if (row["host"], row["penstock_version"]) != known:
            yield f"values: {told(row)} ran at {row['host']} with {row['penstock_version']}"
        if not row["flow_key"].endswith(f".{row['flow']}"):
            yield f"values: {told(row)} is of {row['flow']} at {row['flow_key']}"
        if label_of(row) is None and row["runner"] != (case.runner or row["runner"]):
            yield f"values: {told(row)} ran on {row['runner']}"
        if case.drivers and row["pid"] not in case.drivers:
            yield f"values: {told(row)} was driven by process {row['pid']}"
        if row["created_at"] < case.began_at or (row["ended_at"] or 0) > case.ended_at:
            yield f"values: {told(row)} ran before or after everything"
        yield from _begun(case, row)
        yield from _driven(history, row)
    if history.leases.keys() - history.flow_runs.keys():
        yield "values: there is a lease of an unknown flow run"
    for task in history.tasks.values():
        if not task["key"].endswith(f".{task['name']}"):
            yield f"values: task {task['name']} is {task['key']}"
        if case.sources.get(task["key"], task["source"]) != task["source"]:
            yield f"values: task {task['name']} has the source {task['source']}"
    facts: list[tuple[str, Any, Any]] = [
        *(("process", row["pid"], row["pid_started_at"]) for row in history.flow_runs.values()),
        *(("version", None, row["version"]) for row in history.flow_runs.values()),
        *(("source", task["key"], task["source"]) for task in history.tasks.values()),
    ]
    told_of: dict[tuple[str, Any], Any] = {}
    for kind, key, fact in facts:
        if told_of.setdefault((kind, key), fact) != fact:
            yield f"values: the {kind} {key} has {fact!r} and {told_of[kind, key]!r}"
