"""The contract finds what is wrong: every wrong runner fails the test that names its fault."""

from __future__ import annotations

import collections
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from penstock.testing import TaskRunnerContract
from tests.contracts.wrong_runners import RIGHT, WRONG

pytestmark = pytest.mark.timeout(180)

Outcomes = dict[tuple[str, str], set[str]]
FILE = Path(__file__).with_name("wrong_runners.py")
ROOT = FILE.parents[2]
TELLING = sorted(set(WRONG.values()))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Run the telling tests over right and wrong runners; give (runner, test) -> outcomes."""
    report = tmp_path_factory.mktemp("contract") / "report.xml"
    pairs = [*WRONG.items(), *((right, test) for right in RIGHT for test in TELLING)]
    tests = [f"{FILE}::Test{runner.__name__}::{test}" for runner, test in pairs]
    options = ["-q", "-p", "no:cacheprovider", "--timeout=40", f"--junitxml={report}"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        timeout=150,
        check=False,
        capture_output=True,
    )
    return read_report(report)


def read_report(report: Path) -> Outcomes:
    """Read pytest's report; a parametrized test has all its outcomes under one name."""
    found: Outcomes = collections.defaultdict(set)
    for case in ElementTree.parse(report).iter("testcase"):
        runner = case.attrib["classname"].rpartition(".Test")[2]
        test = case.attrib["name"].partition("[")[0]
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[runner, test] |= kinds or {"passed"}
    return found


@pytest.mark.parametrize(
    ("runner", "test"), WRONG.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_wrong_runner_is_rejected(outcomes: Outcomes, runner: type, test: str) -> None:
    assert "failure" in outcomes[runner.__name__, test]


@pytest.mark.parametrize("runner", RIGHT)
@pytest.mark.parametrize("test", TELLING)
def test_right_runner_is_not(outcomes: Outcomes, runner: type, test: str) -> None:
    assert outcomes[runner.__name__, test] == {"passed"}


def own_tests(kind: type) -> set[str]:
    """Give the names of the tests that a class itself defines."""
    return {name for name in vars(kind) if name.startswith("test_")}


def test_contract_has_more_than_a_hundred_tests() -> None:
    assert sum(len(own_tests(base)) for base in TaskRunnerContract.__mro__) > 100


def test_no_test_of_the_contract_hides_another() -> None:
    names = [name for base in TaskRunnerContract.__mro__ for name in own_tests(base)]
    assert [name for name, count in collections.Counter(names).items() if count > 1] == []
