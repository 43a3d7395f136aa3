"""Find the flow that `FILE.py[:flow]` means, and turn `-p name=value` into parameters."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import json
import os
import shlex
import sys
import types
import typing
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from penstock.cli.exits import usage_error
from penstock.cli.tracebacks import shown_path
from penstock.core.scripts import stand_for_script

parameter_option = click.option(
    "-p",
    "--param",
    "parameters",
    metavar="NAME=VALUE",
    multiple=True,
    help="A parameter of the flow: JSON where it is JSON, else text. May be given again.",
)


class LoadingFailed(Exception):
    """The user's file raised while it was loaded; the cause is what it raised."""


def split_target(target: str) -> tuple[Path, str | None]:
    """Take `FILE.py[:flow]` apart.

    Raises:
        CommandError: there is no such file.
    """
    path, colon, name = target.rpartition(":")
    if not colon or os.path.exists(target):
        path, name = target, ""
    file = Path(path).expanduser()
    if file.is_file():
        return file.absolute(), name or None
    if file.is_dir():
        raise usage_error(f"{path!r} is a folder.", "Name a Python file: penstock run FILE.py")
    raise usage_error(f"There is no file {path!r}.")


def load_file(file: Path, *, up_to_flow_calls: bool = False) -> types.ModuleType:
    """Run a Python file as a module named after it; `if __name__ == "__main__"` does not hold.

    Its folder comes first on `sys.path`, so that it imports what lies beside it, and
    `sys.argv` holds its name alone.

    Args:
        up_to_flow_calls: where it calls a flow, it is run no further.

    Raises:
        LoadingFailed: the file raised.
    """
    sys.path.insert(0, str(file.parent))
    sys.argv = [str(file)]
    name = _module_name(file)
    # The loader is named, because a file may end otherwise than in ".py".
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_loader(name, loader, origin=str(file))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(file)
    stand_for_script(name, str(file))
    # Classes of the file are looked up here, by dataclasses and by pickle.
    sys.modules[name] = module
    execute(module, up_to_flow_calls=up_to_flow_calls)
    return module


def execute(module: types.ModuleType, *, up_to_flow_calls: bool) -> None:
    """Run the code of a new module.

    Raises:
        LoadingFailed: it raised.
    """
    from penstock.runtime.unpacking import loaded_up_to_flow_calls

    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    try:
        with loaded_up_to_flow_calls() if up_to_flow_calls else nullcontext():
            module.__spec__.loader.exec_module(module)
    except Exception as exc:
        raise LoadingFailed(Path(module.__file__ or module.__name__).name) from exc


def _module_name(file: Path) -> str:
    """Give the file's own name, unless that is the name of a module there is already."""
    name = file.stem
    taken = name in sys.modules or name in sys.stdlib_module_names
    return f"{name}_flow_file" if taken else name


def find_flow(module: types.ModuleType, name: str | None) -> Any:
    """Give the flow of that name, or the only one, or the one named `main`.

    Raises:
        CommandError: there is none, or it is not clear which.
    """
    from penstock.flows import Flow

    flows = {key: value for key, value in vars(module).items() if isinstance(value, Flow)}
    file = Path(module.__file__ or "").name
    if name is not None:
        return _named(flows, name, file)
    own = _defined_in(module, flows) or flows
    distinct = {id(each): each for each in own.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    named_main = [flow for key, flow in own.items() if "main" in (key, flow.name)]
    if named_main:
        return named_main[0]
    if not flows:
        raise usage_error(f"{file} has no flow.", "Put @flow above a function at its top level.")
    path = shlex.quote(shown_path(str(module.__file__)))
    raise usage_error(
        f"{file} has {len(distinct)} flows: {', '.join(own)}.",
        f"Say which: penstock run {path}:{next(iter(own))}",
    )


def _named(flows: dict[str, Any], name: str, file: str) -> Any:
    if name in flows:
        return flows[name]
    for each in flows.values():
        if each.name == name:
            return each
    there = ", ".join(flows) or "none"
    raise usage_error(f"{file} has no flow {name!r}.", f"The flows in it: {there}")


def _defined_in(module: types.ModuleType, flows: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the file imported from elsewhere."""
    return {
        key: flow
        for key, flow in flows.items()
        if getattr(flow.fn, "__module__", None) == module.__name__
    }


def read_parameters(given: Iterable[str], function: Any) -> dict[str, Any]:
    """Turn `name=value` texts into arguments: JSON where it is JSON, else the text itself.

    A parameter that is annotated as text gets the text as it was typed. Given twice, the last
    one counts.
    """
    wants_text = _text_parameters(function)
    parameters: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise usage_error(f"-p takes name=value, not {item!r}.")
        name = name.strip()
        parameters[name] = value if name in wants_text else _read_value(value)
    return parameters


def _read_value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(name: str) -> Any:
    # "NaN" and "Infinity" are no JSON; a word is meant as a word.
    raise ValueError(name)


def _text_parameters(function: Any) -> set[str]:
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:  # an annotation that cannot be evaluated is the flow's affair
        return set()
    return {
        name for name, parameter in signature.parameters.items() if _is_text(parameter.annotation)
    }


def _is_text(annotation: Any) -> bool:
    """Tell whether text is the only thing, beside None, that an annotation allows."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [each for each in typing.get_args(annotation) if each is not types.NoneType]
        return members == [str]
    return annotation is str
