"""Check a flow's parameters by annotation, and convert what can be converted.

A value that fits its annotation is passed on as the same object, and no other package is loaded.
Otherwise `msgspec` converts in its lax mode (`"1"` to `1` for `int`, ISO texts to dates, dicts to
dataclasses and Structs, values to enums), or pydantic where the annotation has a pydantic type.

Readings worth knowing: a `bool` is an `int` (it is one in Python) and passes unchanged; an `int`
becomes a `float` where one is expected, a `str` becomes UTF-8 `bytes` or a `Path`; text never
becomes None; a parameter's own default is never checked; futures and annotated values
(`allow_failure(x)`) are not checked, they stand for a later value; annotations that cannot be
resolved or checked at run time are passed over. Elements of exact lists, tuples, sets and dicts
are checked, those of other collections are not.
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import repeat
from typing import Any

from penstock.annotations import Annotation, Dependency
from penstock.core.inputs import find
from penstock.core.previews import MASK, is_secret_name, preview
from penstock.core.signatures import VAR_KEYWORD, VAR_POSITIONAL, Signature
from penstock.errors import ParameterTypeError

_CONSTRAINTS = frozenset({"msgspec", "pydantic", "pydantic_core", "annotated_types"})
_PREVIEW = 80
_OPEN = frozenset({None, Any, object})
_UNIONS = (typing.Union, types.UnionType)
_ELEMENTWISE = (list, tuple, set, frozenset)


class _Misfit(Exception):
    """A value does not fit; holds `(path, message)` pairs, the path relative to the value."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__(problems)
        self.problems = problems


def coerce(
    signature: Signature | Callable[..., Any],
    parameters: Mapping[str, object],
    *,
    name: str | None = None,
) -> dict[str, object]:
    """Check bound parameters by annotation and convert those that do not fit.

    Args:
        signature: the function, or its signature (which remembers the resolved annotations).
        parameters: what `Signature.bind` gave.
        name: the flow's name for the message; by default the function's.

    Returns:
        The parameters in the same order; values that fit are the same objects.

    Raises:
        ParameterTypeError: one error that names every parameter that does not fit.

    Example:
        >>> def etl(day: int): ...
        >>> coerce(etl, {"day": "1"})
        {'day': 1}
    """
    if not isinstance(signature, Signature):
        signature = Signature(signature)
    hints = _hints(signature)
    checked = dict(parameters)
    problems: list[str] = []
    for parameter, hint in hints.items():
        if parameter not in checked:
            continue
        try:
            checked[parameter] = _checked(signature, parameter, checked[parameter], hint)
        except _Misfit as misfit:
            problems += _lines(parameter, checked[parameter], hint, misfit)
    if problems:
        flow = name or signature.name.replace("_", "-")
        lines = "\n  ".join(problems)
        raise ParameterTypeError(f"Flow {flow!r} received parameters that do not fit:\n  {lines}")
    return checked


def _checked(signature: Signature, name: str, value: Any, hint: Any) -> object:
    """Check one parameter; of `*args` and `**kwargs` each element."""
    detail = next(each for each in signature.details if each.name == name)
    if detail.kind == VAR_POSITIONAL:
        fitted = _each(((f"[{index}]", each) for index, each in enumerate(value)), hint)
        return value if all(map(_same, value, fitted)) else tuple(fitted)
    if detail.kind == VAR_KEYWORD:
        fitted = _each(((f"[{key!r}]", each) for key, each in value.items()), hint)
        return (
            value
            if all(map(_same, value.values(), fitted))
            else dict(zip(value, fitted, strict=True))
        )
    return value if value is detail.default else _fitted(value, hint)


def _each(elements: Iterable[tuple[str, Any]], hint: Any) -> list[object]:
    fitted: list[object] = []
    problems: list[tuple[str, str]] = []
    for place, value in elements:
        try:
            fitted.append(_fitted(value, hint))
        except _Misfit as misfit:
            problems += [(place + path, message) for path, message in misfit.problems]
    if problems:
        raise _Misfit(*problems)
    return fitted


def _same(one: object, other: object) -> bool:
    return one is other


def _fitted(value: Any, hint: Any) -> object:
    """Give a value that fits: itself where it can be."""
    if isinstance(value, (Dependency, Annotation)) or _fits(value, hint):
        return value
    try:
        return _converted(value, hint)
    except _Misfit:
        if _stands_for_later(value):
            return value
        raise


def _stands_for_later(value: object) -> bool:
    # A generator would be used up by looking into it.
    return not isinstance(value, types.GeneratorType) and find((value,)) is not None


# --- does it fit as it is? ------------------------------------------------------------------


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return _fits_class(value, hint)
    hint = _unwrapped(hint)
    origin = typing.get_origin(hint)
    if hint is None or hint is types.NoneType:
        return value is None
    if origin is None:
        return _fits_class(value, hint) if isinstance(hint, type) else True
    arguments = typing.get_args(hint)
    if origin is typing.Annotated:
        return not any(map(_constrains, arguments[1:])) and _fits(value, arguments[0])
    if origin is typing.Literal:
        return any(type(each) is type(value) and each == value for each in arguments)
    if origin in _UNIONS:
        return any(_fits(value, each) for each in arguments)
    if not isinstance(origin, type):
        return True  # Unpack and other forms that say nothing about one value
    return _fits_class(value, origin) and _elements_fit(value, origin, arguments)


def _fits_class(value: Any, hint: type) -> bool:
    if hint is object:
        return True
    if typing.is_typeddict(hint):
        return False  # the keys have to be looked at
    try:
        return isinstance(value, hint)
    except TypeError:
        return True  # a protocol that cannot be checked at run time


def _elements_fit(value: Any, origin: type, arguments: tuple[Any, ...]) -> bool:
    if not arguments or origin is type:
        return True
    if type(value) is dict and len(arguments) == 2:
        return _all_fit(value, arguments[0]) and _all_fit(value.values(), arguments[1])
    if type(value) not in _ELEMENTWISE or not issubclass(origin, Iterable):
        return True
    if origin is not tuple:
        return _all_fit(value, arguments[0])
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _all_fit(value, arguments[0])
    expected = () if arguments == ((),) else arguments
    return len(value) == len(expected) and all(map(_fits, value, expected))


def _all_fit(values: Collection[Any], hint: Any) -> bool:
    if hint in _OPEN:
        return hint is not None or all(value is None for value in values)
    if isinstance(hint, type) and typing.get_origin(hint) is None and not typing.is_typeddict(hint):
        try:
            return all(map(isinstance, values, repeat(hint)))
        except TypeError:
            return True
    return all(map(_fits, values, repeat(hint)))


def _unwrapped(hint: Any) -> Any:
    """Look through `NewType`, `type X = ...` and type variables."""
    while True:
        if isinstance(hint, typing.TypeVar):
            return hint.__bound__ if hint.__bound__ is not None else Any
        inner = getattr(hint, "__supertype__", None) or _alias_value(hint)
        if inner is None:
            return hint
        hint = inner


def _alias_value(hint: Any) -> Any:
    return hint.__value__ if type(hint).__name__ == "TypeAliasType" else None


def _constrains(metadata: Any) -> bool:
    kind = metadata if isinstance(metadata, type) else type(metadata)
    return kind.__module__.partition(".")[0] in _CONSTRAINTS


# --- convert --------------------------------------------------------------------------------


def _converted(value: Any, hint: Any) -> object:
    hint = _unwrapped(hint)
    if typing.get_origin(hint) in _UNIONS:
        return _converted_to_one_of(value, hint)
    if hint is None or hint is types.NoneType:
        raise _misfit(value, hint)
    if value is not None:
        simple = _simply_converted(value, hint)
        if simple is not None:
            return simple
    adapter = _pydantic_validator(hint)
    return _by_msgspec(value, hint) if adapter is None else _by_pydantic(value, adapter)


def _converted_to_one_of(value: Any, hint: Any) -> object:
    arms = [each for each in typing.get_args(hint) if each is not types.NoneType]
    misfit = _misfit(value, hint)
    for arm in arms:
        try:
            return _converted(value, arm)
        except _Misfit as exc:
            if len(arms) == 1:
                misfit = exc
    raise misfit


def _simply_converted(value: Any, hint: Any) -> object | None:
    """Convert what needs no other package, or what msgspec reads otherwise; None if not."""
    kind = type(value)
    if hint is float and kind is int and value.bit_length() < 1000:
        return float(value)
    if hint is complex and kind in (int, float):
        return complex(value)
    if hint is bytes and kind is str:
        return bytes(value, "utf-8", "surrogatepass")  # msgspec would decode base64
    if isinstance(hint, type) and kind is str and _is_path(hint):
        return hint(value)  # type: ignore[no-any-return]
    return None


def _is_path(hint: type) -> bool:
    pathlib = sys.modules.get("pathlib")
    return pathlib is not None and issubclass(hint, pathlib.PurePath)


def _by_msgspec(value: Any, hint: Any) -> object:
    import msgspec

    try:
        return msgspec.convert(value, hint, strict=False, dec_hook=_custom)
    except msgspec.ValidationError as exc:
        raise _Misfit(_told_by_msgspec(str(exc))) from None
    except _Misfit as exc:
        raise _Misfit(*exc.problems) from None
    except Exception as exc:
        # An annotation that msgspec cannot take, or an error in code of the annotated class.
        raise _misfit(value, hint) from exc


def _custom(hint: type, value: Any) -> object:
    """Convert to a type that msgspec does not know."""
    if _fits(value, hint):
        return value
    validator = _pydantic_validator(hint)
    if validator is not None:
        return _by_pydantic(value, validator)
    simple = _simply_converted(value, hint)
    if simple is None:
        import msgspec

        raise msgspec.ValidationError(
            f"Expected `{_hint_name(hint)}`, got `{type(value).__name__}`"
        )
    return simple


def _told_by_msgspec(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?s)(.*?)(?: - at (`key` in )?`\$?(.*)`)?", text)
    if match is None:
        return "", text
    message, in_key, path = match.groups()
    message = message[:1].lower() + message[1:]
    if message.startswith("invalid enum value "):
        message = "invalid enum value"  # the rest quotes it, masked or not
    return path or "", f"{message} as a key" if in_key else message


def _pydantic_validator(hint: Any) -> Callable[[Any], object] | None:
    """Give pydantic's validation of an annotation that has a pydantic type, else None."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not _mentions_pydantic(hint):
        return None
    validate: Callable[[Any], object]
    if isinstance(hint, type) and hasattr(hint, "model_validate"):
        validate = hint.model_validate
        return validate
    try:
        adapter = pydantic.TypeAdapter(hint, config={"arbitrary_types_allowed": True})
    except pydantic.PydanticUserError:
        adapter = pydantic.TypeAdapter(hint)
    validate = adapter.validate_python
    return validate


def _mentions_pydantic(hint: Any) -> bool:
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hasattr(hint, "__get_pydantic_core_schema__")
    metadata = getattr(hint, "__metadata__", ())
    if any(_constrains(each) and type(each).__module__ != "msgspec" for each in metadata):
        return True
    return any(map(_mentions_pydantic, typing.get_args(hint)))


def _by_pydantic(value: Any, validate: Callable[[Any], object]) -> object:
    pydantic = sys.modules["pydantic"]
    try:
        return validate(value)
    except pydantic.ValidationError as exc:
        problems = exc.errors(include_url=False, include_context=False, include_input=False)
        raise _Misfit(*map(_told_by_pydantic, problems)) from None


def _told_by_pydantic(problem: dict[str, Any]) -> tuple[str, str]:
    path = "".join(map(_step, problem["loc"]))
    return path, problem["msg"][:1].lower() + problem["msg"][1:]


def _step(step: object) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"


# --- tell -----------------------------------------------------------------------------------


def _misfit(value: object, hint: Any) -> _Misfit:
    return _Misfit(("", f"expected `{_hint_name(hint)}`, got `{type(value).__name__}`"))


def _hint_name(hint: Any) -> str:
    if hint is None or hint is types.NoneType:
        return "None"
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    return re.sub(r"(?<![\w.])(typing|collections\.abc)\.", "", str(hint))


def _lines(name: str, value: object, hint: Any, misfit: _Misfit) -> list[str]:
    shown = MASK if is_secret_name(name) else preview(value, _PREVIEW)
    lines: list[str] = []
    for path, message in misfit.problems:
        if MASK in shown or is_secret_name(path):
            message = f"expected `{_hint_name(hint)}`"  # the message might quote the value
        lines.append(f"{name}{path}: {message} ({shown})")
    return lines


# --- resolve annotations --------------------------------------------------------------------


def _hints(signature: Signature) -> dict[str, object]:
    """Give the annotations that say something, resolved; remembered in the signature."""
    hints = signature.hints
    if hints is None:
        owner = _annotated(signature.fn)
        resolved = {name: _resolved(owner, name) for name in signature.parameters}
        hints = {
            name: hint for name, hint in resolved.items() if hint is not Any and hint is not object
        }
        signature.hints = hints
    return hints


def _annotated(fn: Any) -> Any:
    """Find the function that carries the annotations of a callable."""
    for _ in range(100):
        if hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif isinstance(fn, type):
            return fn.__init__  # type: ignore[misc]
        elif callable(getattr(fn, "func", None)) and hasattr(fn, "keywords"):
            fn = fn.func
        elif isinstance(fn, (types.FunctionType, types.BuiltinFunctionType)):
            return fn
        else:
            fn = type(fn).__call__
    return fn


def _resolved(owner: Any, name: str) -> Any:
    """Resolve one annotation; `Any` when there is none, or when it cannot be resolved."""
    try:
        annotations = getattr(owner, "__annotations__", None) or {}
        if name not in annotations:
            return Any
        hint = annotations[name]
        if isinstance(hint, type) and typing.get_origin(hint) is None:
            return hint
        holder = types.SimpleNamespace(__annotations__={name: hint})
        known = {**getattr(owner, "__globals__", {}), **_closure(owner), **_type_parameters(owner)}
        return typing.get_type_hints(holder, known, known, include_extras=True)[name]
    except Exception:  # evaluating an annotation may raise anything; it is then passed over
        return Any


def _closure(owner: Any) -> dict[str, object]:
    cells = getattr(owner, "__closure__", None) or ()
    names = owner.__code__.co_freevars if cells else ()
    found: dict[str, object] = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    return found


def _type_parameters(owner: Any) -> dict[str, object]:
    return {each.__name__: each for each in getattr(owner, "__type_params__", ())}
