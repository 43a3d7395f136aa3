"""Keep what a flow run was called with, so that it can be continued by a process to come.

Each argument is pickled on its own. What looks secret or holds what does, cannot be pickled or is
too large is left out: whoever continues the run has to give it again, or the default is used.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.previews import SECRET_TYPES, is_secret_name, mask_secrets
from penstock.core.signatures import MISSING, Signature
from penstock.errors import ResumeError
from penstock.results.small import pickled_within

ARGUMENT_LIMIT = 1 << 20
"""The largest argument of a flow, in bytes once pickled, that is kept to continue it: 1 MiB."""

_LONGEST_NAME = 64


def pack_arguments(signature: Signature, values: Sequence[object]) -> bytes:
    """Pickle the arguments of a flow by name; None stands for what cannot be kept.

    A default that was used is one again when the run is continued, and needs not be kept.
    """
    packed: dict[str, bytes | None] = {}
    for name, value in zip(signature.parameters, values, strict=True):
        data = None if is_secret_name(name) else pickled_within(value, ARGUMENT_LIMIT, _Watchful)
        if data is not None or value is not signature.default(name):
            packed[name] = data
    return pickle.dumps(packed, 5)


class _Watchful(pickle.Pickler):
    """Refuses what holds a secret: by a key or attribute's name, its type, or in a text."""

    def persistent_id(self, obj: Any) -> None:
        if type(obj) is str:
            is_secret = len(obj) <= _LONGEST_NAME and is_secret_name(obj)
            if is_secret or (not obj.isalnum() and mask_secrets(obj) != obj):
                raise pickle.PicklingError("It holds what looks secret.")
        elif type(obj).__name__ in SECRET_TYPES:
            raise pickle.PicklingError("It is a secret by its type.")


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
            f"The argument {name!r} of the run was not kept: it looks secret or holds what does, "
            f"or it could not be pickled, or it is large. Give it again: -p {name}=… or "
            f"parameters={{{name!r}: …}}."
        )
    return default
