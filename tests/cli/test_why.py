from __future__ import annotations

import json
from typing import Any

import pytest

from penstock import flow, task
from penstock.cli.app import run_app
from penstock.runtime import recording
from tests.conftest import close_history


@task(cache_key_fn=lambda context, parameters: "the-key")
def make() -> int:
    return 1


@task
def fail() -> None:
    raise ValueError("no")


@task
def after(value: Any) -> None:
    """Depend on something."""


@flow
def example() -> None:
    make()
    make()
    after.submit(fail.submit()).wait()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_app(["why", *arguments]) == 0
    return capsys.readouterr().out


def test_why(capsys: pytest.CaptureFixture[str]) -> None:
    example(return_state=True)
    recording.close()

    assert "no usable value was there" in said(capsys, "@last", "make-0")
    cached = said(capsys, "@last:make:1")
    assert "It did not run: it has the value of make-0 (" in cached
    assert "Its cache key: the-key" in cached
    assert "it depends on what did not complete: fail-0 (failed)." in said(
        capsys, "@last", "after-0"
    )
    assert "the first run of this task" in said(capsys, "@last", "fail-0")


def test_why_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    example(return_state=True)
    close_history()

    told = json.loads(said(capsys, "@last", "make-1", "--json"))

    assert (told["ran"], told["reason"], told["schema"]) == (False, "cached", 1)
    assert told["more"] == ["Its cache key: the-key"]


def test_what_is_no_task_run(capsys: pytest.CaptureFixture[str]) -> None:
    example(return_state=True)
    close_history()

    assert run_app(["why", "@last", "make"]) == 2
    assert "'make' is no task run" in capsys.readouterr().err
    assert run_app(["why", "@last", "make-7"]) == 4
