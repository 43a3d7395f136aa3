"""Waiting for several futures: what cannot be waited for is refused."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import as_completed, flow, task, wait
from penstock.errors import InvalidOptionError, ParameterTypeError


@task
def one() -> int:
    return 1


@pytest.mark.parametrize("function", [wait, as_completed])
def test_what_is_no_future_is_refused(function: Any) -> None:
    with pytest.raises(ParameterTypeError, match="Only futures can be waited for, not 5."):
        function([5])
    with pytest.raises(ParameterTypeError, match="Give a list of futures, not 5."):
        function(5)


@pytest.mark.parametrize("function", [wait, as_completed])
def test_single_future_is_refused(function: Any) -> None:
    @flow
    def example() -> None:
        with pytest.raises(ParameterTypeError, match="Give a list of futures, not <TaskFuture"):
            function(one.submit())

    example()


def test_unknown_return_when_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="return_when is 'SOME'; it must be"):
        wait([], return_when="SOME")
