"""What a flow and a task have in common: a function, how it is called and what identifies it.

They pickle by reference, as functions do, where module and qualified name lead back to the very
object. Where they do not (a copy by `with_options`, a task bound to an instance), the state
travels, but the function still by reference: through the object that hides it under its name.
Pickled by value it would drag along every global it uses. What is defined in `__main__` or inside
a function travels by value, with cloudpickle.
"""

from __future__ import annotations

import copyreg
import inspect
import sys
from collections.abc import Callable
from functools import WRAPPER_ASSIGNMENTS, partial, update_wrapper
from importlib import import_module
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, Self, cast

from penstock.core.identity import input_digest
from penstock.core.scripts import module_key
from penstock.core.signatures import Signature
from penstock.core.sources import source_digest
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

    cache_key_fn: Any = None

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
        self._code_digests: dict[type | None, str | None] = {}

    @property
    def source(self) -> str | None:
        """The digest of its code and of the project's functions that it calls.

        Computed when first asked for; None where there is none. Bound to instances it is the same
        for all of one class. Thread-safe.
        """
        home = _home(self.fn)
        try:
            return self._code_digests[home]
        except KeyError:
            digest = self._code_digests[home] = _digest_or_none(self.fn)
            return digest

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

    def __reduce__(self) -> tuple[Any, ...]:
        place = _place(self.fn)
        if place is not None and not self._is_changed() and _look_up(*place) is self:
            return find_decorated, place
        return copyreg.__newobj__, (type(self),), self._state()  # type: ignore[attr-defined]

    def _is_changed(self) -> bool:
        """Tell whether it is no longer what importing its module gives."""
        return False

    def _state(self) -> dict[str, Any]:
        """Give what travels; whatever follows from the function is made again on arrival."""
        state = dict(self.__dict__)
        function = _function(self.fn)
        if function is not None:
            for name in (*WRAPPER_ASSIGNMENTS, "__annotations__", "__wrapped__"):
                state.pop(name, None)
            for name, value in vars(function).items():
                if state.get(name) is value:
                    del state[name]
        for name in ("signature", "parameter_names", "_code_digests"):
            del state[name]
        if not isinstance(self.fn, FunctionType):
            del state["held"]  # a function's are digests, of when it was decorated
        state["_sent_digest"] = self.source
        state["fn"] = _by_reference(self.fn)
        if self._source is self.fn:
            del state["_source"]
        elif isinstance(self._source, classmethod | staticmethod):
            state["_source"] = None
            state["_kind"] = type(self._source)  # the object itself cannot be pickled
        else:
            state["_source"] = _by_reference(self._source)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        fn = state["fn"]
        kind = state.pop("_kind", None)
        # Not what a worker would find, whose main module is another one.
        digest = state.pop("_sent_digest")
        source = state.pop("_source", fn) if kind is None else kind(fn)
        function = _function(fn)
        if function is not None:
            update_wrapper(cast(Any, self), function)
        self.__dict__.update(state)
        self._source = source
        plain = fn if kind is not None else source
        self.signature = Signature(plain)
        self.parameter_names = self.signature.parameters
        if "held" not in state:
            self.held = held_values(plain)
        self._code_digests = {_home(self.fn): digest}


def _home(fn: Any) -> type | None:
    """Give the class of the instance that a method is bound to."""
    if not isinstance(fn, MethodType):
        return None
    return fn.__self__ if isinstance(fn.__self__, type) else type(fn.__self__)


def _digest_or_none(fn: Any) -> str | None:
    try:
        return source_digest(fn)
    except Exception:  # whatever objects it refers to do when they are looked at
        return None


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


_SCRIPTS = frozenset({"__main__", "__mp_main__"})
_MOST_WRAPPERS = 20


class _Reference:
    """Pickles as a call whose result takes its place."""

    __slots__ = ("_call",)

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def find_decorated(module: str, qualified_name: str) -> Decorated:
    """Import the flow or task of that name, undoing a reference.

    Raises:
        ImportError: the module cannot be imported here, or has no such flow or task.
    """
    import_module(module)
    found = _look_up(module, qualified_name)
    if found is None:
        raise ImportError(
            f"There is no flow or task {qualified_name!r} in the module {module!r} as it is "
            "installed here. Install the same version of the code everywhere.",
            name=module,
        )
    return found


def find_function(module: str, qualified_name: str) -> Any:
    """Import the function that the flow or task of that name was made of."""
    return find_decorated(module, qualified_name).fn


def bound_method(function: Callable[..., Any], instance: object) -> MethodType:
    """Bind a function to an instance; plain pickle does not know the class `MethodType`."""
    return MethodType(function, instance)


def function_reference(fn: Any) -> tuple[Any, tuple[str, str]] | None:
    """Give how to pickle a function that a flow or task hides under its name, else None.

    The form is that of `__reduce__`. Pickle itself would find the flow or task in its place.
    """
    place = _place(fn)
    if place is None:
        return None
    decorated = _look_up(*place)
    return None if decorated is None or decorated.fn is not fn else (find_function, place)


def _by_reference(fn: Any) -> Any:
    if isinstance(fn, MethodType):
        # Pickle would fetch a method by its name from the instance: that gives the task instead.
        return _Reference(bound_method, _by_reference(fn.__func__), fn.__self__)
    reference = function_reference(fn)
    return fn if reference is None else _Reference(reference[0], *reference[1])


def _function(fn: Any) -> FunctionType | None:
    """Give the function that `update_wrapper` was applied on, also below a method."""
    fn = getattr(fn, "__func__", fn)
    return fn if isinstance(fn, FunctionType) else None


def _place(fn: Any) -> tuple[str, str] | None:
    """Give module and qualified name where looking them up elsewhere may give the same."""
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if type(module) is not str or type(name) is not str or isinstance(fn, MethodType):
        return None
    if module in _SCRIPTS or "<" in name or _travels_by_value(module):
        return None
    return module, name


def _travels_by_value(module: str) -> bool:
    """Tell whether the user asked cloudpickle to send a module's contents by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is None:
        return False
    asked = cloudpickle.list_registry_pickle_by_value()
    return any(module == name or module.startswith(f"{name}.") for name in asked)


def _look_up(module: str, qualified_name: str) -> Decorated | None:
    """Find a flow or task in a loaded module, as it was defined: not bound to its class."""
    found: Any = sys.modules.get(module)
    for name in qualified_name.split("."):
        try:
            found = vars(found)[name]
        except (TypeError, KeyError):
            found = getattr(found, name, None)
    for _ in range(_MOST_WRAPPERS):  # what other decorators were put above ours
        if found is None or isinstance(found, Decorated):
            break
        found = getattr(found, "__wrapped__", None)
    return found if isinstance(found, Decorated) else None


def function_key(fn: Any) -> str:
    """Give what identifies a function: module (of a script the file) and qualified name.

    All lambdas of a scope have one name; their code tells them apart.
    """
    fn = getattr(fn, "func", fn)
    module = getattr(fn, "__module__", None) or type(fn).__module__
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    code = getattr(fn, "__code__", None)
    module = module_key(module)
    if code is not None and code.co_name == "<lambda>":
        digest = input_digest("", (code,), lambda dependency: None)
        name = f"{name}:{code.co_firstlineno if digest is None else digest.hex()[:12]}"
    return f"{module}.{name}"


def is_async_function(fn: Any) -> bool:
    """Tell whether calling a function gives something to await."""
    fn = getattr(fn, "func", fn)
    if not isinstance(fn, FunctionType) and not inspect.ismethod(fn) and not inspect.isclass(fn):
        fn = getattr(fn, "__call__", fn)  # noqa: B004 (the method is inspected, not called)
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def held_values(fn: Any) -> tuple[object, ...]:
    """Give what a callable brings along itself: a method's instance, a partial's arguments.

    They count as inputs: two instances' methods, or two partials, are not the same work. Nor are
    two functions that one factory has made: what they close over tells them apart.
    """
    if isinstance(fn, FunctionType):
        return _closed_over(fn, frozenset())
    if inspect.isclass(fn):
        return ()
    if isinstance(fn, partial):
        return (*held_values(fn.func), fn.args, fn.keywords)
    if isinstance(fn, MethodType | BuiltinFunctionType):
        return () if isinstance(fn.__self__, ModuleType | None) else (fn.__self__,)
    return () if inspect.isroutine(fn) else (fn,)


def _closed_over(fn: FunctionType, around: frozenset[int]) -> tuple[object, ...]:
    """Give digests of what a function closes over; of one with a name to itself, nothing.

    What has no identity, such as a lock, counts by its type. Values are those of the moment.
    """
    if not fn.__closure__ or "<" not in fn.__qualname__ or id(fn) in around:
        return ()
    around |= {id(fn)}
    return tuple(_cell_digest(cell, around) for cell in fn.__closure__)


def _cell_digest(cell: CellType, around: frozenset[int]) -> object:
    try:
        value = cell.cell_contents
    except ValueError:
        return None  # not assigned yet
    if isinstance(value, Decorated):
        # One that is being unpickled, and refers to itself, has nothing yet.
        return getattr(value, "key", None), getattr(value, "held", ())
    if isinstance(value, FunctionType):
        # Its code may change without making it another one.
        return function_key(value), _closed_over(value, around)
    digest = input_digest("", (value,), lambda dependency: None)
    return f"{type(value).__module__}.{type(value).__qualname__}" if digest is None else digest


def described(fn: Callable[..., Any]) -> str | None:
    """Give the docstring of a callable: of a partial, that of its function."""
    return inspect.getdoc(getattr(fn, "func", fn))
