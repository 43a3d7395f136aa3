"""`docs/cli.md` names every command, option, exit code and error code there is."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from penstock.cli import exits
from penstock.cli.app import COMMANDS, app

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "cli.md").read_text("utf-8")


def options_of(name: str) -> list[str]:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    return [
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_and_their_options_are_documented(name: str) -> None:
    assert f"\npenstock {name}" in TEXT
    # `--param` and `--follow` are long forms of what is documented.
    options = set(options_of(name)) - {"--param", "--follow"}
    assert [option for option in options if option not in TEXT] == []


@pytest.mark.parametrize("code", exits.Exit)
def test_exit_codes_are_documented(code: exits.Exit) -> None:
    table = TEXT.partition("## Exit codes")[2].partition("##")[0]
    first_cells = ", ".join(line.split("|")[1] for line in table.splitlines() if "|" in line)
    assert str(code.value) in [cell.strip() for cell in first_cells.split(",")]


def test_error_codes_are_documented() -> None:
    words = {word for _, _, word, _ in exits._KINDS} | {"usage", "internal"}
    assert [word for word in words if f"`{word}`" not in TEXT] == []
