"""Load the flow of a recorded run again, from where its function came from."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

from penstock.cli.exits import CommandError, Exit, Problem
from penstock.cli.loading import execute, load_file
from penstock.core.scripts import stand_for_script


def load_flow(row: dict[str, Any]) -> Any:
    """Give the flow of a recorded run.

    Args:
        row: the run, with its `origin` and `flow_key`.

    Raises:
        CommandError: its code is not where it was, or has no such flow any more.
        LoadingFailed: its code raised while it was loaded.
    """
    if row["origin"] is None:
        raise _not_found(row, "It is not recorded where its code is.")
    origin = json.loads(row["origin"])
    module = _load_script(row, origin) if origin["script"] else _import(row, origin)
    return _flow_in(module, row, origin)


def _load_script(row: dict[str, Any], origin: dict[str, Any]) -> types.ModuleType:
    file = Path(origin["file"])
    if not file.is_file():
        raise _not_found(row, f"There is no file {str(file)!r} any more.")
    module = (
        _import(row, origin) if origin["import_name"] else load_file(file, up_to_flow_calls=True)
    )
    if origin["module"] == "__main__":
        # What was pickled there is looked up under this name.
        sys.modules["__main__"] = module
    return module


def _import(row: dict[str, Any], origin: dict[str, Any]) -> types.ModuleType:
    name = origin["import_name"] or origin["module"]
    for folder in (origin["folder"], *origin["paths"]):
        if folder not in sys.path:
            sys.path.append(folder)
    if name in sys.modules:
        return sys.modules[name]
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.loader is None:
        raise _not_found(row, f"There is no module {name!r} here.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    if origin["script"]:
        stand_for_script(name, origin["file"])
    execute(module, up_to_flow_calls=True)
    return module


def _flow_in(module: types.ModuleType, row: dict[str, Any], origin: dict[str, Any]) -> Any:
    from penstock.flows import Flow

    found: Any = module
    for name in origin["name"].split("."):
        found = getattr(found, name, None)
    if isinstance(found, Flow) and found.key == row["flow_key"]:
        return found
    for value in vars(module).values():
        if isinstance(value, Flow) and value.key == row["flow_key"]:
            return value
    raise _not_found(row, f"{module.__name__!r} has no flow {origin['name']!r} any more.")


def _not_found(row: dict[str, Any], why: str) -> CommandError:
    return CommandError(
        Problem(
            Exit.UNAVAILABLE,
            "import_error",
            f"The code of run {row['name']!r} cannot be loaded: {why} Nothing was changed.",
            "Put the code back, or call .resume(…) of its flow in Python.",
        )
    )
