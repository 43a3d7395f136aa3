"""`penstock version`."""

from __future__ import annotations

import sys

import click

from penstock.cli.session import VERSION_OPTIONS, Session, with_session
from penstock.version import __version__

_EXTRAS = ("distributed", "ray", "psycopg", "fsspec", "cloudpickle")


@click.command()
@with_session(VERSION_OPTIONS)
def version(session: Session) -> None:
    """Show the versions of Penstock, Python and what it can work with."""
    versions = {"penstock": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    if session.json:
        extras = {name: _installed(name) for name in _EXTRAS}
        session.emit(**versions, platform=sys.platform, executable=sys.executable, packages=extras)
        return
    session.out.line(f"penstock {versions['penstock']}")
    if session.verbose:
        session.out.line(f"python {versions['python']} on {sys.platform}, {sys.executable}")
        for name in _EXTRAS:
            session.out.line(f"{name} {_installed(name) or 'not installed'}")


def _installed(name: str) -> str | None:
    # Slow to load, and not needed for a plain `penstock version`.
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of(name)
    except PackageNotFoundError:
        return None
