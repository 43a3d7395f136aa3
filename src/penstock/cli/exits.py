"""Exit codes, and what an exception means to whoever typed the command."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from penstock import errors


class Exit(enum.IntEnum):
    """The exit codes of every command; they are public and never change their meaning."""

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    INTERNAL = 3
    NOT_FOUND = 4
    CRASHED = 5
    BAD_DATA = 65
    UNAVAILABLE = 69
    HISTORY_UNAVAILABLE = 74
    LEASE_HELD = 75
    HANGUP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


@dataclass(frozen=True)
class Problem:
    """A failed command: its exit code, a stable word, what happened, what to do."""

    exit: int
    code: str
    reason: str
    hint: str = ""


class CommandError(Exception):
    """A problem that a command found itself."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason)
        self.problem = problem


def usage_error(reason: str, hint: str = "") -> CommandError:
    """Make the error of a command that was typed in a way it cannot work."""
    return CommandError(Problem(Exit.USAGE, "usage", reason, hint))


# The first entry that fits decides.
_KINDS: tuple[tuple[type[BaseException], Exit, str, str], ...] = (
    (errors.RunNotFound, Exit.NOT_FOUND, "not_found", ""),
    (errors.AmbiguousRun, Exit.NOT_FOUND, "ambiguous", ""),
    (errors.LeaseHeld, Exit.LEASE_HELD, "lease_held", ""),
    (errors.ResumeError, Exit.USAGE, "resume", ""),
    (errors.HistoryTooNew, Exit.BAD_DATA, "history_too_new", ""),
    (errors.HistoryCorrupt, Exit.BAD_DATA, "history_corrupt", ""),
    (errors.HistoryUnavailable, Exit.HISTORY_UNAVAILABLE, "history_unavailable", ""),
    (errors.HistoryError, Exit.USAGE, "database", ""),
    (errors.MissingDependencyError, Exit.UNAVAILABLE, "missing_dependency", ""),
    (errors.ResultMissing, Exit.NOT_FOUND, "result_missing", ""),
    (errors.ResultCorrupt, Exit.BAD_DATA, "result_corrupt", ""),
    (errors.ResultStorageError, Exit.UNAVAILABLE, "result_storage", ""),
    (errors.EngineUnreachable, Exit.UNAVAILABLE, "engine_unreachable", ""),
    (errors.SettingsError, Exit.USAGE, "settings", ""),
    (errors.ParameterBindError, Exit.USAGE, "parameters", ""),
    (errors.ParameterTypeError, Exit.USAGE, "parameters", ""),
)


def problem_of(exc: BaseException) -> Problem | None:
    """Tell what an exception of Penstock's own means; None for one that nobody expected."""
    if isinstance(exc, CommandError):
        return exc.problem
    for kind, code, word, hint in _KINDS:
        if isinstance(exc, kind):
            return Problem(code, word, str(exc), hint)
    return None
