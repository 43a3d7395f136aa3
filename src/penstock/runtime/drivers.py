"""Drive a life: perform its commands and send it the answers. Once blocking, once awaiting.

If performing a command raises, the exception is thrown into the life, so that what to do about
it is decided there as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from penstock.core.lifecycle import ATTEMPT, Command, Life
from penstock.states import State


def drive(life: Life | None, perform: Callable[[Command], Any]) -> State:
    """Drive a life in this thread and give its final state; without one, make one attempt."""
    if life is None:
        only: State = perform(ATTEMPT)
        return only
    try:
        command = life.send(None)
        while True:
            try:
                answer = perform(command)
            except BaseException as exc:
                command = life.throw(exc)
            else:
                command = life.send(answer)
    except StopIteration as end:
        state: State = end.value
        return state


async def adrive(life: Life | None, perform: Callable[[Command], Awaitable[Any]]) -> State:
    """Drive a life on the running loop and give its final state; see `drive`."""
    if life is None:
        only: State = await perform(ATTEMPT)
        return only
    try:
        command = life.send(None)
        while True:
            try:
                answer = await perform(command)
            except BaseException as exc:
                command = life.throw(exc)
            else:
                command = life.send(answer)
    except StopIteration as end:
        state: State = end.value
        return state
