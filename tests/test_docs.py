"""What the documents say is true: their code runs, their links lead somewhere, their names exist.

The Python blocks of a page run from top to bottom as one program, in a process of its own. A block
below the line `<!-- skip -->` is not run; few may be.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.cli.app import COMMANDS
from penstock.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md"]
MOST_SKIPPED = 3  # blocks in all pages together
SKIP = "<!-- skip -->"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|[`(]|\$ )penstock ([a-z][a-z-]*)", re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins at, and if it is left out."""

    language: str
    text: str
    line: int
    skipped: bool


def blocks_of(text: str) -> Iterator[Block]:
    """Give the fenced blocks of a page in order."""
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip()
        line = text.count("\n", 0, match.start()) + 2
        yield Block(match[1], match[2], line, before.endswith(SKIP))


def program_of(text: str) -> str:
    """Join the Python blocks of a page so that line numbers stay those of the page."""
    lines = [""] * (text.count("\n") + 1)
    for block in blocks_of(text):
        if block.language == "python" and not block.skipped:
            code = block.text.splitlines()
            lines[block.line - 1 : block.line - 1 + len(code)] = code
    return "\n".join(lines)


def broken_links(path: Path) -> list[str]:
    """Give the relative links of a page that lead nowhere."""
    text = FENCE.sub("", path.read_text("utf-8"))
    return [link for link in LINK.findall(text) if not _leads_somewhere(link, path)]


def _leads_somewhere(link: str, path: Path) -> bool:
    if re.match(r"[a-z]+:", link):
        return True
    target, _, anchor = link.partition("#")
    page = (path.parent / target).resolve() if target else path
    if not page.exists():
        return False
    return not anchor or anchor in anchors_of(page.read_text("utf-8"))


def anchors_of(text: str) -> set[str]:
    """Give the anchors of a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in HEADING.findall(FENCE.sub("", text))
    }


def commands_in(text: str) -> set[str]:
    """Give the `penstock` commands that a page names."""
    return set(COMMAND.findall(text))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- the rules on the pages ------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_of_page_runs(page: Path, tmp_path: Path, penstock_home: Path) -> None:
    program = program_of(page.read_text("utf-8"))
    if not program.strip():
        return
    # Not by the page's own name: a library may have it.
    script = tmp_path / f"page_{page.stem.lower()}.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PENSTOCK_HOME": str(penstock_home)},
        timeout=50,
    )
    assert done.returncode == 0, f"{name_of(page)}:\n{done.stdout}{done.stderr}"


def test_few_blocks_are_skipped() -> None:
    skipped = [
        f"{name_of(page)}:{block.line}"
        for page in PAGES
        for block in blocks_of(page.read_text("utf-8"))
        if block.language == "python" and block.skipped
    ]
    assert len(skipped) <= MOST_SKIPPED, skipped


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_commands_exist(page: Path) -> None:
    unknown = commands_in(page.read_text("utf-8")) - set(COMMANDS)
    assert not unknown, f"{name_of(page)} names commands that do not exist: {sorted(unknown)}"


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `(PENSTOCK_[A-Z_]+)` \|", page, re.MULTILINE))
    assert documented == set(SETTINGS)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_named_settings_exist(page: Path) -> None:
    named = set(re.findall(r"\bPENSTOCK_[A-Z_]+\b", page.read_text("utf-8")))
    # Those of failpoints are no settings: they are for tests alone.
    assert named <= set(SETTINGS) | {"PENSTOCK_TESTING", "PENSTOCK_FAILPOINTS"}


def test_readme_opens_with_the_two_commands() -> None:
    first = next(blocks_of((ROOT / "README.md").read_text("utf-8")))
    commands = [line.split("#")[0].strip() for line in first.text.splitlines()]
    assert commands == ["make demo", "make test"]


# --- the checks can fail ---------------------------------------------------------------------


SAMPLE = """# A page: with *marks*

```python
x = 1
```

Some words and `penstock frobnicate`.

<!-- skip -->
```python
never
```

```console
$ penstock ls
```

```python
y = x
```
"""


def test_program_keeps_the_page_s_lines_and_leaves_out_skipped_blocks() -> None:
    lines = program_of(SAMPLE).splitlines()
    page = SAMPLE.splitlines()
    assert {i for i, line in enumerate(lines) if line} == {page.index("x = 1"), page.index("y = x")}


def test_skipped_block_is_seen() -> None:
    assert [block.skipped for block in blocks_of(SAMPLE)] == [False, True, False, False]


def test_commands_are_found() -> None:
    assert commands_in(SAMPLE) == {"frobnicate", "ls"}


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(SAMPLE + "[a](#a-page-with-marks) [b](none.md) [c](#none) [d](https://d.org)\n")
    assert broken_links(page) == ["none.md", "#none"]
