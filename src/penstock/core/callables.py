"""What a flow and a task have in common: a function, how it is called and what identifies it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Self, cast

from penstock.core.identity import input_digest
from penstock.core.signatures import Signature
from penstock.errors import InvalidOptionError


class Decorated:
    """A function that was decorated. In a class it binds like the function itself.

    Takes a `staticmethod` or `classmethod` as well. That is the order to use for class methods:
    from Python 3.13 on, `@classmethod` above would hand the class to calls but not to `.submit`.

    Args:
        fn: the function, or any other callable.
        decorator: "@flow" or "@task", for messages.

    Attributes:
        fn: the plain function.
        key: module and qualified name of the function: what identifies it.
        held: what the callable brings along itself, beside the arguments of a call.
        digest: the input digest of a call without arguments.
    """

    def __init__(self, fn: Any, decorator: str) -> None:
        plain = _plain(fn, decorator)
        if isinstance(plain, FunctionType):
            # Attributes of the function come first, so that they cannot hide ours.
            update_wrapper(cast(Any, self), plain)
        self._source = fn
        self.fn = plain
        self.signature = Signature(self.fn)
        self.parameter_names = self.signature.parameters
        self.is_async = is_async_function(self.fn)
        self.key = function_key(self.fn)
        self.held = held_values(self.fn)
        self.digest = input_digest(self.key, (), lambda dependency: None)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind what was decorated in a class to an instance, as its function would be."""
        get = getattr(type(self._source), "__get__", None)
        if isinstance(self._source, partial):
            get = None  # whether a partial binds depends on the version of Python
        bound = self.fn if get is None else get(self._source, instance, owner)
        return self if bound is self.fn else self._bound_to(bound)

    def _bound_to(self, method: Any) -> Self:
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.fn = bound._source = method
        bound.signature = self.signature.bound_to(method)
        bound.parameter_names = bound.signature.parameters
        bound.held = held_values(method)
        return bound


def _plain(fn: Any, decorator: str) -> Any:
    """Give the callable that was decorated, out of a `staticmethod` or `classmethod`."""
    if isinstance(fn, classmethod | staticmethod):
        fn = fn.__func__
    if isinstance(fn, Decorated):
        raise InvalidOptionError(
            f"{decorator} needs a plain function, not {fn!r}. Decorate a function once; a flow "
            "runs as a task by its .submit()."
        )
    if not callable(fn):
        raise InvalidOptionError(f"{decorator} needs a function, not {fn!r}.")
    return fn


def function_key(fn: Any) -> str:
    """Give what identifies a function: module (for `__main__` the file) and qualified name.

    All lambdas of a scope have one name; the line tells them apart.
    """
    fn = getattr(fn, "func", fn)
    module = getattr(fn, "__module__", None) or type(fn).__module__
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    code = getattr(fn, "__code__", None)
    if module == "__main__" and code is not None:
        module = code.co_filename
    if code is not None and code.co_name == "<lambda>":
        name = f"{name}:{code.co_firstlineno}"
    return f"{module}.{name}"


def is_async_function(fn: Any) -> bool:
    """Tell whether calling a function gives something to await."""
    fn = getattr(fn, "func", fn)
    if not isinstance(fn, FunctionType) and not inspect.ismethod(fn) and not inspect.isclass(fn):
        fn = getattr(fn, "__call__", fn)  # noqa: B004 (the method is inspected, not called)
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def held_values(fn: Any) -> tuple[object, ...]:
    """Give what a callable brings along itself: a method's instance, a partial's arguments.

    They count as inputs: two instances' methods, or two partials, are not the same work.
    """
    if isinstance(fn, FunctionType) or inspect.isclass(fn):
        return ()
    if isinstance(fn, partial):
        return (*held_values(fn.func), fn.args, fn.keywords)
    if isinstance(fn, MethodType | BuiltinFunctionType):
        return () if isinstance(fn.__self__, ModuleType | None) else (fn.__self__,)
    return () if inspect.isroutine(fn) else (fn,)


def described(fn: Callable[..., Any]) -> str | None:
    """Give the docstring of a callable: of a partial, that of its function."""
    return inspect.getdoc(getattr(fn, "func", fn))
