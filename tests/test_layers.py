"""Hold the shape of the package: layers, lazy imports, third-party libraries, sizes, names.

Every rule is a function from parsed modules to a list of problems, so that each one is also
tried on a made-up source text that breaks it.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "penstock"
SOURCE = Path(__file__).resolve().parent.parent / "src" / PACKAGE

# A module may import from a smaller row, and from its own row in its own folder.
# The longest entry that fits a module decides.
ROWS = {
    # 0 vocabulary
    "errors": 0,
    "states": 0,
    "annotations": 0,
    "runs": 0,
    "ids": 0,
    "shared_keys": 0,
    "failpoints": 0,
    "clock": 0,  # beside the vocabulary: nothing of ours below it
    "settings": 0,
    "version": 0,
    "wording": 0,
    "cards": 0,
    # 1 decisions
    "core": 1,
    # 2 contracts
    "task_runners.base": 2,
    "task_runners.slots": 2,
    "history.base": 2,
    "history.cache_store": 2,
    "history.resumable": 2,
    "results.base": 2,
    # 3 adapters
    "task_runners": 3,
    "history": 3,
    "results": 3,
    # 4 what performs commands
    "runtime": 4,
    # 5 what both sides of an engine outside this process have in common
    "remote": 5,
    # 6 engines outside this process
    "task_runners.dask": 6,
    "task_runners.processes": 6,
    "task_runners.ray": 6,
    # 7 what users touch
    "flows": 7,
    "options": 7,
    "tasks": 7,
    "records": 7,
    "run_records": 7,
    "record_cards": 7,
    "frames": 7,
    "logs": 7,
    "testing": 7,
    # 8 front ends
    "cli": 8,
    "ui": 8,
    "__main__": 8,
}

# Rows whose modules may import each other although they lie in no common folder.
FLAT_ROWS = (0, 7)

# Files (or folders, with a slash at the end) that load our own modules on first use.
LAZY_TABLES = ("__init__.py", "task_runners/__init__.py", "cli/")

# Folders that use Penstock as users do, by its public names.
ROOT_USERS = ("testing/",)

# Libraries used by a whole folder; any other library has one file that imports it.
LIBRARY_FOLDERS = {
    "click": "cli/",
    "pytest": "testing/",
    "distributed": "task_runners/dask/",
    "dask": "task_runners/dask/",
    "ray": "task_runners/ray/",
}

# Loaded by a bare `import penstock` on no account, beside every third-party package.
LATE_MODULES = ("asyncio", "inspect", "sqlite3")

MOST_LINES_OF_A_FILE = 500
MOST_LINES_OF_A_FUNCTION = 60
REFUSED_NAMES = ("utils", "helpers", "common")
REFUSED_PARTS = ("manager",)


@dataclass(frozen=True)
class Import:
    """One imported module, as a dotted name, and how it is imported."""

    target: str
    line: int
    in_function: bool
    for_types: bool


@dataclass(frozen=True)
class Module:
    """A parsed source file; `path` is relative to the package folder."""

    path: str
    source: str

    @property
    def dotted(self) -> str:
        """The name inside the package: `core.inputs`; the root is the empty string."""
        name = self.path.removesuffix(".py").replace("/", ".")
        return "" if name == "__init__" else name.removesuffix(".__init__")

    @property
    def folder(self) -> str:
        """The first folder below the package, or the empty string."""
        return self.path.split("/")[0] if "/" in self.path else ""

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    def imports(self) -> Iterator[Import]:
        """Give every import, own modules by their full dotted name."""
        package = [PACKAGE, *self.path.split("/")[:-1]]
        yield from _imports_below(self.tree, package, in_function=False, for_types=False)


def _imports_below(
    node: ast.AST, package: list[str], *, in_function: bool, for_types: bool
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in _targets(child, package):
                yield Import(target, child.lineno, in_function, for_types)
            continue
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for part in child.body:
                wrapped = ast.Module([part], [])
                yield from _imports_below(wrapped, package, in_function=in_function, for_types=True)
            continue
        inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _imports_below(child, package, in_function=inside, for_types=for_types)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _targets(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level:
        base = package[: len(package) - node.level + 1] + (
            node.module.split(".") if node.module else []
        )
    else:
        base = (node.module or "").split(".")
    if base[0] != PACKAGE:
        return [base[0]]
    return sorted({_own_module(base, alias.name) for alias in node.names})


def _own_module(base: list[str], name: str) -> str:
    """Tell `from penstock.core import inputs` (a module) from an import of a name."""
    dotted = ".".join([*base[1:], name])
    place = SOURCE / dotted.replace(".", "/")
    known = dotted in ROWS or place.with_suffix(".py").exists() or place.is_dir()
    return f"{PACKAGE}.{dotted}" if known else ".".join(base)


def row_of(dotted: str) -> int | None:
    """Give a module's row by the longest entry of the table that fits it."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        row = ROWS.get(".".join(parts[:length]))
        if row is not None:
            return row
    return None


def _own(target: str) -> str | None:
    """Give an own module's name inside the package; None for a foreign one."""
    if target == PACKAGE:
        return ""
    return target.removeprefix(PACKAGE + ".") if target.startswith(PACKAGE + ".") else None


def _in_lazy_table(path: str) -> bool:
    return any(
        path.startswith(entry) if entry.endswith("/") else path == entry for entry in LAZY_TABLES
    )


# --- the rules -------------------------------------------------------------------------------


def modules_without_row(modules: Iterable[Module]) -> list[str]:
    """Refuse modules that the table does not know."""
    return [
        f"{module.path}: has no row in the layer table"
        for module in modules
        if module.dotted and row_of(module.dotted) is None
    ]


def upward_imports(modules: Iterable[Module]) -> list[str]:
    """Refuse imports of a later row, and across folders of one row; types may look anywhere."""
    problems = []
    for module in modules:
        here = row_of(module.dotted)
        for item in module.imports():
            target = _own(item.target)
            there = row_of(target) if target else None
            if here is None or target is None or there is None or item.for_types:
                continue
            foreign = here not in FLAT_ROWS and _folder_of(target) != module.folder
            if there > here or (there == here and foreign):
                problems.append(
                    f"{module.path}:{item.line}: row {here} imports {target} of row {there}"
                )
    return problems


def _folder_of(dotted: str) -> str:
    first = dotted.split(".")[0]
    return first if (SOURCE / first).is_dir() or "." in dotted else ""


def root_imports(modules: Iterable[Module]) -> list[str]:
    """Refuse imports of the package root from inside."""
    return [
        f"{module.path}:{item.line}: imports the package root"
        for module in modules
        if not module.path.startswith(ROOT_USERS)
        for item in module.imports()
        if _own(item.target) == ""
    ]


def local_imports(modules: Iterable[Module]) -> list[str]:
    """Refuse imports of our own modules inside functions, the lazy tables excepted."""
    return [
        f"{module.path}:{item.line}: imports {item.target} inside a function"
        for module in modules
        if not _in_lazy_table(module.path)
        for item in module.imports()
        if item.in_function and _own(item.target) is not None and not item.for_types
    ]


def shared_libraries(modules: Iterable[Module]) -> list[str]:
    """Refuse third-party libraries that several files import, or a wrong folder."""
    users: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for item in module.imports():
            top = item.target.split(".")[0]
            if top != PACKAGE and top not in sys.stdlib_module_names and not item.for_types:
                users[top].add(module.path)
    problems = []
    for library, paths in sorted(users.items()):
        folder = LIBRARY_FOLDERS.get(library)
        if folder is not None:
            strangers = sorted(path for path in paths if not path.startswith(folder))
            problems += [f"{path}: imports {library}, which is {folder}'s" for path in strangers]
        elif len(paths) > 1:
            problems.append(f"{library} is imported by {len(paths)} files: {sorted(paths)}")
    return problems


def long_files(modules: Iterable[Module]) -> list[str]:
    """Refuse files of too many lines."""
    return [
        f"{module.path}: {lines} lines, at most {MOST_LINES_OF_A_FILE}"
        for module in modules
        if (lines := len(module.source.splitlines())) > MOST_LINES_OF_A_FILE
    ]


def long_functions(modules: Iterable[Module]) -> list[str]:
    """Refuse functions of too many lines; the docstring does not count."""
    return [
        f"{module.path}:{node.lineno}: {node.name} has {lines} lines, "
        f"at most {MOST_LINES_OF_A_FUNCTION}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := _lines_of(node)) > MOST_LINES_OF_A_FUNCTION
    ]


def _lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return lines
    docstring = node.body[0]
    return lines - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def vague_names(modules: Iterable[Module]) -> list[str]:
    """Refuse file and folder names that say nothing."""
    problems = []
    for module in modules:
        for part in module.path.removesuffix(".py").split("/"):
            if part.strip("_") in REFUSED_NAMES or any(word in part for word in REFUSED_PARTS):
                problems.append(f"{module.path}: '{part}' says nothing about what is inside")
    return problems


RULES: list[Callable[[Iterable[Module]], list[str]]] = [
    modules_without_row,
    upward_imports,
    root_imports,
    local_imports,
    shared_libraries,
    long_files,
    long_functions,
    vague_names,
]


# --- the rules on the package ----------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> list[Module]:
    return [
        Module(str(path.relative_to(SOURCE).as_posix()), path.read_text("utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps_rule(
    rule: Callable[[Iterable[Module]], list[str]], package: list[Module]
) -> None:
    problems = rule(package)
    assert not problems, "\n" + "\n".join(problems)


def _loaded_by(statement: str) -> set[str]:
    """Run a statement in a fresh process and give the modules that it loaded."""
    code = (
        "import sys, json; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    return set(json.loads(done.stdout))


def _foreign(modules: set[str]) -> set[str]:
    tops = {name.split(".")[0] for name in modules}
    return {top for top in tops if top != PACKAGE and top not in sys.stdlib_module_names}


def test_import_loads_no_third_party_package() -> None:
    assert _foreign(_loaded_by("import penstock")) == set()


def test_import_leaves_heavy_modules_for_later() -> None:
    assert _loaded_by("import penstock").isdisjoint(LATE_MODULES)


# --- every rule can fail ---------------------------------------------------------------------


def test_probe_sees_what_a_statement_loads() -> None:
    loaded = _loaded_by("import sqlite3, msgspec")
    assert "sqlite3" in loaded
    assert "msgspec" in _foreign(loaded)


BROKEN = {
    "unknown row": (modules_without_row, [Module("somewhere.py", "")]),
    "upward": (upward_imports, [Module("core/a.py", "from penstock.runtime import drivers")]),
    "upward by plain import": (
        upward_imports,
        [Module("errors.py", "import penstock.core.inputs")],
    ),
    "upward, relative": (upward_imports, [Module("core/a.py", "from ..flows import Flow")]),
    "upward, inside a function": (
        upward_imports,
        [Module("core/a.py", "def f():\n    from penstock.flows import Flow")],
    ),
    "across folders": (
        upward_imports,
        [Module("history/a.py", "from penstock.results.storage import x")],
    ),
    "contract to adapter": (
        upward_imports,
        [Module("history/base.py", "from penstock.history.sqlite import x")],
    ),
    "root": (root_imports, [Module("core/a.py", "from penstock import flow")]),
    "root by plain import": (root_imports, [Module("flows.py", "import penstock")]),
    "root, relative": (root_imports, [Module("core/a.py", "from .. import flow")]),
    "local": (
        local_imports,
        [Module("flows.py", "def f():\n    if x:\n        from penstock.errors import E")],
    ),
    "local in an async function": (
        local_imports,
        [Module("history/__init__.py", "async def f():\n    import penstock.errors")],
    ),
    "one library, two files": (
        shared_libraries,
        [Module("core/a.py", "import msgspec"), Module("flows.py", "from msgspec import json")],
    ),
    "library outside its folder": (shared_libraries, [Module("flows.py", "import click.core")]),
    "long file": (long_files, [Module("flows.py", "x = 1\n" * 501)]),
    "long function": (
        long_functions,
        [Module("flows.py", "def f():\n" + "    x = 1\n" * 60)],
    ),
    "vague file": (vague_names, [Module("core/utils.py", "")]),
    "vague folder": (vague_names, [Module("helpers/a.py", "")]),
    "manager": (vague_names, [Module("runtime/run_manager.py", "")]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_rule_catches(case: str) -> None:
    rule, modules = BROKEN[case]
    assert len(rule(modules)) == 1


ALLOWED = {
    "module out of the root": Module("flows.py", "from penstock import errors"),
    "public names in the contract": Module("testing/a.py", "from penstock import flow"),
    "downward": Module("flows.py", "from penstock.core.inputs import x\nimport penstock.errors"),
    "sibling of the folder": Module("core/a.py", "from penstock.core.inputs import x"),
    "sibling of a flat row": Module("flows.py", "from penstock.tasks import Task"),
    "adapter to contract": Module("history/sqlite.py", "from penstock.history.base import x"),
    "for types": Module(
        "core/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from penstock.flows import Flow",
    ),
    "lazy table": Module("cli/run.py", "def f():\n    from penstock.flows import Flow"),
    "root's lazy table": Module("__init__.py", "def f():\n    from penstock.flows import Flow"),
    "long docstring": Module(
        "flows.py", 'def f():\n    """Say.\n' + "    more\n" * 70 + '    """\n    return 1'
    ),
    "library in its folder": Module("cli/app.py", "import click"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_rules_allow(case: str) -> None:
    assert [problem for rule in RULES for problem in rule([ALLOWED[case]])] == []
