from __future__ import annotations

import functools
import itertools
import json
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from penstock import flow, task
from penstock.core import sources
from penstock.core.sources import is_project_module, source_digest

Digest = Callable[..., str]
_numbers = itertools.count()


@pytest.fixture
def digest_of(tmp_path: Path) -> Iterator[Digest]:
    """Give the digest of a name in modules made of texts: the main one, and `helpers`."""
    made: list[str] = []

    def make(name: str, text: str, helpers: str | None = None) -> ModuleType:
        module = ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        if helpers is not None:
            vars(module)["helpers"] = make(f"helpers_{name}", helpers)
        sys.modules[name] = module
        made.append(name)
        exec(compile(textwrap.dedent(text), module.__file__, "exec"), vars(module))
        return module

    def digest(text: str, helpers: str | None = None, name: str = "work") -> str:
        found: Any = make(f"project{next(_numbers)}", text, helpers)
        for part in name.split("."):
            found = getattr(found, part)
        return source_digest(found)

    yield digest
    for name in made:
        del sys.modules[name]


BEFORE = """
    import functools, json, helpers_
    LIMIT = 3
    counter = 0

    def clean(x):
        return inner(x) + 1

    def inner(x):
        return [y * 2 for y in x]

    def unused(x):
        return x

    class Parser:
        scale = 2
        def __init__(self):
            self.read = None
        def parse(self, x):
            return self.step(x) * self.scale
        @staticmethod
        def step(x):
            return x
        @property
        def size(self):
            return 1

    class Sub(Parser):
        pass

    parser = Sub()

    @functools.lru_cache
    def cached(x):
        return x

    steps = {"a": lambda x: x + 10}

    def around(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)
        return wrapper

    @around
    def wrapped(x):
        return x - 1

    def default(x, by=clean, n=4):
        return by(x)

    def work(x):
        json.dumps(x)
        cached(x), steps["a"](x), wrapped(x), default(x)
        return helpers.clean(clean(x)), LIMIT, counter, parser.parse(x)
""".replace(", helpers_", "")
HELPERS = """
    def clean(x):
        return deeper(x)
    def deeper(x):
        return x
    def other(x):
        return x
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("counter = 0", "counter = 7"),
        ("def unused(x):\n        return x", "def unused(x):\n        return x * 5"),
        ("LIMIT = 3", "# a comment\n\n    LIMIT = 3"),
        ("return inner(x) + 1", "return (inner(x) +  # why\n        1)"),
        ("    def clean", "    # moved\n\n\n    def clean"),
    ],
)
def test_what_does_not_change_the_code_does_not_change_the_digest(
    digest_of: Digest, old: str, new: str
) -> None:
    assert old in BEFORE
    assert digest_of(BEFORE.replace(old, new), HELPERS) == digest_of(BEFORE, HELPERS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("return inner(x) + 1", "return inner(x) + 2"),
        ("return inner(x) + 1", "return inner(x) - 1"),
        ("y * 2", "y * 3"),
        ("self.step(x) * self.scale", "self.step(x) + self.scale"),
        ("scale = 2", "scale = 3"),
        ("def step(x):\n            return x", "def step(x):\n            return x + 1"),
        ("return 1", "return 2"),
        ("class Sub(Parser):\n        pass", "class Sub(Parser):\n        extra = 1"),
        ("def cached(x):\n        return x", "def cached(x):\n        return -x"),
        ("x + 10", "x + 11"),
        ("return function(*args)", "return function(*args) or 1"),
        ("return x - 1", "return x - 2"),
        ("by=clean", "by=inner"),
        ("n=4", "n=5"),
        ("json.dumps(x)", "json.loads(x)"),
        ("helpers.clean(clean(x))", "helpers.other(clean(x))"),
    ],
)
def test_code_that_changes_what_is_called_changes_the_digest(
    digest_of: Digest, old: str, new: str
) -> None:
    assert old in BEFORE
    assert digest_of(BEFORE.replace(old, new), HELPERS) != digest_of(BEFORE, HELPERS)


def test_functions_of_project_modules_count_the_others_there_do_not(digest_of: Digest) -> None:
    before = digest_of(BEFORE, HELPERS)
    deeper = HELPERS.replace("def deeper(x):\n        return x", "def deeper(x):\n        return 1")
    other = HELPERS.replace("def other(x):\n        return x", "def other(x):\n        return 1")

    assert digest_of(BEFORE, deeper) != before
    assert digest_of(BEFORE, other) == before


def test_a_changed_docstring_changes_nothing_unless_the_code_uses_the_same_text(
    digest_of: Digest,
) -> None:
    one = digest_of('def work():\n    "One."\n    return 1')
    two = digest_of('def work():\n    "Two."\n    return 1')
    used = digest_of('def work():\n    "One."\n    return "One."')
    used_too = digest_of('def work():\n    "Two."\n    return "Two."')

    assert one == two
    assert used != used_too


def test_cycles_end(digest_of: Digest) -> None:
    text = """
        def work(x):
            return other(x)
        def other(x):
            return work(x) + {}
    """

    assert digest_of(text.format(1)) == digest_of(text.format(1))
    assert digest_of(text.format(1)) != digest_of(text.format(2))


def test_a_function_and_the_class_it_is_defined_in(digest_of: Digest) -> None:
    text = """
        from penstock import task
        class Loader:
            def read(self):
                return {}
            @task
            def work(self):
                return self.read()
    """

    assert digest_of(text.format(1), name="Loader.work.fn") == digest_of(
        text.format(1), name="Loader.work.fn"
    )
    assert digest_of(text.format(1), name="Loader.work.fn") != digest_of(
        text.format(2), name="Loader.work.fn"
    )


def test_tasks_and_flows_that_are_called(digest_of: Digest) -> None:
    text = """
        from penstock import flow, task
        @task
        def step(x):
            return {}
        @flow
        def part(x):
            return step.submit(x)
        def work(x):
            return part(x)
    """

    assert digest_of(text.format("x")) != digest_of(text.format("-x"))


def test_enumerations_and_dataclasses(digest_of: Digest) -> None:
    text = """
        import dataclasses, enum
        class Color(enum.Enum):
            RED = {}
        @dataclasses.dataclass
        class Point:
            x: int = {}
        def work():
            return Color.RED, Point()
    """
    before = digest_of(text.format(1, 1))

    assert digest_of(text.format(1, 1)) == before
    assert digest_of(text.format(2, 1)) != before
    assert digest_of(text.format(1, 2)) != before


def closed_over(value: Any) -> Callable[[], Any]:
    return lambda: value


def test_closures_count_by_their_values() -> None:
    assert source_digest(closed_over(1)) == source_digest(closed_over(1))
    assert source_digest(closed_over(1)) != source_digest(closed_over(2))
    assert source_digest(closed_over(len)) != source_digest(closed_over(abs))


def test_a_variable_that_is_not_assigned_yet() -> None:
    def work() -> Any:
        return later

    before = source_digest(work)
    later = 3

    assert source_digest(work) != before


class Adder:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return x + self.n

    def method(self, x: int) -> int:
        return self(x)

    @classmethod
    def build(cls) -> Adder:
        return cls(1)


@pytest.mark.parametrize(
    "function",
    [
        Adder(1),
        Adder(1).method,
        Adder.build,
        Adder,
        functools.partial(Adder(1), 2),
        functools.partial(closed_over, value=closed_over(3)),
        functools.lru_cache(closed_over),
        len,
        "".join,
        json.dumps,
        functools.cached_property(closed_over),
        itertools.count,
    ],
    ids=repr,
)
def test_every_kind_of_callable_has_a_digest(function: Any) -> None:
    digest = source_digest(function)

    assert digest == source_digest(function)
    assert digest.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}:")
    assert len(digest.partition(":")[2]) == 32


def test_partials_count_by_the_functions_they_hold() -> None:
    one = functools.partial(map, closed_over(1))

    assert source_digest(one) == source_digest(functools.partial(map, closed_over(1)))
    assert source_digest(one) != source_digest(functools.partial(map, closed_over(2)))


def test_a_chain_too_long_for_recursion(digest_of: Digest) -> None:
    chain = "\n".join(f"def f{n}(x):\n    return f{n + 1}(x)" for n in range(3000))
    text = f"{chain}\ndef f3000(x):\n    return {{}}\nwork = f0"

    assert digest_of(text.format(1)) != digest_of(text.format(2))


def test_what_lies_beyond_the_limit_is_left_out(
    digest_of: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_REFERENCES", 2)
    text = "def work():\n    return a()\ndef a():\n    return b()\ndef b():\n    return {}"

    assert digest_of(text.format(1)) == digest_of(text.format(2))


@pytest.mark.parametrize(
    ("name", "file", "is_project"),
    [
        ("__main__", None, True),
        ("work", "/home/me/work.py", True),
        ("made_by_hand", None, True),
        ("json", json.__file__, False),
        ("sys", None, False),
        ("zipimport", None, False),
        ("penstock.tasks", "/anywhere/penstock/tasks.py", False),
        ("numpy", "/v/lib/python3.11/site-packages/numpy/__init__.py", False),
        ("apt", "/usr/lib/python3/dist-packages/apt/__init__.py", False),
    ],
)
def test_what_belongs_to_the_project(name: str, file: str | None, is_project: bool) -> None:
    assert is_project_module(name, file) is is_project


SCRIPT = """
import helpers
from penstock import task

NAMES = frozenset({"a", "b", "c", "d"})

class Loader:
    def read(self, x):
        return helpers.clean(x)

    @task
    def load(self, x):
        return self.read(x) if x in {"p", "q", "r", "s"} else NAMES

if __name__ == "__main__":
    print(Loader.load.source)
"""


def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (tmp_path / "helpers.py").write_text("def clean(x):\n    return x\n")

    def printed(seed: str) -> str:
        environment = {"PYTHONHASHSEED": seed}
        command = [sys.executable, str(script)]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        ).stdout

    first, second = printed("1"), printed("2")
    (tmp_path / "helpers.py").write_text("def clean(x):\n    return -x\n")

    assert first == second
    assert printed("1") != first


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("do not look at me")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("nor at my class")


hostile = Hostile()


@task
def uses_hostile() -> Any:
    return hostile


def test_a_task_whose_code_cannot_be_looked_at_has_no_source() -> None:
    assert uses_hostile.source is None


class Reader:
    def read(self) -> int:
        return 1

    @task
    def load(self) -> int:
        return self.read()


class Other(Reader):
    def read(self) -> int:
        return 2


def test_a_bound_task_counts_by_the_class_of_its_instance() -> None:
    assert Reader().load.source == Reader().load.source
    assert Reader().load.source != Other().load.source


@flow
def some_flow() -> None:
    """Do nothing."""


def test_flows_have_a_source_as_well() -> None:
    assert some_flow.source == some_flow.with_options(name="other").source


class Pickled:
    """Its instances are pickled after its code was looked at."""


def test_what_pickling_leaves_on_a_class_does_not_change_the_digest() -> None:
    def make() -> Pickled:
        return Pickled()

    before = source_digest(make)
    pickle.dumps(make())
    assert "__slotnames__" in vars(Pickled)
    assert source_digest(make) == before
