"""What the command line's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.histories import sample_group, write_history


@pytest.fixture
def history(penstock_home: Path) -> Path:
    """Give a home whose history holds the sample runs."""
    write_history(penstock_home, sample_group())
    return penstock_home
