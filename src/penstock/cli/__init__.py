"""The command line. `main` is the console script; commands are loaded when they are used."""

from __future__ import annotations

from penstock.cli.app import main

__all__ = ["main"]
