"""Short safe texts of values, for the history, the UI and error messages.

No `__repr__` or `__str__` of a user's class is ever called: it may raise, recurse, sleep, or
give away a secret. Built-in types and a list of well-known ones are shown; of anything else only
the type. The work is bounded by the length of the text, not by the size of the value.

Secrets are masked as `********`: the value of a parameter, dict key, field or keyword whose name
`is_secret_name` accepts, objects of a type called `SecretStr`, `SecretBytes` or `Secret`, the
password in `scheme://user:password@host`, and what follows `password=`, `token:` and the like in
a text. Masking comes before truncation, so that a cut cannot uncover one.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring_ascii
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from penstock.annotations import Annotation, Dependency

LIMIT = 200
"""The longest preview of one value, in characters."""

TOTAL_LIMIT = 4096
"""The longest preview of all parameters of a run, in characters."""

MAX_DEPTH = 8
"""Containers nested deeper than this are shown as `...`."""

MASK = "********"

SECRET_PARTS = (
    "password", "passwd", "passphrase", "secret", "credential", "authorization",
    "apikey", "accesskey", "privatekey", "signingkey", "encryptionkey",
    "accesstoken", "authtoken", "apitoken", "refreshtoken", "bearertoken",
)  # fmt: skip
"""A name is secret when it holds one of these, whatever its case and separators."""

SECRET_WORDS = frozenset({"token", "auth", "pwd", "pass", "jwt", "bearer", "cookie", "cookies"})
"""A name is secret when one of these is a word of it: `db_pwd`, `userToken`."""

_ELLIPSIS = "\u2026"
_MARGIN = 4096  # what is read beyond a cut, so that a secret across it is still recognised
_HUGE_INT_BITS = 4096  # longer ones are slow to write in decimal, and refused by Python
_NUMBERS = frozenset({type(None), bool, float})
_WELL_KNOWN = {
    ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"),
    ("datetime", "date"), ("datetime", "datetime"), ("datetime", "time"),
    ("datetime", "timedelta"), ("datetime", "timezone"), ("zoneinfo", "ZoneInfo"),
    ("ipaddress", "IPv4Address"), ("ipaddress", "IPv6Address"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"),
    ("pathlib", "PurePosixPath"), ("pathlib", "PureWindowsPath"),
}  # fmt: skip
_ARRAY_PACKAGES = frozenset({"numpy", "pandas", "polars", "torch", "xarray"})
SECRET_TYPES = frozenset({"SecretStr", "SecretBytes", "Secret"})
_BASES: tuple[Any, ...] = (str, bytes, bytearray, int, float, complex, list, tuple, dict)
_NESTING = frozenset({list, tuple, dict, set, frozenset})


def preview(value: object, limit: int = LIMIT) -> str:
    """Give a text of at most `limit` characters that shows a value, secrets masked.

    Never runs code of the value's class, and takes a few microseconds however large it is.

    Example:
        >>> preview({"user": "ada", "password": "x"})
        "{'user': 'ada', 'password': '********'}"
    """
    kind = type(value)
    if kind in _NUMBERS:
        text = repr(value)
    else:
        # A collection wants room to say how much it leaves out.
        room = limit if kind is str or kind is bytes else max(limit - 14, 1)
        text = _Writer(room).show(value, 0)
    return text if len(text) <= limit else text[: limit - 1] + _ELLIPSIS


def preview_parameters(names: Sequence[str], values: Sequence[object]) -> str:
    """Give the previews of named values as the text of a JSON object, secrets masked.

    The text has at most `TOTAL_LIMIT` characters; what no longer fits is counted under `"..."`.

    Example:
        >>> preview_parameters(("x", "api_key"), (1, "abc"))
        '{"x": "1", "api_key": "********"}'
    """
    parts: list[str] = []
    left = TOTAL_LIMIT - 40  # room for the braces and the count of what was left out
    for name, value in zip(names, values, strict=True):
        if type(value) is int and -_SMALL < value < _SMALL and not is_secret_name(name):
            part = f'{_json(name)}: "{value}"'
        else:
            text = MASK if is_secret_name(name) else preview(value)
            part = f"{_json(name)}: {encode_basestring_ascii(text)}"
        left -= len(part) + 2
        if left < 0:
            parts.append(f'"...": "{len(names) - len(parts)} more"')
            break
        parts.append(part)
    return "{" + ", ".join(parts) + "}"


_SMALL = 10**18


@lru_cache(maxsize=4096)
def _json(name: str) -> str:
    text: str = encode_basestring_ascii(name[:LIMIT])
    return text


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Say whether values of this name are masked.

    Example:
        >>> [is_secret_name(name) for name in ("dbPassword", "AUTH_TOKEN", "author", "max_tokens")]
        [True, True, False, False]
    """
    name = name[:1000]
    joined = re.sub(r"[\W_]+", "", name).lower()
    if any(part in joined for part in SECRET_PARTS):
        return True
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return not SECRET_WORDS.isdisjoint(word.lower() for word in words)


def mask_secrets(text: str) -> str:
    """Mask passwords in URLs and the values of secret names in a text.

    Example:
        >>> mask_secrets("postgres://ada:hunter2@db/x?sslmode=on")
        'postgres://ada:********@db/x?sslmode=on'
    """
    if "://" in text and "@" in text:
        text = _patterns()[0].sub(_mask_url, text)
    if "=" in text or ":" in text:
        text = _patterns()[2].sub(rf"\g<1>{MASK}", text)
    return text


def _mask_url(found: re.Match[str]) -> str:
    """Mask the password in a text that begins with "://" and holds no space or quote."""
    text = found[0]
    user = _patterns()[1].search(text)
    end = -1 if user is None else text.rfind("@", user.end())
    return text if user is None or end < 0 else text[: user.end()] + MASK + text[end:]


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    # All three take linear time, whatever the text: tracebacks and log lines pass here too.
    # A text that was cut may end inside a password: the end counts as the "@". A password may
    # hold "/" and "@"; masking too much is better than too little.
    url = re.compile(r"://[^\s'\"]*")
    user = re.compile(r"://[^\s:/@'\"]*:")
    names = (
        r"passw(?:or)?d|passphrase|pwd|secret|credentials?|authorization|token"
        r"|(?:api|access|private|secret|signing|encryption)[_-]?key"
    )
    assignment = re.compile(
        rf"((?<![A-Za-z])(?:{names})[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic)\s+)?)"
        r"[^\s\"'&,;]+",
        re.IGNORECASE,
    )
    return url, user, assignment


class _Writer:
    """Writes one preview; `left` is how many more characters are worth writing."""

    __slots__ = ("left",)

    def __init__(self, limit: int) -> None:
        self.left = limit

    def show(self, value: object, depth: int) -> str:
        text = self._text(value, depth)
        self.left -= min(len(text), 8) if depth and type(value) in _NESTING else len(text)
        return text

    def _text(self, value: object, depth: int) -> str:
        kind = type(value)
        if kind in _NUMBERS:
            return repr(value)
        if depth > MAX_DEPTH:
            return _ELLIPSIS
        if kind in _BASES:
            return self._builtin(kind, value, depth)
        if kind is set or kind is frozenset:
            return self._set(value, depth)  # type: ignore[arg-type]
        return self._other(value, kind, depth)

    def _builtin(self, base: Any, value: Any, depth: int) -> str:
        if base is str:
            return self._string(value)
        if base is int:
            return _integer(value)
        if base is bytes or base is bytearray:
            return self._bytes(value)
        if base is dict:
            return self._dict(value, depth)
        if base is list or base is tuple:
            return self._sequence(base, value, depth)
        return str(base.__repr__(value))

    def _string(self, value: str) -> str:
        room = max(self.left, 8)
        length = str.__len__(value)
        head = mask_secrets(_open_end(str.__getitem__(value, slice(room + _MARGIN)), length))
        if length <= room + _MARGIN and len(head) <= room:
            return repr(head)
        return f"{head[:room]!r}"[: room + 1] + _ELLIPSIS

    def _bytes(self, value: Any) -> str:
        base: Any = bytes if isinstance(value, bytes) else bytearray
        room = max(self.left, 8)
        head = bytes(base.__getitem__(value, slice(room + _MARGIN)))
        length = base.__len__(value)
        text = mask_secrets(_open_end(head.decode("latin-1"), length))
        shown = repr(text[:room].encode("latin-1"))
        return shown if length <= room and len(shown) <= room else shown[:room] + _ELLIPSIS

    def _sequence(self, base: Any, value: Any, depth: int) -> str:
        length = base.__len__(value)
        first = base.__getitem__(value, 0) if length else None
        if length == 2 and _names_secret(first):  # a pair, as in a list of headers
            inner = f"{self.show(first, depth + 1)}, {MASK!r}"
        else:
            texts = (self.show(each, depth + 1) for each in base.__iter__(value))
            inner = self._items(texts, length)
        if base is list:
            return f"[{inner}]"
        return f"({inner},)" if length == 1 else f"({inner})"

    def _set(self, value: set[object] | frozenset[object], depth: int) -> str:
        if not value:
            return f"{type(value).__name__}()"
        texts = self._items((self.show(each, depth + 1) for each in value), len(value))
        return f"{{{texts}}}"

    def _dict(self, value: dict[Any, Any], depth: int) -> str:
        pairs = (
            f"{self.show(key, depth + 1)}: {self._named(key, each, depth)}"
            for key, each in dict.items(value)
        )
        return f"{{{self._items(pairs, dict.__len__(value))}}}"

    def _named(self, name: object, value: object, depth: int) -> str:
        return repr(MASK) if _names_secret(name) else self.show(value, depth + 1)

    def _items(self, texts: Iterable[str], length: int) -> str:
        shown: list[str] = []
        iterator = iter(texts)
        while len(shown) < length and self.left > 0:
            shown.extend(islice(iterator, 1))
            self.left -= 2
        if len(shown) < length:
            shown.append(f"{_ELLIPSIS} +{length - len(shown)}")
        return ", ".join(shown)

    def _other(self, value: Any, kind: type, depth: int) -> str:
        if any(base.__name__ in SECRET_TYPES for base in kind.__mro__):
            return MASK
        if kind is range:
            return repr(value) if max(map(abs, (value.start, value.stop))) < _SMALL else "<range>"
        if isinstance(value, (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)):
            return _code_name(value)
        if isinstance(value, Annotation):
            return f"{kind.__name__}({self.show(value.value, depth + 1)})"
        if isinstance(value, Dependency):
            return _dependency(value)
        return self._known(value, kind) or self._structured(value, kind, depth)

    def _known(self, value: Any, kind: type) -> str | None:
        """Show enums, well-known standard types, arrays and tables."""
        module, name = str(kind.__module__), kind.__name__
        enum = sys.modules.get("enum")
        if enum is not None and isinstance(value, enum.Enum):
            return _enum_member(value, kind)
        for home, known in _WELL_KNOWN:
            if known == name and kind is getattr(sys.modules.get(home), known, None):
                return self._well_known(value, home)
        package = module.partition(".")[0]
        if package in _ARRAY_PACKAGES:
            return self._array(value, package, name)
        return None

    def _well_known(self, value: Any, home: str) -> str:
        if home == "datetime" and not _plain_zone(value):
            value = value.replace(tzinfo=None)
        if (
            home == "fractions"
            and max(value.numerator.bit_length(), value.denominator.bit_length()) > _HUGE_INT_BITS
        ):
            return "<fractions.Fraction>"
        if home == "decimal" and len(value.as_tuple().digits) > _HUGE_INT_BITS:
            return "<decimal.Decimal>"
        return mask_secrets(str(value))

    def _array(self, value: Any, package: str, name: str) -> str:
        shape = getattr(value, "shape", None)
        if package == "numpy" and shape == () and name != "ndarray" and hasattr(value, "item"):
            item = value.item()
            return f"<numpy.{name}>" if type(item) is type(value) else self._text(item, 0)
        if package == "pandas" and name in {"Timestamp", "Timedelta"}:
            return str(value)
        details = "" if shape is None else f" shape={_shape(shape)}"
        dtype = getattr(value, "dtype", None)
        if dtype is not None and type(dtype).__module__.partition(".")[0] in _ARRAY_PACKAGES:
            details += f" dtype={dtype}"
        return f"<{package}.{name}{details}>"

    def _structured(self, value: Any, kind: type, depth: int) -> str:
        """Show dataclasses, namedtuples, exceptions and subclasses of built-in types."""
        fields = getattr(kind, "__dataclass_fields__", None)
        if isinstance(fields, dict):
            shown = [name for name, each in fields.items() if getattr(each, "repr", True)]
            attributes = ((name, _attribute(value, name)) for name in shown)
            return f"{kind.__name__}({self._fields(attributes, len(shown), depth)})"
        names = getattr(kind, "_fields", None)
        if isinstance(value, tuple) and isinstance(names, tuple):
            elements = zip(names, tuple.__iter__(value), strict=False)
            return f"{kind.__name__}({self._fields(elements, tuple.__len__(value), depth)})"
        if isinstance(value, BaseException):
            args = BaseException.args.__get__(value)  # type: ignore[attr-defined]
            inner = self._items((self.show(each, depth + 1) for each in args), len(args))
            return f"{kind.__name__}({inner})"
        return self._subclass(value, kind, depth)

    def _fields(self, pairs: Iterable[tuple[str, object]], length: int, depth: int) -> str:
        texts = (f"{name}={self._named(name, value, depth)}" for name, value in pairs)
        return self._items(texts, length)

    def _subclass(self, value: Any, kind: type, depth: int) -> str:
        for base in _BASES:
            if isinstance(value, base) and base is not tuple:
                return self._builtin(base, value, depth)
        return f"<{type_name(kind)}>"


def type_name(kind: type) -> str:
    """Give a type's name with its module, without that for built-in types."""
    module, name = type.__getattribute__(kind, "__module__"), kind.__qualname__
    return str(name) if module == "builtins" else f"{module}.{name}"


def _open_end(text: str, length: int) -> str:
    """Close what a cut may have left open, so that a password across the cut is masked."""
    return text if len(text) == length else text + "@"


def _names_secret(name: object) -> bool:
    if type(name) is bytes:
        name = name[:1000].decode("latin-1")
    return type(name) is str and is_secret_name(name)


def _integer(value: int) -> str:
    bits = int.bit_length(value)
    return int.__repr__(value) if bits <= _HUGE_INT_BITS else f"<int of {bits} bits>"


def _code_name(value: Any) -> str:
    if isinstance(value, ModuleType):
        return f"<module {value.__name__}>"
    if isinstance(value, type):
        return f"<class {type_name(value)}>"
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", "?")
    return f"<function {name if module in (None, 'builtins') else f'{module}.{name}'}>"


def _dependency(value: object) -> str:
    try:
        name = getattr(value, "name", None)
    except Exception:
        name = None
    label = f" {name}" if type(name) is str else ""
    return f"<{type(value).__name__}{label}>"


def _enum_member(value: Any, kind: type) -> str:
    name = getattr(value, "_name_", None)
    return f"{kind.__name__}.{name}" if type(name) is str else f"<{type_name(kind)}>"


def _plain_zone(value: Any) -> bool:
    zone = getattr(value, "tzinfo", None)
    return zone is None or type(zone).__module__ in {"datetime", "zoneinfo"}


def _shape(shape: Any) -> str:
    return str(tuple(int(each) for each in shape if math.isfinite(each)))


def _attribute(value: object, name: str) -> object:
    try:
        return object.__getattribute__(value, name)
    except Exception:
        return _UNSET


class _Unset:
    """Stands for a field without a value."""


_UNSET = _Unset()
