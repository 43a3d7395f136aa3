"""Resources as tasks ask for them and runners give them: amounts by name, and how they are said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from typing import Any

from penstock.errors import InvalidOptionError

OF_THE_MACHINE = ("cpu", "gpu", "memory")
"""Names that mean the machine's own; any other is a name of the user's."""
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:([kmgtp])(i)?)?b?", re.IGNORECASE)
_STEPS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def checked_resources(resources: Any) -> dict[str, float]:
    """Check `resources`: numbers above zero by name; memory also as a text such as "4GB".

    Returns:
        The amounts by name, memory in bytes; "cpu", "gpu" and "memory" are in lower case.

    Raises:
        InvalidOptionError: the text names the entry and its value.
    """
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise InvalidOptionError(
            f"resources is {resources!r}; it must be a dictionary such as "
            "{'cpu': 2, 'gpu': 1, 'memory': '4GB'}."
        )
    checked: dict[str, float] = {}
    for name, amount in resources.items():
        if not isinstance(name, str) or not name.strip():
            raise InvalidOptionError(f"resources has the name {name!r}; it must be a text.")
        if name.casefold() in map(str.casefold, checked):
            raise InvalidOptionError(f"resources is {resources!r}; it names {name!r} twice.")
        known = name.casefold() in OF_THE_MACHINE
        checked[name.casefold() if known else name] = _amount(name, amount)
    return checked


def _amount(name: str, given: Any) -> float:
    amount, example = given, ""
    if name.casefold() == "memory":
        amount = _bytes(given) if isinstance(given, str) else given
        example = ", or a text such as '4GB'"
    is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
    if not is_number or not 0 < amount < inf:
        raise InvalidOptionError(
            f"resources[{name!r}] is {given!r}; it must be a number above 0{example}."
        )
    return float(amount)


def _bytes(text: str) -> float | None:
    """Read a size such as "4GB" or "512 MiB"; None if it is none."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    number, unit, binary = found.groups()
    power = " kmgtp".index((unit or " ").lower())
    return float(number) * float(1024 if binary else 1000) ** power


def checked_own_resources(resources: Any) -> dict[str, float]:
    """Check the `resources` that a runner gives: names of the user's own, as in `@task`.

    Raises:
        InvalidOptionError: the text names the entry and its value.
    """
    checked = checked_resources(resources)
    for name in OF_THE_MACHINE:
        if name in checked:
            raise InvalidOptionError(
                f"resources is {resources!r}, but {name!r} is the machine's own, and known; give "
                "only names of your own here, such as {'licence': 2}."
            )
    return checked


def said(resources: Mapping[str, float]) -> str:
    """Say amounts as a person would read them: "cpu=2, memory=3.7 GiB"."""
    return ", ".join(f"{name}={_said_amount(name, resources[name])}" for name in resources)


def _said_amount(name: str, amount: float) -> str:
    if name != "memory":
        return f"{amount:g}"
    power = 0
    while amount >= 1024 and power < len(_STEPS) - 1:
        amount, power = amount / 1024, power + 1
    # Three digits, but never as a power of ten.
    return f"{amount:.{3 if amount < 1000 else 4}g} {_STEPS[power]}"
