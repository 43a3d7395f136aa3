"""Describe an exception as data: type, message, traceback."""

from __future__ import annotations

from typing import Any

from penstock.core.previews import mask_secrets
from penstock.history.text import LONGEST_MESSAGE, LONGEST_PAYLOAD, clean_text
from penstock.states import describe_exception

_DEEPEST_CHAIN = 20


def describe(exc: BaseException) -> dict[str, Any]:
    """Give type, message and traceback text of an exception, secrets masked, sizes bounded."""
    kind = type(exc)
    text = describe_exception(exc)
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        # Masked before they are cut: what is left of a secret would not be recognised.
        "message": clean_text(mask_secrets(text), LONGEST_MESSAGE),
        "traceback": clean_text(mask_secrets(_traceback(exc)), LONGEST_PAYLOAD),
    }


def _traceback(exc: BaseException) -> str:
    from traceback import TracebackException

    try:
        told = TracebackException.from_exception(exc, compact=True, max_group_depth=_DEEPEST_CHAIN)
        return "".join(told.format())
    except Exception as problem:
        return f"<the traceback cannot be shown: {type(problem).__name__}>"
