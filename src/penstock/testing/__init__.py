"""What authors of task runners test theirs with: the contract as a pytest class.

Needs pytest. A failing assertion shows its values, as in a test module of one's own.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest

# Before any of them is imported, or its assertions stay bare.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__))
)

if TYPE_CHECKING:
    from penstock.testing.contract import TaskRunnerContract
else:
    TaskRunnerContract = importlib.import_module(f"{__name__}.contract").TaskRunnerContract

__all__ = ["TaskRunnerContract"]
