"""The group of all commands, each loaded when it is used, and the one place where errors end."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from penstock.cli.exits import Exit, Problem, problem_of
from penstock.cli.screen import Screen
from penstock.cli.session import Session
from penstock.cli.text import clean, clean_lines

# name: the module in this folder, the function in it, and the line of `penstock --help`.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("run", "run", "Run a flow of a Python file, with live progress."),
    "resume": ("resume", "resume", "Continue a flow run that did not complete."),
    "bench": ("bench", "bench", "Run a flow on several task runners and compare them."),
    "demo": ("demo", "demo", "Run a small built-in flow, to have something to look at."),
    "ls": ("flow_runs", "ls", "List flow runs, newest first."),
    "show": ("flow_runs", "show", "Show one flow run: state, failures, progress."),
    "tasks": ("task_runs", "tasks", "List the task runs of a flow run."),
    "task": ("task_runs", "task", "Show one task run."),
    "why": ("why", "why_command", "Say why a task run ran, or did not."),
    "logs": ("logs", "logs", "Show the log lines of a flow run."),
    "result": ("results", "result", "Show or save the kept result of a run."),
    "gc": ("sweep", "gc", "Remove stored results that nothing refers to."),
    "version": ("version", "version", "Show versions."),
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"penstock.cli.{module}"), function)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {clean(args[0])!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table, so that `--help` loads no command.
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="RUN is an id, the beginning of one, a run's name, @last or @last-failed.",
)
def app() -> None:
    """Penstock runs Python functions as recorded flows of tasks."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with the right exit code.

    Args:
        arguments: what was typed after `penstock`; default `sys.argv[1:]`.
    """
    sys.exit(run_app(sys.argv[1:] if arguments is None else list(arguments)))


def run_app(arguments: list[str]) -> int:
    """Run the command line and give the exit code."""
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_has_gone()
    return code


def _invoke(arguments: list[str]) -> int:
    try:
        # Not `app.main`, which gives a closed pipe an exit code of its own.
        with app.make_context("penstock", arguments) as context:
            code: Any = app.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.UsageError as exc:
        return _report(arguments, Problem(Exit.USAGE, "usage", exc.format_message(), _usage(exc)))
    except click.ClickException as exc:
        return _report(arguments, Problem(Exit.USAGE, "usage", exc.format_message()))
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as exc:
        return _report(arguments, problem_of(exc) or _internal(exc, arguments))
    return code if isinstance(code, int) else 0


def _usage(exc: click.UsageError) -> str:
    if isinstance(exc, click.exceptions.NoArgsIsHelpError) or exc.ctx is None:
        return ""
    return f"See: {exc.ctx.command_path} --help"


def _internal(exc: Exception, arguments: list[str]) -> Problem:
    if {"-v", "--verbose"} & set(arguments):
        import traceback

        traceback.print_exception(exc)
    text = f"Penstock itself failed, this is a bug: {type(exc).__name__}: {exc}"
    return Problem(Exit.INTERNAL, "internal", text, "Type it again with -v for the traceback.")


def _report(arguments: list[str], problem: Problem) -> int:
    """Say what went wrong: as JSON on stdout where JSON is expected, else on stderr."""
    if {"--json", "--jsonl"} & set(arguments):
        Session(json=True).emit_problem(problem)
        return problem.exit
    screen = Screen(sys.stderr, no_color="--no-color" in arguments)
    first, *rest = clean_lines(problem.reason)
    # The help that click gives for a bare `penstock` is no error text.
    mark = "" if first.startswith("Usage:") else screen.style("Error: ", "red", "bold")
    screen.line(mark + first)
    for line in rest:
        screen.line(line)
    if problem.hint:
        screen.line("  " + clean(problem.hint))
    return problem.exit


def _reader_has_gone() -> int:
    """Leave silently when whoever reads our output (`| head`) has enough."""
    # What is still buffered must not be tried again when the interpreter closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.BROKEN_PIPE
