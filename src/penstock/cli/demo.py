"""`penstock demo`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from penstock.cli.run import configured, run_and_tell
from penstock.cli.runners import runner_option, workers_option
from penstock.cli.session import RUN_OPTIONS, Session, with_session


@click.command()
@runner_option
@workers_option
@with_session(RUN_OPTIONS)
def demo(session: Session, runner: str | None, workers: int | None) -> int:
    """Run a small built-in flow, to have something to look at.

    It measures modules of the Python standard library. Some reads fail at first and are tried
    again, and one module is broken, on purpose. It is recorded in your history.
    """

    def prepare() -> tuple[Any, Callable[[], Any]]:
        from penstock.cli.demo_flow import module_report

        flow = configured(module_report, runner, workers)
        return flow, partial(flow, return_state=True)

    code = run_and_tell(session, prepare)
    for line in _LOOK:
        session.talk(line)
    return code


_LOOK = (
    "",
    "The failure above was made on purpose. Now look around:",
    "  penstock ls                     the runs in your history",
    "  penstock show                   the last run",
    "  penstock tasks --state failed   its failures",
    "  penstock logs --level warn      its warnings",
)
