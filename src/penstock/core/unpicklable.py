"""Find what it is, deep inside a value, that cannot be pickled, and say how to get there.

From a value that does not pickle the search goes to the first part that does not pickle by
itself either, until all parts do: that one is to blame. Parts are those that pickle would visit:
elements, what `__reduce_ex__` gives, and for functions that travel by value their closure
variables, globals and defaults. No `__repr__` of a user's class is ever called.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from types import CodeType, FunctionType, MethodType
from typing import Any

from penstock.core.callables import bound_method
from penstock.core.previews import preview
from penstock.errors import SerializationError, TerminationSignal
from penstock.states import describe_exception

MOST_OBJECTS = 10_000
"""Parts that are tried before the search is content with what it has."""

DEEPEST = 50
"""Steps of the longest path."""

Attempt = Callable[[object], object]
"""Pickles a value, or raises."""

_LONGEST_REASON = 300
_BUILT_IN = frozenset({"builtins", "__builtin__"})
_ADVICE = (
    (("Connection", "Cursor", "Session", "Engine", "Client", "socket"),
     "open it inside the task"),
    (("TextIOWrapper", "BufferedReader", "BufferedWriter", "BufferedRandom", "FileIO"),
     "pass the path and open the file inside the task"),
    (("lock", "RLock", "Condition", "Event", "Semaphore", "Thread", "_local", "local"),
     "it belongs to this process; make it inside the task, or run the task on the "
     "ConcurrentTaskRunner"),
    (("generator", "async_generator", "coroutine", "map", "filter", "zip"),
     "pass a list of its elements"),
)  # fmt: skip
_DEFAULT_ADVICE = "make it inside the task, or run the task on the ConcurrentTaskRunner"
_DEPTH_ADVICE = "it is nested too deeply; pass it in a flatter form"


def refusal(exc: BaseException) -> BaseException:
    """Give an exception that pickling raised back, unless it is to end the program.

    Objects may raise anything when they are pickled; a signal that arrives meanwhile passes on.
    """
    if isinstance(exc, TerminationSignal) or not isinstance(exc, Exception | SystemExit):
        raise exc
    return exc


def unpicklable(
    label: str,
    value: object,
    reason: BaseException,
    attempt: Attempt,
    advice: str | None = None,
) -> SerializationError:
    """Make the error for a value that `attempt` refused.

    Args:
        label: how the path begins, such as "argument 'config'".
        value: the value.
        reason: what `attempt` raised.
        attempt: pickles a value, or raises.
        advice: what to do; default what helps with arguments of that type.
    """
    path, culprit, reason = _Search(attempt).run(value, reason)
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ in _BUILT_IN else _full_name(kind)
    text = describe_exception(reason)
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + "…"
    return SerializationError(
        f"{' -> '.join([label, *path])} : {name} cannot be pickled: {text.rstrip('.')}; "
        f"{advice or _advice(kind, reason)}."
    )


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _advice(kind: type, reason: BaseException) -> str:
    if isinstance(reason, RecursionError) or isinstance(reason.__cause__, RecursionError):
        return _DEPTH_ADVICE
    names = {each.__name__ for each in kind.__mro__}
    return next((text for known, text in _ADVICE if names & set(known)), _DEFAULT_ADVICE)


class _Search:
    """One search; counts what it tries."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.left = MOST_OBJECTS
        # Parts may be made while they are listed; kept, so that no two have the same id.
        self.tried: dict[int, object] = {}

    def run(self, value: object, reason: BaseException) -> tuple[list[str], object, BaseException]:
        path: list[str] = []
        self.tried[id(value)] = value
        while len(path) < DEEPEST:
            found = self._first_refused(value)
            if found is None:
                break
            step, value, reason = found
            path.append(step)
        return path, value, reason

    def _first_refused(self, value: object) -> tuple[str, object, BaseException] | None:
        parts = _parts(value)
        while self.left > 0:
            try:
                step, part = next(parts)
            except StopIteration:
                break
            except BaseException as exc:  # listing the parts runs the object's own code
                refusal(exc)
                break
            self.left -= 1
            if id(part) in self.tried:
                continue  # what holds it, or what was good already
            self.tried[id(part)] = part
            problem = self._problem(part)
            if problem is not None:
                return step, part, problem
        return None

    def _problem(self, value: object) -> BaseException | None:
        try:
            self.attempt(value)
        except BaseException as exc:
            return refusal(exc)
        return None


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    kind = type(value)
    if kind in (list, tuple):
        return ((f"[{index}]", item) for index, item in enumerate(value))
    if kind in (set, frozenset):
        return (("an element", item) for item in value)
    if kind is dict:
        return _pairs(value.items())
    if isinstance(value, FunctionType):
        return _function_parts(value)
    if isinstance(value, MethodType):
        return iter(((".__self__", value.__self__), (".__func__", value.__func__)))
    if kind is partial:
        return iter(((".func", value.func), (".args", value.args), (".keywords", value.keywords)))
    if isinstance(value, type):
        return ((f".{name}", item) for name, item in vars(value).items() if name != "__dict__")
    return _reduced_parts(value)


def _pairs(items: Any) -> Iterator[tuple[str, object]]:
    for key, item in items:
        yield f"[{preview(key, 60)}]", item
        yield f"the key {preview(key, 60)}", key


def _function_parts(function: FunctionType) -> Iterator[tuple[str, object]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"closure variable {name!r}", cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    for name in _global_names(code):
        if name in function.__globals__:
            yield f"global {name!r}", function.__globals__[name]
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    for name, default in zip(names[len(names) - len(defaults) :], defaults, strict=False):
        yield f"default of {name!r}", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f"default of {name!r}", default
    for name, item in vars(function).items():
        yield f".{name}", item


def _global_names(code: CodeType) -> list[str]:
    """Give the names a function looks up, also in the functions defined inside it."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(_global_names(constant)))
    return list(names)


def _reduced_parts(value: Any) -> Iterator[tuple[str, object]]:
    reducer = copyreg.dispatch_table.get(type(value))
    reduced: Any = reducer(value) if reducer is not None else value.__reduce_ex__(5)
    if not isinstance(reduced, tuple):
        return
    function, args, state, items, pairs = islice((*reduced, None, None, None, None), 5)
    if function is bound_method:
        yield from zip((".__func__", ".__self__"), args, strict=True)
        return
    yield from _state_parts(state)
    for index, item in enumerate(items or ()):
        yield f"[{index}]", item
    yield from _pairs(pairs or ())
    for index, item in enumerate(args or ()):
        if item is not type(value):
            yield f".__reduce__()[1][{index}]", item


def _state_parts(state: Any) -> Iterator[tuple[str, object]]:
    if isinstance(state, dict):
        yield from ((f".{name}", item) for name, item in state.items())
    elif isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        yield from _state_parts(state[0])  # of a class with slots
        yield from _state_parts(state[1])
    elif state is not None:
        yield ".__getstate__()", state
