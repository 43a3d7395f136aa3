"""Every example runs as it stands, in a process of its own, and says what it found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# A file of examples/, its arguments, and what it prints.
PRINTED = {
    "census.py": (["--limit", "60"], r"(?m)^total +60 "),
    "retries.py": ([], r"(?s)given up: read-page-3.*/tides +high at 4:10"),
    "async_pages.py": ([], r"60 pages in 6 levels"),
    "subflows.py": ([], r"(?m)^self$"),
    "look_back.py": (
        [],
        r"(?s)longest-line-3 failed: LookupError: there is no .*characters.* lines.*so far: 1",
    ),
    "kept_tables.py": ([], r"(?s)most used: \w+, \w+, \w+.*words-of-2: [\d,]+ different names"),
    "power_cut.py": (
        [],
        r"(?s)counts email\n.*exit code 9.*second one:\n  process \d+ counts html\n.* lines in 8",
    ),
    "dask_pi.py": (["--throws", "60"], r"(?s)o.*\..*pi is about 3\.1"),
}


def run_python(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with warnings as errors, and fail with what it said if it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PENSTOCK_HOME": str(home)},
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", PRINTED)
def test_example_runs(name: str, penstock_home: Path) -> None:
    arguments, pattern = PRINTED[name]
    done = run_python(str(EXAMPLES / name), *arguments, home=penstock_home)
    assert re.search(pattern, done.stdout), done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("census.py", ["-p", "limit=20", "--runner", "sequential"]),
        ("retries.py", []),
        ("async_pages.py", []),
        ("subflows.py:compare", ["-p", "first=re"]),
        ("look_back.py", []),
        ("kept_tables.py", []),
        (
            "dask_pi.py",
            ["-p", "throws=60", "-p", "darts=100", "--runner", "dask", "--workers", "1"],
        ),
    ],
)
def test_example_runs_by_the_command(target: str, options: list[str], penstock_home: Path) -> None:
    command = ["-c", "from penstock.cli import main; main()", "run", str(EXAMPLES / target)]
    done = run_python(*command, *options, home=penstock_home)
    assert "Traceback" not in done.stderr


def test_every_example_is_tried_and_listed() -> None:
    files = {path.name for path in EXAMPLES.glob("*.py")}
    assert files == set(PRINTED)
    listing = (EXAMPLES / "README.md").read_text("utf-8")
    assert files == set(re.findall(r"\[(\w+\.py)\]\(\1\)", listing))


@pytest.mark.parametrize("runner", ["sequential", "concurrent", "process", "dask"])
def test_census_counts_the_same_on_every_runner(runner: str, penstock_home: Path) -> None:
    folder = Path(re.__file__).parent
    arguments = ["--folder", str(folder), "--runner", runner]
    done = run_python(str(EXAMPLES / "census.py"), *arguments, home=penstock_home)
    total = next(line for line in done.stdout.splitlines() if line.startswith("total"))
    lines = sum(len(file.read_text("utf-8").splitlines()) for file in folder.glob("*.py"))
    assert total.split()[1:4] == [str(len(list(folder.glob("*.py")))), "0", f"{lines:,}"]


def test_census_counts_what_does_not_parse(tmp_path: Path, penstock_home: Path) -> None:
    (tmp_path / "good.py").write_text("import os\n\n# nothing\nif os:\n    x = 1\n")
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "wrong_coding.py").write_bytes(b"# coding: nonsense\n")
    (tmp_path / "not_utf8.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "nul.py").write_bytes(b"x = '\0'\n")
    census = str(EXAMPLES / "census.py")
    done = run_python(census, "--folder", str(tmp_path), home=penstock_home)
    total = next(line for line in done.stdout.splitlines() if line.startswith("total"))
    assert total.split()[1:] == ["5", "4", "5", "3", "0", "0", "1", "1"]


def test_census_of_an_empty_folder(tmp_path: Path, penstock_home: Path) -> None:
    census = str(EXAMPLES / "census.py")
    done = run_python(census, "--folder", str(tmp_path), home=penstock_home)
    assert "0 files of" in done.stdout
