"""`penstock resume`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from penstock.cli.loading import parameter_option, read_parameters
from penstock.cli.origins import load_flow
from penstock.cli.run import configured, run_and_tell
from penstock.cli.runners import runner_option, workers_option
from penstock.cli.session import RUN_OPTIONS, Session, with_session
from penstock.cli.words import short
from penstock.errors import ResumeError


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--rerun-changed", is_flag=True, help="Run again also what older code completed.")
@click.option(
    "--steal", is_flag=True, help="Take it from a process that shows no life for 10 seconds."
)
@parameter_option
@runner_option
@workers_option
@with_session(RUN_OPTIONS)
def resume(
    session: Session,
    run: str,
    rerun_changed: bool,
    steal: bool,
    parameters: tuple[str, ...],
    runner: str | None,
    workers: int | None,
) -> int:
    """Continue a flow run that crashed, failed or was cancelled.

    The flow runs again from the top; task runs that completed and were kept are not run again.
    Its code is loaded from where it was. One process at a time drives a run: exit code 75 says
    that another one does.
    """
    reader = session.reader()
    id = reader.find_flow_run(run)["id"]
    migrate()
    row = reader.resumable(id).row
    if row["state"] == "COMPLETED":
        session.talk(f"Run {row['name']!r} ({short(id)}) has completed already. Nothing to do.")
        if session.json:
            session.emit(flow_run=reader.find_flow_run(id))
        return 0

    if row["parent_task_run_id"] is not None:
        raise ResumeError(
            f"{row['name']!r} is a subflow run: resume the flow run that it is a part of."
        )

    def prepare() -> tuple[Any, Callable[[], Any]]:
        flow = configured(load_flow(row), runner, workers)
        given = read_parameters(parameters, flow.fn)
        return flow, partial(
            flow.resume,
            id,
            parameters=given,
            rerun_changed=rerun_changed,
            steal=steal,
            return_state=True,
        )

    return run_and_tell(session, prepare)


def migrate() -> None:
    """Bring an older history up to date, as any run does that is recorded in it."""
    from penstock.runtime.recording import recorder_for
    from penstock.settings import load_settings

    settings = load_settings()
    if settings.record:
        recorder_for(settings)
