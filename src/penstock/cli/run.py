"""`penstock run`."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from penstock.cli.exits import CommandError, Exit, Problem, problem_of
from penstock.cli.loading import (
    LoadingFailed,
    find_flow,
    load_file,
    parameter_option,
    read_parameters,
    split_target,
)
from penstock.cli.progress import Sample, shown_progress
from penstock.cli.runners import make_runner, runner_option, with_workers, workers_option
from penstock.cli.session import RUN_OPTIONS, Session, with_session
from penstock.cli.stopping import Stopping
from penstock.cli.summary import Ending, read_ending, write_summary
from penstock.cli.text import clean
from penstock.cli.tracebacks import describe, failure_lines, frames_of
from penstock.errors import (
    CrashedRun,
    FailedRun,
    HistoryError,
    RemoteTaskError,
    RunError,
    RunNotFound,
    TerminationSignal,
    UnfinishedRun,
)
from penstock.states import State, exception_to_crashed_state, failure_of

_MOST_LOOKED_AT = 1_000
_EXITS = {"COMPLETED": Exit.COMPLETED, "CRASHED": Exit.CRASHED}


@dataclass
class Outcome:
    """What calling a flow came to: a state, or the interrupt that ended it; and the exit code."""

    flow_name: str
    state: State
    exit: int
    interrupted: bool = False


@click.command()
@click.argument("target", metavar="FILE.py[:FLOW]")
@parameter_option
@runner_option
@workers_option
@click.option(
    "--resume-last", is_flag=True, help="Continue the last run of the flow instead of a new one."
)
@with_session(RUN_OPTIONS)
def run(
    session: Session,
    target: str,
    parameters: tuple[str, ...],
    runner: str | None,
    workers: int | None,
    resume_last: bool,
) -> int:
    """Run a flow of a Python file, with live progress.

    FLOW is the name of the flow; it can be left out when the file has one flow, or one named
    main. What the flow prints goes to stdout, everything else to stderr.
    """
    file, name = split_target(target)

    def prepare() -> tuple[Any, Callable[[], Any]]:
        flow = configured(find_flow(load_file(file), name), runner, workers)
        values = read_parameters(parameters, flow.fn)
        if resume_last:
            id = last_run(session, flow)
            return flow, partial(flow.resume, id, parameters=values, return_state=True)
        return flow, partial(flow, **values, return_state=True)

    return run_and_tell(session, prepare)


def last_run(session: Session, flow: Any) -> str:
    """Give the id of the last run of a flow that is no subflow run.

    Raises:
        CommandError: there is none.
    """
    for row in session.reader().flow_runs(flow=flow.name, limit=_MOST_LOOKED_AT):
        if row["flow_key"] == flow.key and row["parent_task_run_id"] is None:
            return str(row["id"])
    raise CommandError(
        Problem(
            Exit.NOT_FOUND,
            "not_found",
            f"There is no run of {flow.name!r} to resume.",
            "Run it without --resume-last.",
        )
    )


def configured(flow: Any, runner: str | None, workers: int | None) -> Any:
    """Give the flow with the task runner that was asked for."""
    if runner is None and workers is None:
        return flow
    if runner is None:
        assert workers is not None
        return flow.with_options(task_runner=with_workers(flow.task_runner, workers))
    return flow.with_options(task_runner=make_runner(runner, workers))


def run_and_tell(session: Session, prepare: Callable[[], tuple[Any, Callable[[], Any]]]) -> int:
    """Run a flow with live progress, say how it ended, and give the exit code.

    Args:
        prepare: gives the flow, and what to call to run it, which gives its state; called when
            prints are looked after already.
    """
    sample = Sample(_live_flow_runs)
    # Below the live block, which stays where it is.
    stopping = Stopping(lambda text: session.err.line(text if session.err.plain else "\n" + text))
    with stdout_on_stderr(session.json):
        try:
            with shown_progress(session.err, sample, quiet=session.quiet), stopping.watched():
                flow, start = prepare()
                outcome = call(flow, start, stopping)
        except LoadingFailed as exc:
            write_loading(session, exc)
            return Exit.FAILED
        ending = _ending(session, outcome, sample)
        write_summary(session, ending)
    if session.json:
        session.emit(flow_run=ending.flow_run or {"flow": ending.flow_name, "state": ending.state})
    return outcome.exit


def _live_flow_runs() -> Any:
    # Nothing runs before the user's file has loaded the runtime.
    # The user's file may be loading it this very moment, in another thread.
    live = sys.modules.get("penstock.runtime.live")
    running = getattr(live, "live_flow_runs", None)
    return running() if running is not None else []


def call(flow: Any, start: Callable[[], Any], stopping: Stopping) -> Outcome:
    """Run a flow and find the exit code.

    Args:
        start: runs it and gives its state, or a coroutine that does.

    Raises:
        ParameterBindError: the values do not fit the flow's function.
    """
    try:
        state = start()
        if inspect.iscoroutine(state):
            import asyncio  # slow to load, and most flows need none

            with asyncio.Runner(loop_factory=stopping.loop) as runner:
                state = runner.run(state)
    except KeyboardInterrupt as exc:
        return _interrupted(flow, exc, Exit.INTERRUPTED)
    except SystemExit as exc:
        if isinstance(exc.code, str):
            print(exc.code, file=sys.stderr)
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        return _interrupted(flow, exc, code)
    return Outcome(flow.name, state, _exit_of(state))


def _interrupted(flow: Any, exc: BaseException, code: int) -> Outcome:
    by_signal = isinstance(exc, KeyboardInterrupt | TerminationSignal)
    return Outcome(flow.name, exception_to_crashed_state(exc), code, interrupted=by_signal)


def _exit_of(state: State) -> int:
    """Find the exit code for a final state; an error of Penstock's own may have one."""
    if not state.is_completed():
        failure = failure_of(state)
        problem = problem_of(failure)
        # An engine is started when a flow first submits: that its code was there says nothing.
        if problem is not None and problem.exit == Exit.UNAVAILABLE:
            return problem.exit
        failure = failure.__cause__ or failure
        problem = problem_of(failure)
        # What the user's code did wrong makes the flow fail, like any error of its own.
        if problem is not None and not any(f.is_users for f in frames_of(failure.__traceback__)):
            return problem.exit
    return _EXITS.get(state.type.value, Exit.FAILED)


def _ending(session: Session, outcome: Outcome, sample: Sample) -> Ending:
    state = outcome.state
    ending = Ending(
        outcome.flow_name,
        {"type": state.type.value, "name": state.name, "message": state.message},
        problem=_problem(state),
        result=state.data if state.is_completed() else None,
        interrupted=outcome.interrupted,
    )
    sampled = sample.run
    if sampled is not None:
        ending.counts = sampled.counts()
    flow_run_id = state.run_id or (sampled.id if sampled is not None else None)
    if flow_run_id is not None and _records():
        _read(session, ending, str(flow_run_id))
    return ending


def _problem(state: State) -> BaseException | None:
    """Give what the caller of the flow would get, if it says more than the state's message."""
    if state.is_completed() or isinstance(state.data, KeyboardInterrupt | SystemExit):
        return None
    problem = failure_of(state)
    if isinstance(problem, RunError) and not isinstance(problem, RemoteTaskError):
        problem = problem.__cause__ or problem
    return None if isinstance(problem, FailedRun | CrashedRun | UnfinishedRun) else problem


def _records() -> bool:
    from penstock.settings import load_settings

    return load_settings().record


def _read(session: Session, ending: Ending, flow_run_id: str) -> None:
    """Read what was recorded; a history that cannot be read takes nothing from the outcome."""
    try:
        read_ending(ending, session.reader(), flow_run_id, times=not session.quiet)
    except RunNotFound:
        return
    except HistoryError as exc:
        session.talk(f"The history cannot be read now: {clean(str(exc))}")


def write_loading(session: Session, failure: LoadingFailed) -> None:
    cause = failure.__cause__
    assert cause is not None
    screen = session.err
    if session.verbose:
        import traceback

        traceback.print_exception(cause)
    lines = failure_lines(f"{failure} cannot be loaded: {describe(cause)}", cause)
    for number, line in enumerate(lines):
        text = screen.encodable(clean(line))
        screen.line(text if number else screen.style(text, "red"))


@contextlib.contextmanager
def stdout_on_stderr(wanted: bool) -> Iterator[None]:
    """Send everything printed meanwhile to stderr, where stdout is to carry one answer alone."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    stdout, kept = sys.stdout.fileno(), os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), stdout)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, stdout)
        os.close(kept)
