"""Resources: what tasks ask for, against what the nodes of a Ray cluster have.

@task(resources={"cpu": 1, "gpu": 1, "memory": "4GB", "tpu": 1})
            │
            ▼
num_cpus=1, num_gpus=1, memory=4000000000, resources={"tpu": 1}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.errors import ResourceError

Resources = Mapping[str, float]
_OPTIONS = {"cpu": "num_cpus", "gpu": "num_gpus", "memory": "memory"}
_TOTALS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
_SAID = {"CPU": "cpu", "GPU": "gpu"}
# What a node has besides, and nobody asks for.
_INTERNAL = ("node:", "object_store_memory", "accelerator_type:")


def as_options(resources: Resources) -> dict[str, Any]:
    """Give Ray's options for what a task asks for."""
    options: dict[str, Any] = {}
    custom: dict[str, float] = {}
    for name, amount in resources.items():
        option = _OPTIONS.get(name.casefold())
        if option is None:
            custom[name] = amount
        else:
            options[option] = int(amount) if option == "memory" else amount
    if custom:
        options["resources"] = custom
    return options


def merged(first: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """Put two sets of options together; where both name the same, the last one counts."""
    options = {**first, **last}
    if "resources" in first and isinstance(last.get("resources"), Mapping):
        options["resources"] = {**first["resources"], **last["resources"]}
    return options


def wanted(options: Mapping[str, Any]) -> dict[str, float]:
    """Give what options ask for, by the names that nodes use."""
    found = {total: options[option] for option, total in _TOTALS.items() if options.get(option)}
    found.update(options.get("resources") or {})
    return found


def is_possible(asked: Resources, nodes: Iterable[Resources]) -> bool:
    """Tell whether one node has as much."""
    return any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes)


def refusal(task_name: str, asked: Resources, nodes: Iterable[Resources]) -> ResourceError:
    """Make the error for a request that no node can meet."""
    listed = "; ".join(dict.fromkeys(said(node) for node in nodes)) or "nothing"
    return ResourceError(
        f"Task {task_name!r} asks for {said(asked)}, and no node of the Ray cluster has as much; "
        f"the nodes have {listed}. Ask for less, or start a node that has it, such as with: "
        f"{_command(asked)}"
    )


def said(resources: Resources) -> str:
    """Say in words what somebody asks for or has."""
    return ", ".join(
        f"{_SAID.get(name, name)}={_memory(amount) if name == 'memory' else f'{amount:g}'}"
        for name, amount in sorted(resources.items())
        if not name.startswith(_INTERNAL)
    )


def _memory(amount: float) -> str:
    return f"{amount / 1e9:.2f} GB" if amount >= 1e8 else f"{amount / 1e6:.2f} MB"


def _command(asked: Resources) -> str:
    listed = []
    custom = {}
    for name, amount in asked.items():
        if name in ("CPU", "GPU"):
            listed.append(f"--num-{name.lower()}s={amount:g}")
        elif name == "memory":
            listed.append(f"--memory={amount:.0f}")
        else:
            custom[name] = amount
    if custom:
        pairs = ", ".join(f'"{name}": {amount:g}' for name, amount in custom.items())
        listed.append(f"--resources='{{{pairs}}}'")
    return " ".join(["ray start", "--address=ADDRESS", *listed])
