"""Settings: read from `PENSTOCK_*` environment variables each time a run begins.

`SETTINGS` is the one table of what can be set; the documentation and its test read it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from penstock.errors import SettingsError

T = TypeVar("T")

SETTINGS: dict[str, str] = {
    "PENSTOCK_HOME": "The folder of everything Penstock keeps; default `~/.penstock`.",
    "PENSTOCK_DATABASE_URL": "The history; default `sqlite:///<PENSTOCK_HOME>/history.db`.",
    "PENSTOCK_RECORD": "`on` (default) records runs in the history, `off` keeps nothing.",
    "PENSTOCK_DURABILITY": "`process` (default) survives a kill, `power` also a power cut.",
    "PENSTOCK_PERSIST_RESULT": "`on` stores large results; default `off`.",
    "PENSTOCK_RESULT_STORAGE": "Where large results are stored; default `<PENSTOCK_HOME>/results`.",
    "PENSTOCK_RESULT_SERIALIZER": "How results become bytes; default `pickle`.",
    "PENSTOCK_LOG_LEVEL": "The lowest level of log lines that are recorded; default `INFO`.",
    "PENSTOCK_LOGGERS": "Other loggers to record, separated by commas; default none.",
    "PENSTOCK_REFRESH_CACHE": "`on` runs cached tasks again and replaces their values.",
    "PENSTOCK_LOG_PRINTS": "`on` records prints of every flow and task; default `off`.",
}
_SWITCH = {"on": True, "1": True, "true": True, "yes": True} | {
    "off": False,
    "0": False,
    "false": False,
    "no": False,
}
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force; see `SETTINGS` for their meaning."""

    home: Path
    database_url: str
    record: bool
    power_safe: bool
    log_level: int
    loggers: tuple[str, ...]
    log_prints: bool
    persist_result: bool
    result_storage: str
    result_serializer: str
    refresh_cache: bool


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Args:
        environment: the variables to read; default `os.environ`.

    Raises:
        SettingsError: a variable has a value that cannot be used; the text names both.

    Example:
        >>> load_settings({"PENSTOCK_HOME": "/tmp/p"}).database_url
        'sqlite:////tmp/p/history.db'
    """
    variables = os.environ if environment is None else environment
    home = Path(variables.get("PENSTOCK_HOME") or "~/.penstock").expanduser().absolute()
    return Settings(
        home=home,
        database_url=variables.get("PENSTOCK_DATABASE_URL") or f"sqlite:///{home}/history.db",
        record=_one_of(variables, "PENSTOCK_RECORD", "on", _SWITCH),
        power_safe=_one_of(
            variables, "PENSTOCK_DURABILITY", "process", {"process": False, "power": True}
        ),
        log_level=_one_of(variables, "PENSTOCK_LOG_LEVEL", "INFO", _LEVELS),
        loggers=_names(variables.get("PENSTOCK_LOGGERS", "")),
        log_prints=_one_of(variables, "PENSTOCK_LOG_PRINTS", "off", _SWITCH),
        persist_result=_one_of(variables, "PENSTOCK_PERSIST_RESULT", "off", _SWITCH),
        result_storage=variables.get("PENSTOCK_RESULT_STORAGE") or f"{home}/results",
        result_serializer=variables.get("PENSTOCK_RESULT_SERIALIZER") or "pickle",
        refresh_cache=_one_of(variables, "PENSTOCK_REFRESH_CACHE", "off", _SWITCH),
    )


def refreshes_cache() -> bool:
    """Tell whether `PENSTOCK_REFRESH_CACHE` is on: asked so often that the others are left out."""
    return _one_of(os.environ, "PENSTOCK_REFRESH_CACHE", "off", _SWITCH)


def _one_of(variables: Mapping[str, str], name: str, default: str, choices: Mapping[str, T]) -> T:
    given = variables.get(name) or default
    for choice, value in choices.items():
        if given.lower() == choice.lower():
            return value
    raise SettingsError(f"{name} is {given!r}; it must be one of {', '.join(choices)}.")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
