"""Processes that share a history share the values of cache keys, and make each only once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from penstock.testing.ledger import Gate, Ledger
from tests.history.rows import select

SCRIPT = """
import sys
from pathlib import Path
from penstock import flow, task
from penstock.testing.ledger import Gate, Ledger

folder = Path(sys.argv[1])
ledger, gate = Ledger(folder / "ledger"), Gate(folder / "gate")

@task(cache_key_fn=lambda context, parameters: "shared")
def make():
    ledger.add(f"made by {sys.argv[2]}")
    gate.wait()
    return sys.argv[2]

@flow
def main():
    ledger.add(f"asked by {sys.argv[2]}")
    state = make.submit(return_state=True)
    print(state.name, state.result())

main()
"""


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT), str(folder), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def test_two_drivers_make_a_value_once(tmp_path: Path, penstock_home: Path) -> None:
    ledger, gate = Ledger(tmp_path / "ledger"), Gate(tmp_path / "gate")
    first = start(tmp_path, "first")
    ledger.wait_for("made by first")
    others = [start(tmp_path, name) for name in ("second", "third")]
    for name in ("second", "third"):
        ledger.wait_for(f"asked by {name}")
    gate.open()
    said = [child.communicate(timeout=50) for child in (first, *others)]

    assert said == [("Completed first\n", "")] + [("Cached first\n", "")] * 2
    assert [line for line in ledger.lines() if "made" in line] == ["made by first"]
    path = penstock_home / "history.db"
    assert select(path, "SELECT count(*) FROM cache_claims") == [(0,)]
    assert select(path, "SELECT key FROM cache") == [("shared",)]


def test_when_the_claimant_is_killed_another_takes_over(
    tmp_path: Path, penstock_home: Path
) -> None:
    ledger, gate = Ledger(tmp_path / "ledger"), Gate(tmp_path / "gate")
    first = start(tmp_path, "first")
    ledger.wait_for("made by first")
    second = start(tmp_path, "second")
    ledger.wait_for("asked by second")
    first.kill()
    first.communicate(timeout=50)
    ledger.wait_for("made by second")
    gate.open()

    assert second.communicate(timeout=50) == ("Completed second\n", "")
    assert select(penstock_home / "history.db", "SELECT count(*) FROM cache_claims") == [(0,)]


def test_a_claim_is_seen_while_its_value_is_made(tmp_path: Path, penstock_home: Path) -> None:
    ledger, gate = Ledger(tmp_path / "ledger"), Gate(tmp_path / "gate")
    first = start(tmp_path, "first")
    ledger.wait_for("made by first")

    claims = select(penstock_home / "history.db", "SELECT key, pid FROM cache_claims")
    gate.open()
    first.communicate(timeout=50)

    assert claims == [("shared", first.pid)]
