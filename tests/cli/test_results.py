"""`penstock result` and `penstock gc`, on histories that flows have made."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock import flow, get_run_context, task
from penstock.cli.app import run_app
from penstock.history.kept_results import LIVE_SECONDS
from penstock.results.sweeping import OLD_SECONDS
from penstock.runtime.recording import close
from tests.history.rows import select


@task(persist_result=True)
def large(size: int) -> bytes:
    return b"x" * size


@task(persist_result=True, result_serializer="json")
def table(size: int) -> dict[str, Any]:
    return {"rows": ["\x1b[31mred\u202e"] * size}


@flow
def example() -> str:
    large(50_000)
    table(1)
    table(10_000)
    return "done"


@pytest.fixture
def home(penstock_home: Path) -> Path:
    example()
    let_leases_expire(penstock_home)
    return penstock_home


def let_leases_expire(home: Path) -> None:
    """Have all drivers be silent for a while."""
    close()
    with closing(sqlite3.connect(home / "history.db")) as connection, connection:
        at = time.time_ns() - int(2 * LIVE_SECONDS * 1e9)
        connection.execute("UPDATE leases SET beat_at = ?", (at,))


def files(home: Path) -> list[Path]:
    return [path for path in (home / "results").rglob("*") if path.is_file()]


# penstock result


def test_json_is_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["result"]) == 0
    assert json.loads(capsys.readouterr().out) == "done"
    assert run_app(["result", "@last", "table:0"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == {"rows": ["\x1b[31mred\u202e"]}
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert run_app(["result", "@last", "table-1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["result"]["rows"]) == 10_000


def test_task_run_is_found_by_its_id(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ((id,), *_) = select(
        home / "history.db", "SELECT id FROM task_runs WHERE result_codec = 'json'"
    )
    assert run_app(["result", "@last", id.hex()]) == 0
    assert "red" in capsys.readouterr().out
    assert run_app(["result", "@last:table:0"]) == 0
    assert "red" in capsys.readouterr().out


def test_pickle_is_only_saved(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["result", "@last", "large-0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "is kept as pickle" in captured.err
    assert run_app(["result", "@last", "large-0", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_bytes().count(b"x") >= 50_000


def test_result_that_is_not_kept_is_told(
    penstock_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @flow
    def main() -> None:
        large.with_options(persist_result=False)(50_000)

    main()
    assert run_app(["result", "@last", "large-0"]) == 4
    assert "No result of large-0 is kept" in capsys.readouterr().err


def test_changed_and_missing_results_are_told(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in files(home):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert run_app(["result", "@last", "table-1"]) == 65
    assert "It was not loaded" in capsys.readouterr().err
    for path in files(home):
        path.unlink()
    assert run_app(["result", "@last", "large-0", "-o", str(tmp_path / "out"), "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "result_missing"
    assert not (tmp_path / "out").exists()


# penstock gc


def orphan(home: Path, name: str, age: float = 0.0) -> Path:
    """Put a file into the storage that nothing refers to."""
    path = home / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 100)
    at = time.time() - age
    os.utime(path, (at, at))
    return path


def flow_run_id(home: Path) -> str:
    ((id,),) = select(home / "history.db", "SELECT id FROM flow_runs")
    return str(id.hex())


def test_what_is_referred_to_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = files(home)
    assert len(kept) == 2
    assert run_app(["gc"]) == 0
    assert files(home) == kept
    assert "0 stored results removed" in capsys.readouterr().err


def test_leftovers_go(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = set(files(home))
    run = flow_run_id(home)
    gone = {
        orphan(home, f"{run}/{'0' * 32}-1"),
        orphan(home, f"{run}/.x.0123456789abcdef.part"),
        orphan(home, f"tasks/{'0' * 32}-1", OLD_SECONDS + 60),
    }
    stay = {
        orphan(home, f"{'1' * 32}/{'0' * 32}-1", OLD_SECONDS + 60),
        orphan(home, f"tasks/{'2' * 32}-1"),
        orphan(home, "notes.txt", OLD_SECONDS + 60),
    }
    assert run_app(["gc", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {home / "results" / each["name"] for each in told["removed"]} == gone
    assert told["bytes"] == 300
    assert told["dry_run"]
    assert set(files(home)) == kept | gone | stay
    assert run_app(["gc"]) == 0
    assert set(files(home)) == kept | stay
    assert run_app(["gc", "--unknown"]) == 0
    stay.discard(home / "results" / f"{'1' * 32}/{'0' * 32}-1")
    assert set(files(home)) == kept | stay


def test_every_storage_that_the_history_names_is_swept(
    penstock_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @flow(persist_result=True, result_storage=tmp_path / "elsewhere")
    def main() -> None:
        large(50_000)

    main()
    let_leases_expire(penstock_home)
    run = flow_run_id(penstock_home)
    (tmp_path / "elsewhere" / run / f"{'0' * 32}-1").write_bytes(b"x")
    assert run_app(["gc", "--json"]) == 0
    (removed,) = json.loads(capsys.readouterr().out)["removed"]
    assert removed == {
        "storage": str(tmp_path / "elsewhere"),
        "name": f"{run}/{'0' * 32}-1",
        "size": 1,
    }


def test_live_flow_run_keeps_what_it_has_stored(
    penstock_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    @flow
    def main() -> None:
        large(50_000)
        get_run_context().flow_run.recorder.flush()
        run = flow_run_id(penstock_home)
        seen.append(orphan(penstock_home, f"{run}/{'0' * 32}-1", OLD_SECONDS + 60))
        assert run_app(["gc"]) == 0
        assert seen[0].exists()

    main()
    assert run_app(["gc"]) == 0
    assert seen[0].exists()  # its driver gave a sign of life a moment ago
    let_leases_expire(penstock_home)
    assert run_app(["gc"]) == 0
    assert not seen[0].exists()


def test_dead_flow_run_keeps_nothing_that_is_not_recorded(
    penstock_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal\n"
        "from penstock import flow, task\n"
        "from penstock.runtime import keeping\n"
        "@task(persist_result=True)\n"
        "def large(number):\n"
        "    return bytes([number]) * 50_000\n"
        "@flow\n"
        "def main():\n"
        "    large(1)\n"
        "    stored = keeping.keep\n"
        "    def keep(*args):\n"
        "        stored(*args)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    keeping.keep = keep\n"
        "    import time; time.sleep(0.5)\n"
        "    large(2)\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, str(script)], timeout=50, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(files(penstock_home)) == 2
    let_leases_expire(penstock_home)
    assert run_app(["gc"]) == 0
    assert len(files(penstock_home)) == 1
    assert "1 stored result removed" in capsys.readouterr().err


def test_storage_that_cannot_be_looked_at_is_told_and_the_others_are_swept(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = orphan(home, f"{flow_run_id(home)}/{'0' * 32}-1")
    monkeypatch.setenv("PENSTOCK_RESULT_STORAGE", "nonsense://a/b")
    assert run_app(["gc"]) == 69
    assert "'nonsense://a/b' cannot be used" in capsys.readouterr().err
    assert not gone.exists()


def test_removing_goes_on_after_a_kill(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = flow_run_id(home)
    for number in range(5):
        orphan(home, f"{run}/{number:032x}-1")
    code = (
        "import os, signal\n"
        "from penstock.results.local import LocalStorage\n"
        "from penstock.cli.app import main\n"
        "deleted, delete = [], LocalStorage.delete\n"
        "def dying(self, name):\n"
        "    delete(self, name)\n"
        "    deleted.append(name)\n"
        "    if len(deleted) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "LocalStorage.delete = dying\n"
        "main(['gc'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=50, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(files(home)) == 2 + 3
    assert run_app(["gc"]) == 0
    assert len(files(home)) == 2
