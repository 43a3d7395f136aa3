"""Digest the code of a function, and of the project's functions and classes that it uses.

    load ──► clean (a global) ──► Parser (a class: its methods and bases)
      └────► helpers.read (an attribute of a project's module)

What counts is compiled code: byte code, constants, names and defaults, never the text of a file.
So comments, docstrings, moved lines and edits of other functions change nothing. References are
followed breadth first; each function or class is described once and numbered, so cycles end.

The project is what lies neither in the standard library nor in `site-packages`, and is not
Penstock; the function itself and its top-level package always belong to it. Of libraries only
names count. Values count where they are as good as code: defaults, constants of classes, plain
values in closures, and global constants, which are those in capitals. What a function imports in
its body is not followed: it would depend on whether that ran before.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import islice
from opcode import EXTENDED_ARG, hasconst, opmap
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

from penstock.core.inputs import SCALARS

MOST_REFERENCES = 5_000
"""The most functions and classes that one digest covers; what lies beyond them is left out."""

_MOST_ELEMENTS = 1_000
_DEEPEST = 6
_SCRIPTS = frozenset({"__main__", "__mp_main__"})
_INSTALLED = ("site-packages", "dist-packages")
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_COLLECTIONS = (tuple, list, set, frozenset, dict, MappingProxyType)
_DESCRIPTORS = (staticmethod, classmethod, property)
_WITHIN = ("__wrapped__", "func", "fn")  # of caches and wrappers; of flows and tasks
_NOT_CODE = frozenset(
    "__module__ __doc__ __dict__ __weakref__ __annotations__ __qualname__ __firstlineno__ "
    "__static_attributes__ __parameters__ __orig_bases__ __match_args__ "
    "__slotnames__".split()  # the last: noted by copyreg once an instance was pickled
)
_LOAD_GLOBAL, _LOAD_NAME = opmap["LOAD_GLOBAL"], opmap["LOAD_NAME"]
_CONSTANT_LOADS = frozenset(hasconst)


def source_digest(function: Any) -> str:
    """Give the digest of a callable's code and of what it uses of its project.

    Returns:
        The minor version of Python, whose byte code it is, a colon and 32 hexadecimal digits.

    Example:
        >>> one, same, other = (lambda x: x + 1), (lambda x: x + 1), (lambda x: x + 2)
        >>> source_digest(one) == source_digest(same)
        True
        >>> source_digest(one) == source_digest(other)
        False
    """
    walk = _Walk(_top_level(function))
    walk.begin(function)
    return f"{sys.version_info[0]}.{sys.version_info[1]}:{walk.finish()}"


def _top_level(function: Any) -> str:
    for _ in range(_DEEPEST):
        inner = getattr(function, "__func__", None) or getattr(function, "func", None)
        if inner is None:
            break
        function = inner
    if not isinstance(function, FunctionType | type | BuiltinFunctionType):
        function = type(function)
    module = getattr(function, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


class _Walk:
    """Describes functions and classes one after another, and what they refer to after them."""

    def __init__(self, top_level: str) -> None:
        self._hash = blake2b(digest_size=16, person=b"source")
        self._numbers: dict[int, int] = {}
        # Also keeps them alive, so that no two have the same id.
        self._found: list[Any] = []
        self._own = top_level if top_level not in sys.stdlib_module_names else ""

    def begin(self, root: Any) -> None:
        self._value(root, 0)
        if isinstance(root, FunctionType):
            self._home_of(root)

    def finish(self) -> str:
        for found in self._found:  # it grows meanwhile
            if isinstance(found, FunctionType):
                self._function(found)
            else:
                self._class(found)
        return self._hash.hexdigest()

    # What is fed to the hash.

    def _put(self, kind: str, data: bytes = b"") -> None:
        self._hash.update(b"%s %d " % (kind.encode(), len(data)))
        self._hash.update(data)

    def _refer(self, found: FunctionType | type) -> None:
        """Write the number of a function or class; it is described when its turn comes."""
        number = self._numbers.get(id(found))
        if number is None:
            if len(self._found) >= MOST_REFERENCES:
                return self._put("beyond")
            number = self._numbers[id(found)] = len(self._found)
            self._found.append(found)
        self._put("ref", str(number).encode())
        return None

    def _name(self, found: Any) -> None:
        if isinstance(found, FunctionType):
            # A wrapper bears the name of what it was put around.
            name = f"{found.__globals__.get('__name__')}:{found.__code__.co_qualname}"
        else:
            name = f"{getattr(found, '__module__', '')}:{getattr(found, '__qualname__', '')}"
        self._put("library", name.encode("utf-8", "surrogatepass"))

    # Functions.

    def _function(self, function: FunctionType) -> None:
        is_first = self._found[0] is function
        if not is_first and not self._is_project(function.__globals__):
            self._name(function)
            return self._wrapped(function)
        self._put("function")
        self._code(function.__code__)
        self._value(function.__defaults__, 0)
        self._value(function.__kwdefaults__, 0)
        for cell in function.__closure__ or ():
            self._cell(cell)
        for code in _codes(function.__code__):
            self._globals(code, function.__globals__)
        return self._wrapped(function, and_cells=False)

    def _wrapped(self, function: Any, and_cells: bool = True) -> None:
        """Go on to what a wrapper was put around; a library's has it in its closure, too."""
        inner = _attribute(function, "__wrapped__")
        if inner is not None:
            self._value(inner, 1)
        for cell in (function.__closure__ or ()) if and_cells else ():
            self._cell(cell, only_code=True)

    def _home_of(self, function: FunctionType) -> None:
        """Go on to the class in whose body a function was defined: it may call its methods."""
        path = function.__qualname__.split(".")[:-1]
        home: Any = sys.modules.get(function.__module__) if path else None
        for name in path:
            home = getattr(home, name, None)
        if isinstance(home, type):
            self._refer(home)

    def _code(self, code: CodeType) -> None:
        shape = (
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
            code.co_code,
            code.co_exceptiontable,
        )
        self._put("code", marshal.dumps(shape, 2))
        constants = code.co_consts
        if _begins_with_docstring(code):
            constants = (None, *constants[1:])
        self._value(constants, 0)

    def _cell(self, cell: CellType, only_code: bool = False) -> None:
        try:
            value = cell.cell_contents
        except ValueError:
            return self._put("empty")
        return self._used(value, is_constant=not only_code and type(value) not in (list, dict, set))

    def _globals(self, code: CodeType, names: dict[str, Any]) -> None:
        for name in _global_names(code):
            if name in names:
                value = names[name]
                self._put("global", name.encode())
                if isinstance(value, ModuleType):
                    self._attributes(value, code.co_names, 0)
                else:
                    self._used(value, is_constant=name.isupper())

    def _attributes(self, module: ModuleType, names: tuple[str, ...], depth: int) -> None:
        """Go on to what code may use of a module: attributes of a name that occurs in it."""
        if depth > _DEEPEST or not self._is_project(vars(module)):
            return self._put("module", module.__name__.encode())
        for name in names:
            if name not in vars(module):
                continue
            self._put("attribute", name.encode())
            value = vars(module)[name]
            if isinstance(value, ModuleType):
                self._attributes(value, names, depth + 1)
            else:
                self._used(value, is_constant=name.isupper())
        return None

    def _used(self, value: Any, is_constant: bool) -> None:
        """Go on with a value that has a name: of what may change while it runs, only the code."""
        if type(value) in SCALARS:
            if is_constant:
                self._value(value, 0)
        elif is_constant and isinstance(value, tuple | frozenset | Enum):
            self._value(value, 0)
        elif isinstance(value, _COLLECTIONS):
            for element in islice(_elements(value), _MOST_ELEMENTS):
                if callable(element):
                    self._value(element, 1)
        else:
            self._value(value, 1)

    # Classes and values.

    def _class(self, cls: type) -> None:
        if not self._is_project_class(cls) and self._found[0] is not cls:
            return self._name(cls)
        self._put("class")
        for base in cls.__bases__:
            self._value(base, 1)
        if issubclass(cls, Enum):
            self._value({name: member._value_ for name, member in cls.__members__.items()}, 0)
        for name in sorted(vars(cls)):
            if name not in _NOT_CODE and not (issubclass(cls, Enum) and name in cls.__members__):
                self._put("member", name.encode())
                self._used(vars(cls)[name], is_constant=True)
        return None

    def _value(self, value: Any, depth: int) -> None:
        if type(value) in SCALARS or value is Ellipsis:
            self._put("plain", marshal.dumps(value, 2))
        elif depth > _DEEPEST:
            self._put("deep")
        elif isinstance(value, CodeType):
            self._code(value)
        elif isinstance(value, _COLLECTIONS):
            self._collection(value, depth + 1)
        elif isinstance(value, FunctionType | type):
            self._refer(value)
        elif isinstance(value, Enum):
            self._refer(type(value))
            self._put("enum", value.name.encode())
        else:
            self._other(value, depth + 1)

    def _collection(self, collection: Any, depth: int) -> None:
        self._put(type(collection).__name__, str(len(collection)).encode())
        elements: Iterable[Any] = islice(_elements(collection), _MOST_ELEMENTS)
        if isinstance(collection, set | frozenset):
            # Their order differs from process to process.
            elements = sorted(elements, key=_order)
        for element in elements:
            self._value(element, depth)

    def _other(self, value: Any, depth: int) -> None:
        """Go on to the functions in methods, partials, descriptors, flows, tasks and objects."""
        if isinstance(value, MethodType):
            self._value(value.__func__, depth)
            self._refer(
                value.__self__ if isinstance(value.__self__, type) else type(value.__self__)
            )
        elif isinstance(value, partial):
            for part in (value.func, value.args, value.keywords):
                self._value(part, depth)
        elif isinstance(value, _DESCRIPTORS):
            self._value(_within(value), depth)
        elif isinstance(value, BuiltinFunctionType):
            self._name(value)
        else:
            self._refer(type(value))
            for name in _WITHIN:
                self._value(_attribute(value, name), depth)

    # What belongs to the project.

    def _is_project(self, module: dict[str, Any]) -> bool:
        name = module.get("__name__")
        if not isinstance(name, str):
            return False
        if self._own and name.partition(".")[0] == self._own:
            return True
        return is_project_module(name, module.get("__file__"))

    def _is_project_class(self, cls: type) -> bool:
        module = sys.modules.get(cls.__module__)
        if module is None:
            return cls.__module__ in _SCRIPTS
        return self._is_project(vars(module))


@lru_cache(maxsize=4096)
def is_project_module(name: str, file: str | None) -> bool:
    """Tell whether a module is neither Penstock, nor installed, nor of the standard library.

    Args:
        name: its full name.
        file: where it lies; None for built-in and frozen modules, namespaces, and modules made
            by a program, which count by their names.

    Example:
        >>> is_project_module("json", os.__file__), is_project_module("mine", "/home/me/mine.py")
        (False, True)
    """
    if name in _SCRIPTS:
        return True
    top_level = name.partition(".")[0]
    if top_level == "penstock":
        return False
    if file is None:
        return (
            top_level not in sys.stdlib_module_names and top_level not in sys.builtin_module_names
        )
    path = os.path.abspath(file)
    if path.startswith(_LIBRARY):
        return False
    return not any(folder in _INSTALLED for folder in path.split(os.sep))


def _begins_with_docstring(code: CodeType) -> bool:
    """Tell whether the first constant is a docstring and nothing else."""
    constants = code.co_consts
    if not constants or type(constants[0]) is not str or code.co_name.startswith("<"):
        return False
    data = code.co_code
    return not any(
        op in _CONSTANT_LOADS and argument == 0
        for op, argument in zip(data[::2], data[1::2], strict=True)
    )


def _global_names(code: CodeType) -> list[str]:
    """Give the names that code looks up among the globals, each once, in order."""
    names: dict[str, None] = {}
    extended = 0
    data = code.co_code
    for op, argument in zip(data[::2], data[1::2], strict=True):
        if op == EXTENDED_ARG:
            extended = (extended | argument) << 8
            continue
        if op == _LOAD_GLOBAL:
            names[code.co_names[(extended | argument) >> 1]] = None
        elif op == _LOAD_NAME:
            names[code.co_names[extended | argument]] = None
        extended = 0
    return list(names)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Give a code object and those inside it."""
    waiting = [code]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _elements(collection: Any) -> Iterable[Any]:
    if isinstance(collection, dict | MappingProxyType):
        return (part for item in collection.items() for part in item)
    elements: Iterable[Any] = collection
    return elements


def _order(element: Any) -> str:
    name = getattr(element, "__qualname__", None)
    return name if isinstance(name, str) else repr(element)


def _attribute(value: Any, name: str) -> Any:
    """Give an attribute that an object itself has, without running code of its class."""
    try:
        return object.__getattribute__(value, "__dict__").get(name)
    except AttributeError:
        return None


def _within(descriptor: Any) -> tuple[Callable[..., Any] | None, ...]:
    if isinstance(descriptor, property):
        return descriptor.fget, descriptor.fset, descriptor.fdel
    return (descriptor.__func__,)
