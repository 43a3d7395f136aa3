"""The live block on a terminal, and the plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID

import pytest

from penstock.cli import progress
from penstock.cli.live_block import LiveBlock
from penstock.cli.progress import LiveProgress, PlainProgress, Sample, shown_progress
from penstock.cli.screen import Screen
from penstock.cli.text import width_of
from tests.cli.terminals import on_terminal


class FakeRun:
    """Looks like a running flow run."""

    def __init__(self, counts: dict[str, dict[str, int]]) -> None:
        self.id = UUID("7f3a01bc-0000-4000-8000-000000000001")
        self.name = "brave-otter"
        self.flow_name = "sales-etl"
        self.runner = "ConcurrentTaskRunner"
        self.started_at = time.time_ns() - 102_000_000_000
        self.all_counts = counts
        self.all_failures: list[tuple[str, str, str]] = []

    def counts(self) -> dict[str, dict[str, int]]:
        return self.all_counts

    def failures(self) -> list[tuple[str, str, str]]:
        return self.all_failures


COUNTS = {
    "load": {"COMPLETED": 2000},
    "clean": {"COMPLETED": 1164, "RUNNING": 6, "PENDING": 830, "FAILED": 1},
    "train": {"PENDING": 40},
}


def sample_of(*runs: Any) -> Sample:
    sample = Sample(lambda: runs)
    sample.take()
    return sample


def live(*runs: Any) -> LiveProgress:
    screen = Screen(io.StringIO(), environment={})
    return LiveProgress(screen, sample_of(*runs), LiveBlock(screen))


def test_block() -> None:
    lines = live(FakeRun(COUNTS)).lines(100)
    assert lines == [
        "sales-etl  brave-otter 7f3a01bc  concurrent  00:01:42",
        "load   ████████████████████  2,000/2,000",
        "clean  ███████████▋░░░░░░░░  1,165/2,001  6 running  1 failed",
        "train  ░░░░░░░░░░░░░░░░░░░░         0/40  waiting",
        "3,165/4,041 done · Ctrl-C to stop (again to force)",
    ]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_block_fits(width: int) -> None:
    names = {f"日本語の名前-{n}\x1b[2J": {"RUNNING": 10**n} for n in range(7)}
    run = FakeRun({**COUNTS, **names})
    assert max(map(width_of, live(run).lines(width))) < width


def test_block_shows_the_most_active_tasks() -> None:
    counts: dict[str, dict[str, int]] = {f"done-{n}": {"COMPLETED": 1} for n in range(6)}
    counts |= {"busy": {"RUNNING": 1}, "later": {"PENDING": 1}, "busy-2": {"RUNNING": 1}}
    lines = live(FakeRun(counts)).lines(80)
    assert [line.split()[0] for line in lines[1:-1]] == [
        *("done-4", "done-5", "busy", "later", "busy-2", "and")
    ]
    assert lines[-2] == "and 4 tasks more: 4/4 done"


def test_subflows_have_their_own_rows() -> None:
    outer, inner = FakeRun({"part": {"RUNNING": 1}}), FakeRun({"load": {"RUNNING": 2}})
    inner.flow_name = "part"
    lines = live(outer, inner).lines(80)
    assert lines[2].startswith("part › load")


def test_failures_are_told_once_and_alike_ones_five_times() -> None:
    run = FakeRun(COUNTS)
    sample = sample_of(run)
    run.all_failures = [("clean-417", "ValueError: bad date", "id")]
    told = "clean-417 ValueError: bad date   (penstock task 7f3a01bc:clean:417)"
    assert list(sample.new_failures()) == [told]
    assert list(sample.new_failures()) == []
    run.all_failures += [(f"clean-{n}", "ValueError: bad date", "id") for n in range(20)]
    lines = list(sample.new_failures())
    assert len(lines) == 5
    assert lines[-1] == "ValueError: bad date again; more like this are only counted"
    run.all_failures += [("my name", "KeyError: 1\x1b[2J", "0198")]
    assert list(sample.new_failures()) == ["my name KeyError: 1   (penstock task 0198)"]


def test_time_to_go_waits_for_a_steady_total(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    sample = sample_of(FakeRun(COUNTS))
    counts = {"COMPLETED": 1, "PENDING": 3}
    assert sample.remaining(counts, 10) is None
    now = 5.0
    assert sample.remaining(counts, 15) == 45
    assert sample.remaining({"COMPLETED": 1, "PENDING": 4}, 15) is None


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    stream = io.StringIO()
    run = FakeRun(COUNTS)
    plain = PlainProgress(Screen(stream, environment={}), sample_of(run))
    plain.tick()
    assert stream.getvalue() == ""
    run.all_failures = [("clean-1", "ValueError: x", "id")]
    plain.tick()
    now = 10.1
    plain.tick()
    plain.tick()
    assert stream.getvalue().splitlines() == [
        "✗ clean-1 ValueError: x   (penstock task 7f3a01bc:clean:1)",
        "sales-etl brave-otter  00:01:42  3,165/4,041 done, 6 running, 1 failed",
    ]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run = FakeRun(COUNTS)
    run.all_failures = [("clean-1", "ValueError: x", "id")]
    with shown_progress(Screen(sys.stderr), sample_of(run), quiet=True):
        pass
    assert capsys.readouterr().err == ""


# --- on a terminal ---------------------------------------------------------------------------

SCRIPT = """
import sys, time, threading, logging, subprocess
sys.path.insert(0, {root!r})
from penstock.cli.screen import Screen
from penstock.cli.progress import Sample, shown_progress
from tests.cli.test_live import COUNTS, FakeRun
handler = logging.StreamHandler(sys.stderr)
logging.getLogger("mine").addHandler(handler)
run = FakeRun(COUNTS)
runs = [run]
with shown_progress(Screen(sys.stderr), Sample(lambda: runs), quiet=False):
    time.sleep(0.25)
{body}
    time.sleep(0.25)
    runs.clear()
print("after", file=sys.stderr)
"""


@pytest.fixture
def script(tmp_path: Path) -> Any:
    root = str(Path(__file__).resolve().parent.parent.parent)

    def write(body: str) -> list[str]:
        file = tmp_path / "program.py"
        indented = "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
        file.write_text(SCRIPT.format(root=root, body=indented))
        return [str(file)]

    return write


def test_block_is_gone_afterwards(script: Any) -> None:
    seen = on_terminal(script("pass"))
    assert seen.code == 0
    assert "clean  ███████████▋" in seen.text
    assert seen.lines == ["after", ""]


def test_prints_appear_above_the_block_and_none_is_lost(script: Any) -> None:
    seen = on_terminal(
        script(
            """
            for n in range(300):
                print("line", n)
                if n % 50 == 0:
                    print("error", n, file=sys.stderr); time.sleep(0.06)
            """
        )
    )
    printed = [line for line in seen.lines if line.startswith("line")]
    assert printed == [f"line {n}" for n in range(300)]
    assert [line for line in seen.lines if line.startswith("error")] == [
        f"error {n}" for n in range(0, 300, 50)
    ]
    assert seen.lines[-2:] == ["after", ""]


def test_threads_do_not_mix_their_lines(script: Any) -> None:
    seen = on_terminal(
        script(
            """
            def work(name):
                for n in range(100):
                    print(name, n, name, sep=" ")
            threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
            [thread.start() for thread in threads]; [thread.join() for thread in threads]
            """
        )
    )
    assert sorted(seen.lines[:-2]) == sorted(f"{c} {n} {c}" for c in "abcd" for n in range(100))


def test_unfinished_lines_and_bars(script: Any) -> None:
    seen = on_terminal(
        script(
            """
            print("reading ", end="", flush=True); time.sleep(0.15)
            print("done")
            for n in range(5):
                print(f"\\r{n * 25} %", end="", file=sys.stderr, flush=True); time.sleep(0.05)
            print(file=sys.stderr)
            print("never ended", end="")
            """
        )
    )
    assert "reading\x1b[K" in seen.raw.replace("reading \x1b", "reading\x1b")
    assert seen.lines == ["reading done", "100 %", "never ended", "after", ""]


def test_logging_bytes_and_subprocess_output(script: Any) -> None:
    seen = on_terminal(
        script(
            """
            logging.getLogger("mine").warning("from a handler made before")
            sys.stdout.buffer.write(b"bytes\\n")
            assert sys.stdout.isatty() and sys.stdout.fileno() == 1
            """
        )
    )
    assert seen.lines == ["from a handler made before", "bytes", "after", ""]


def test_failures_stay_above(script: Any) -> None:
    seen = on_terminal(script("run.all_failures.append(('clean-4', 'ValueError: x', 'id'))"))
    assert seen.lines == ["✗ clean-4 ValueError: x   (penstock task 7f3a01bc:clean:4)", "after", ""]


def test_piped_stdout_carries_only_prints(script: Any, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        seen = on_terminal(script("print('data')"), stdout=out.fileno())
    assert (tmp_path / "out").read_text() == "data\n"
    assert "clean  ██" in seen.text
    assert "data" not in seen.raw


def test_input_and_breakpoint_have_the_terminal_to_themselves(script: Any) -> None:
    import os

    dialogue = [("name? ", "me\n"), ("(Pdb) ", "p 40 + 4202\n"), ("\n4242\r", "c\n")]

    def answer(text: str, leader: int) -> None:
        if dialogue and dialogue[0][0] in text:
            os.write(leader, dialogue.pop(0)[1].encode())

    seen = on_terminal(
        script("print('hello', input('name? '))\nbreakpoint()\nprint('went on')"), watch=answer
    )
    assert seen.code == 0
    assert not dialogue
    assert "name? me" in seen.lines
    assert "hello me" in seen.lines
    assert "4242" in seen.lines
    assert "program.py(" in seen.raw
    assert seen.lines[-3:] == ["went on", "after", ""]
