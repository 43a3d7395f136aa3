"""Hooks: the user's functions that run once after a state was entered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import CoroutineType
from typing import Any

from penstock.errors import TerminationSignal
from penstock.runtime.interrupts import Interrupted
from penstock.states import State, StateType

logger = logging.getLogger("penstock.hooks")
Hooks = Mapping[StateType, Sequence[Callable[..., Any]]]


def run_hooks(hooks: Hooks, definition: Any, run: Any, state: State) -> None:
    """Call the hooks for the type of a state; what they raise is logged and changes nothing."""
    for hook in hooks.get(state.type, ()):
        try:
            outcome = hook(definition, run, state)
            if isinstance(outcome, CoroutineType):
                _run_to_end(outcome)
        except BaseException as exc:
            if _is_for_others(exc):
                raise
            name = getattr(hook, "__name__", repr(hook))
            logger.exception("The hook %r of %r failed.", name, run.name)


def _is_for_others(exc: BaseException) -> bool:
    """Tell whether a hook was interrupted from outside: a Ctrl-C, a signal, a time limit.

    What it raised itself, were it SystemExit, must not keep the run from ending.
    """
    if isinstance(exc, Interrupted):
        return True
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and isinstance(exc, KeyboardInterrupt | TerminationSignal)


def _run_to_end(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run an asynchronous hook on a loop of its own: the thread here may run one already."""
    import asyncio

    problems: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as exc:
            problems.append(exc)

    thread = threading.Thread(target=run, name="penstock-hook", daemon=True)
    thread.start()
    thread.join()
    for problem in problems:
        raise problem
