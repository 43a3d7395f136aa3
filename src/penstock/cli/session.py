"""What every command has in common: its options, its two screens, its history."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from penstock.cli.exits import Problem, usage_error
from penstock.cli.screen import Screen
from penstock.errors import HistoryUnavailable
from penstock.history.base import HistoryReader

P = ParamSpec("P")
R = TypeVar("R")

JSON_SCHEMA = 1
# JSON itself keeps C0 controls out of a terminal; these are left for us.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass
class Session:
    """One command's options and where it reads and writes."""

    json: bool = False
    jsonl: bool = False
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False
    wide: bool = False
    database: str | None = None
    out: Screen = field(init=False)
    err: Screen = field(init=False)

    def __post_init__(self) -> None:
        self.out = Screen(sys.stdout, no_color=self.no_color)
        self.err = Screen(sys.stderr, no_color=self.no_color)
        if self.json and self.jsonl:
            raise usage_error("--json and --jsonl exclude each other.")

    @property
    def for_machines(self) -> bool:
        """Whether stdout carries JSON."""
        return self.json or self.jsonl

    @property
    def width(self) -> int | None:
        """Columns that a line of stdout may have; None: any number."""
        return None if self.wide else self.out.width

    def reader(self) -> HistoryReader:
        """Open the history; the command's end closes it."""
        # Both are looked up here so that `version` and `--help` load neither.
        from penstock.history.stores import open_reader
        from penstock.settings import load_settings

        reader = open_reader(self.database or load_settings().database_url)
        click.get_current_context().call_on_close(reader.close)
        return reader

    def reader_if_any(self) -> HistoryReader | None:
        """Open the history; None if nothing was ever recorded in the usual place."""
        from penstock.history.locations import sqlite_path
        from penstock.settings import load_settings

        try:
            return self.reader()
        except HistoryUnavailable:
            if self.database or os.path.exists(sqlite_path(load_settings().database_url)):
                raise
            return None

    def talk(self, text: str = "") -> None:
        """Write a line to people, on stderr; `-q` keeps it back."""
        if not self.quiet:
            self.err.line(text)

    def emit(self, **parts: Any) -> None:
        """Write one JSON object on stdout."""
        text = to_json({"schema": JSON_SCHEMA, **parts}, ascii_only=not self.out.unicode)
        self.out.stream.write(text + "\n")

    def emit_rows(self, name: str, rows: Iterable[dict[str, Any]], **parts: Any) -> None:
        """Write rows as one object with `--json`, as one line each with `--jsonl`."""
        if self.json:
            self.emit(**parts, **{name: list(rows)})
            return
        for row in rows:
            self.emit(**row)

    def emit_problem(self, problem: Problem) -> None:
        """Write an error as JSON."""
        self.emit(error={"code": problem.code, "reason": problem.reason, "hint": problem.hint})


def to_json(value: Any, *, ascii_only: bool = False) -> str:
    """Turn a value into one line of JSON that is safe to show on a terminal."""
    text = json.dumps(value, ensure_ascii=ascii_only, default=str)
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def database_url(text: str) -> str:
    """Accept a plain file name where a URL is expected."""
    return text if "://" in text else f"sqlite:///{Path(text).expanduser().absolute()}"


_TALKING: list[Callable[[Any], Any]] = [
    click.option("-q", "--quiet", is_flag=True, help="Only data and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say more; full tracebacks."),
    click.option("--no-color", is_flag=True, help="Plain text, also on a terminal."),
]
_DATABASE = click.option("--database", metavar="URL", help="The history: a URL or a file name.")
_JSON = click.option("--json", is_flag=True, help="Write one JSON object on stdout.")
_JSONL = click.option("--jsonl", is_flag=True, help="Write one JSON object a line on stdout.")
_WIDE = click.option("--wide", is_flag=True, help="Full ids, nothing cut off.")

VERSION_OPTIONS = [_JSON, *_TALKING]
RUN_OPTIONS = [_JSON, _DATABASE, *_TALKING]
READ_OPTIONS = [_JSON, _JSONL, _WIDE, _DATABASE, *_TALKING]


def with_session(
    options: list[Callable[[Any], Any]],
) -> Callable[[Callable[Concatenate[Session, P], R]], Callable[..., R]]:
    """Give a command the common options, handed to it as a `Session`."""

    def decorate(function: Callable[Concatenate[Session, P], R]) -> Callable[..., R]:
        @functools.wraps(function)
        def command(*args: Any, **values: Any) -> R:
            names = ("json", "jsonl", "quiet", "verbose", "no_color", "wide", "database")
            common = {name: values.pop(name) for name in names if name in values}
            return function(_new_session(common), *args, **values)

        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _new_session(common: dict[str, Any]) -> Session:
    if common.get("database"):
        common["database"] = database_url(common["database"])
        # What runs in this process records there too.
        os.environ["PENSTOCK_DATABASE_URL"] = common["database"]
    session = Session(**common)
    click.get_current_context().obj = session
    return session
