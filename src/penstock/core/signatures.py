"""Bind the arguments of a call to a function's parameters, fast.

`inspect.Signature.bind` takes several microseconds. Here a small function with the same
signature is generated once and Python's own call machinery does the binding. Plain functions are
read from their code object, so that `inspect` is only imported for anything more unusual.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

from penstock.core.previews import MASK, is_secret_name, preview
from penstock.errors import ParameterBindError, ReservedArgumentError

RESERVED = frozenset({"return_state", "wait_for"})
"""Parameter names that Penstock keeps for itself on every flow and task."""

POSITIONAL_ONLY, POSITIONAL, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)
"""Kinds of parameters; the numbers are those of `inspect.Parameter.kind`."""

_HAS_VARARGS, _HAS_VARKEYWORDS = 0x04, 0x08  # flags of a code object


class _Missing:
    """Stands for "no default"."""

    def __repr__(self) -> str:
        return "<no default>"


MISSING = _Missing()


class Parameter(NamedTuple):
    """One parameter of a function."""

    name: str
    kind: int
    default: object = MISSING


class Signature:
    """The parameters of a callable, and how the arguments of a call fill them.

    Takes functions, lambdas, methods, classes, `functools.partial` and callable objects. A
    callable that tells no signature (some builtins) counts as `(*args, **kwargs)`.

    Attributes:
        fn: the callable.
        name: its name, for messages.
        parameters: the names of its parameters, in order.
        details: name, kind and default of each.
        hints: its resolved annotations, once `core.parameters` asked for them.

    Raises:
        ReservedArgumentError: a parameter is called `return_state` or `wait_for`.

    Example:
        >>> def load(path, limit=10): ...
        >>> Signature(load).values(("a.csv",), {})
        ('a.csv', 10)
    """

    __slots__ = ("_binder", "_method", "_simple", "details", "fn", "hints", "name", "parameters")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.name = callable_name(fn)
        self.details = _parameters(fn)
        self.parameters = tuple(parameter.name for parameter in self.details)
        self._refuse_reserved()
        self._simple = all(each.kind <= POSITIONAL for each in self.details)
        self._binder: Callable[..., tuple[object, ...]] | None = None
        self.hints: dict[str, object] | None = None
        self._method: Signature | None = None

    def bound_to(self, method: Callable[..., Any]) -> Signature:
        """Give the signature of a method that binds this function: one parameter less.

        What it takes to bind arguments is made once and shared by all instances.
        """
        if self._method is None:
            shared = Signature(method)
            shared._compile()
            shared.fn = self.fn
            self._method = shared
        bound = object.__new__(Signature)
        for slot in Signature.__slots__:
            setattr(bound, slot, getattr(self._method, slot))
        bound.fn = method
        return bound

    def __reduce__(self) -> tuple[type[Signature], tuple[Callable[..., Any]]]:
        return type(self), (self.fn,)

    def __repr__(self) -> str:
        return f"<Signature {self}>"

    def __str__(self) -> str:
        return f"{self.name}({_listing(self.details, _shown_default)})"

    def values(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[object, ...]:
        """Give the value of every parameter, in order, defaults filled in.

        A `*args` parameter has a tuple as its value, a `**kwargs` parameter a dict.

        Raises:
            ParameterBindError: the arguments do not fit; the text names the function, its
                signature and what is wrong.
        """
        binder = self._binder or self._compile()
        try:
            return binder(*args, **kwargs)
        except TypeError as exc:
            raise self._mismatch(args, kwargs, exc) from None

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Give the value of every parameter by name, in order, defaults filled in.

        Raises:
            ParameterBindError: the arguments do not fit.
        """
        return dict(zip(self.parameters, self.values(args, kwargs), strict=True))

    def call_arguments(
        self, values: tuple[object, ...]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """Turn what `values` gave into the `(args, kwargs)` to call the function with."""
        if self._simple:
            return values, {}
        return self.arguments(dict(zip(self.parameters, values, strict=True)))

    def arguments(
        self, parameters: Mapping[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """Turn what `bind` gave into the `(args, kwargs)` to call the function with.

        A name that is not there is left to the function's default.
        """
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for index, (name, kind, _) in enumerate(self.details):
            if name not in parameters:
                continue  # what follows can no longer go by position
            value = parameters[name]
            if kind == VAR_KEYWORD:
                kwargs.update(value)  # type: ignore[call-overload]
            elif kind == VAR_POSITIONAL:
                args.extend(value)  # type: ignore[arg-type]
            elif kind == KEYWORD_ONLY or len(args) < index:
                kwargs[name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def default(self, name: str) -> object:
        """Give the default of a parameter, or `MISSING`."""
        return next(each.default for each in self.details if each.name == name)

    def _refuse_reserved(self) -> None:
        for name in self.parameters:
            if name in RESERVED:
                raise ReservedArgumentError(
                    f"{self.name!r} has a parameter {name!r}, a name that Penstock keeps for "
                    "itself. Rename the parameter."
                )

    def _compile(self) -> Callable[..., tuple[object, ...]]:
        names = "".join(f"{name}, " for name in self.parameters)
        source = f"lambda {_listing(self.details, _default_variable)}: ({names})"
        defaults = {f"_{index}": each.default for index, each in enumerate(self.details)}
        binder: Callable[..., tuple[object, ...]] = eval(source, {"__builtins__": {}}, defaults)
        self._binder = binder
        return binder

    def _mismatch(
        self, args: tuple[object, ...], kwargs: Mapping[str, object], error: TypeError
    ) -> ParameterBindError:
        problem = _problem(self.details, args, kwargs) or str(error).replace("<lambda>() ", "")
        return ParameterBindError(f"Cannot call {self.name!r}: {problem}. Its signature is {self}.")


def callable_name(fn: object) -> str:
    """Give the name of a callable for messages: its own, or that of what it wraps."""
    name = getattr(fn, "__name__", None)
    if isinstance(name, str):
        return name
    inner = getattr(fn, "func", None)
    return callable_name(inner) if callable(inner) else type(fn).__name__


def _parameters(fn: Callable[..., Any]) -> tuple[Parameter, ...]:
    if type(fn) is FunctionType and not (
        hasattr(fn, "__wrapped__") or hasattr(fn, "__signature__")
    ):
        return _code_parameters(fn)
    return _inspected_parameters(fn)


def _code_parameters(fn: FunctionType) -> tuple[Parameter, ...]:
    code = fn.__code__
    names = code.co_varnames
    count, keyword_count = code.co_argcount, code.co_kwonlyargcount
    defaults = fn.__defaults__ or ()
    keyword_defaults = fn.__kwdefaults__ or {}
    spread = (MISSING,) * (count - len(defaults)) + defaults
    kinds = [POSITIONAL_ONLY] * code.co_posonlyargcount
    kinds += [POSITIONAL] * (count - len(kinds))
    found = list(map(Parameter, names, kinds, spread))
    last = count + keyword_count
    if code.co_flags & _HAS_VARARGS:
        found.append(Parameter(names[last], VAR_POSITIONAL))
        last += 1
    for name in names[count : count + keyword_count]:
        found.append(Parameter(name, KEYWORD_ONLY, keyword_defaults.get(name, MISSING)))
    if code.co_flags & _HAS_VARKEYWORDS:
        found.append(Parameter(names[last], VAR_KEYWORD))
    return tuple(found)


def _inspected_parameters(fn: Callable[..., Any]) -> tuple[Parameter, ...]:
    import inspect

    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        import annotationlib

        options["annotation_format"] = annotationlib.Format.FORWARDREF
    try:
        found = inspect.signature(fn, **options).parameters.values()
    except (TypeError, ValueError):
        return Parameter("args", VAR_POSITIONAL), Parameter("kwargs", VAR_KEYWORD)
    empty = inspect.Parameter.empty
    return tuple(
        Parameter(each.name, int(each.kind), MISSING if each.default is empty else each.default)
        for each in found
    )


def _listing(
    parameters: tuple[Parameter, ...], default_text: Callable[[int, Parameter], str]
) -> str:
    parts: list[str] = []
    kinds = [each.kind for each in parameters]
    for index, each in enumerate(parameters):
        if each.kind == KEYWORD_ONLY and not {VAR_POSITIONAL, KEYWORD_ONLY} & set(kinds[:index]):
            parts.append("*")
        stars = {VAR_POSITIONAL: "*", VAR_KEYWORD: "**"}.get(each.kind, "")
        default = "" if each.default is MISSING else f"={default_text(index, each)}"
        parts.append(f"{stars}{each.name}{default}")
        if each.kind == POSITIONAL_ONLY and POSITIONAL_ONLY not in kinds[index + 1 :]:
            parts.append("/")
    return ", ".join(parts)


def _default_variable(index: int, parameter: Parameter) -> str:
    return f"_{index}"


def _shown_default(index: int, parameter: Parameter) -> str:
    if is_secret_name(parameter.name):
        return MASK
    return preview(parameter.default, 80)


def _problem(
    parameters: tuple[Parameter, ...], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> str | None:
    """Say what is wrong, in the words of `inspect`; slow, only used for the message."""
    import inspect

    kinds = list(inspect._ParameterKind)
    signature = inspect.Signature(
        [
            inspect.Parameter(
                each.name,
                kinds[each.kind],
                default=inspect.Parameter.empty if each.default is MISSING else each.default,
            )
            for each in parameters
        ]
    )
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        return str(exc)
    return None
