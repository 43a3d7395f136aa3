"""Checks of the options that `@flow` and `@task` have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.errors import InvalidNameError, InvalidOptionError, ParameterBindError
from penstock.results.base import checked_object_name
from penstock.results.policy import ResultOptions, checked_options
from penstock.states import StateType
from penstock.task_runners.base import BaseTaskRunner

REFUSED_CHARACTERS = "/%&><"
_LONGEST_NAME = 200
_LONGEST_EXPIRATION = 9e9  # seconds; some 285 years, after which time stamps end
Hook = Callable[[Any, Any, Any], Any]
Hooks = Mapping[StateType, tuple[Hook, ...]]


def checked_name(given: str | None, function_name: str, kind: str) -> str:
    """Give the name of a flow or task: the given one, else the function's with dashes.

    Raises:
        InvalidNameError: the name is empty, too long or has a refused character.
    """
    name = function_name.replace("_", "-") if given is None else given
    if given is None:
        # A function may be called "<lambda>", which nobody chose as a name.
        name = name.strip("<>")
    if not isinstance(name, str) or not name.strip():
        raise InvalidNameError(f"The name of a {kind} must be a text, not {name!r}.")
    refused = sorted(set(name) & set(REFUSED_CHARACTERS))
    if refused:
        raise InvalidNameError(
            f"The name {name!r} of a {kind} contains {' '.join(refused)}; the characters "
            f"{' '.join(REFUSED_CHARACTERS)} cannot be used in names."
        )
    if len(name) > _LONGEST_NAME:
        raise InvalidNameError(
            f"The name of a {kind} has {len(name)} characters; at most {_LONGEST_NAME} can be used."
        )
    return name


def checked_timeout(seconds: float | None) -> float | None:
    """Check `timeout_seconds`: None, or a number above zero."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InvalidOptionError(
            f"timeout_seconds is {seconds!r}; it must be a number of seconds above 0."
        )
    return seconds


def checked_whole(option: str, value: Any, least: int | None = None) -> int:
    """Check an option that is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOptionError(f"{option} is {value!r}; it must be a whole number.")
    if least is not None and value < least:
        raise InvalidOptionError(f"{option} is {value}; it must be at least {least}.")
    return value


def checked_text(option: str, value: Any, default: str | None = None) -> str | None:
    """Check an option that is a text or None, which stands for a default."""
    if value is not None and not isinstance(value, str):
        raise InvalidOptionError(f"{option} is {value!r}; it must be a text.")
    return default if value is None else value


def checked_flag(option: str, value: Any) -> Any:
    """Check an option that is True, False or, where that is the default, None."""
    if value is not None and not isinstance(value, bool):
        raise InvalidOptionError(f"{option} is {value!r}; it must be True or False.")
    return value


def checked_caching(
    key_fn: Any, expiration: Any, refresh: Any
) -> tuple[Any, float | None, bool | None]:
    """Check `cache_key_fn`, `cache_expiration` and `refresh_cache`; give them, times in seconds."""
    function = checked_function("cache_key_fn", key_fn)
    return function, _checked_expiration(expiration), checked_flag("refresh_cache", refresh)


def _checked_expiration(expiration: Any) -> float | None:
    in_seconds = getattr(expiration, "total_seconds", None)  # a timedelta
    seconds = expiration if in_seconds is None else in_seconds()
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InvalidOptionError(
            f"cache_expiration is {expiration!r}; it must be a timedelta or a number of seconds, "
            "above 0."
        )
    return min(float(seconds), _LONGEST_EXPIRATION)


def checked_function(option: str, function: Any) -> Any:
    """Check an option that is a function or None."""
    if function is not None and not callable(function):
        raise InvalidOptionError(f"{option} is {function!r}; it must be a function.")
    return function


def checked_template(option: str, template: Any, parameter_names: Sequence[str]) -> Any:
    """Check the template of run names: a callable, or a format string on the parameters."""
    if template is None or callable(template):
        return template
    if not isinstance(template, str):
        raise InvalidOptionError(
            f"{option} is {template!r}; it must be a text such as 'load-{{day}}', or a function."
        )
    for name in _fields(option, template):
        if name not in parameter_names:
            known = ", ".join(parameter_names) or "none"
            raise InvalidOptionError(
                f"{option} is {template!r}, but the function has no parameter {name!r}; its "
                f"parameters: {known}."
            )
    return template


def checked_results(
    persist_result: Any, result_storage: Any, result_serializer: Any
) -> ResultOptions | None:
    """Check the options on results that flows and tasks have in common; None: nothing is said."""
    persist = checked_flag("persist_result", persist_result)
    return checked_options(persist, result_storage, result_serializer)


def checked_storage_key(template: Any, parameter_names: Sequence[str]) -> str | None:
    """Check `result_storage_key`: a format string on the parameters that gives a name."""
    if template is None:
        return None
    option = "result_storage_key"
    if not isinstance(template, str):
        raise InvalidOptionError(
            f"{option} is {template!r}; it must be a text such as 'totals/{{day}}'."
        )
    checked_template(option, template, parameter_names)
    if not _fields(option, template):
        checked_object_name(template.format())
    return template


def _fields(option: str, template: str) -> set[str]:
    """Give the parameters that a format string names, also inside format specifications."""
    from string import Formatter

    try:
        parts = list(Formatter().parse(template))
    except ValueError as exc:
        raise InvalidOptionError(f"{option} is {template!r}, no format string: {exc}.") from exc
    names: set[str] = set()
    for _, field, specification, _ in parts:
        if field is not None:
            names |= {re.split(r"[.\[]", field, maxsplit=1)[0]}
            names |= _fields(option, specification or "")
    return names


def checked_runner(runner: Any) -> BaseTaskRunner | None:
    """Check `task_runner`: an instance, or a class, which is called."""
    if isinstance(runner, type) and issubclass(runner, BaseTaskRunner):
        try:
            runner = runner()
        except TypeError as exc:
            raise InvalidOptionError(
                f"task_runner is the class {runner.__name__}, which cannot be called without "
                f"arguments; give an instance. ({exc})"
            ) from exc
    if runner is None or isinstance(runner, BaseTaskRunner):
        return runner
    raise InvalidOptionError(
        f"task_runner is {runner!r}; it must be a task runner such as ConcurrentTaskRunner()."
    )


def checked_hooks(hooks: Mapping[StateType, Any]) -> Hooks:
    """Check hooks: a function or a list of functions for each state type."""
    checked = {kind: _functions(given) for kind, given in hooks.items() if given}
    return {kind: functions for kind, functions in checked.items() if functions}


def _functions(given: Any) -> tuple[Hook, ...]:
    functions = tuple(given) if isinstance(given, Iterable) else (given,)
    for function in functions:
        if not callable(function):
            raise InvalidOptionError(
                f"The hook {function!r} is not a function; it is called as hook(task, run, state)."
            )
    return functions


def refuse_unknown(decorator: str, **options: Any) -> None:
    """Refuse options that do not exist.

    Raises:
        ParameterBindError: there is no such option.
    """
    for name in options:
        raise ParameterBindError(f"{decorator} has no option {name!r}.")
