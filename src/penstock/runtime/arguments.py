"""Keep what a flow run was called with, so that it can be continued by a process to come.

Each argument is pickled on its own. What looks secret by its name, cannot be pickled or is too
large is left out: whoever continues the run has to give it again, or the default is used.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.previews import is_secret_name
from penstock.core.signatures import MISSING, Signature
from penstock.errors import ResumeError
from penstock.results.small import pickled_within

ARGUMENT_LIMIT = 1 << 20
"""The largest argument of a flow, in bytes once pickled, that is kept to continue it: 1 MiB."""


def pack_arguments(signature: Signature, values: Sequence[object]) -> bytes:
    """Pickle the arguments of a flow by name; None stands for what cannot be kept.

    A default that was used is one again when the run is continued, and needs not be kept.
    """
    packed: dict[str, bytes | None] = {}
    for name, value in zip(signature.parameters, values, strict=True):
        data = None if is_secret_name(name) else pickled_within(value, ARGUMENT_LIMIT)
        if data is not None or value is not signature.default(name):
            packed[name] = data
    return pickle.dumps(packed, 5)


def unpack_arguments(
    data: bytes | None, signature: Signature, given: Mapping[str, object]
) -> tuple[object, ...]:
    """Give the value of every parameter of a flow that is continued.

    Args:
        data: what `pack_arguments` gave. Runs code of the values' classes.
        given: values that take the place of those.

    Raises:
        ResumeError: a value is missing, or cannot be rebuilt here; the text names it.
    """
    packed = {} if data is None else pickle.loads(data)
    unknown = given.keys() - set(signature.parameters)
    if unknown:
        raise ResumeError(
            f"{signature.name!r} has no parameter {sorted(unknown)[0]!r}. Its signature is "
            f"{signature}."
        )
    return tuple(_value(name, packed, signature, given) for name in signature.parameters)


def _value(name: str, packed: Any, signature: Signature, given: Mapping[str, object]) -> object:
    if name in given:
        return given[name]
    if packed.get(name) is not None:
        try:
            return pickle.loads(packed[name])
        except Exception as exc:
            raise ResumeError(
                f"The argument {name!r} of the run cannot be rebuilt here: {exc!r}. Give it again: "
                f"-p {name}=… or parameters={{{name!r}: …}}."
            ) from exc
    default = signature.default(name)
    # Where another value was given, the default would make it another run.
    if default is MISSING or name in packed:
        raise ResumeError(
            f"The argument {name!r} of the run was not kept: its name looks secret, or it could "
            f"not be pickled, or it is large. Give it again: -p {name}=… or "
            f"parameters={{{name!r}: …}}."
        )
    return default
