"""The figures of bench/ can be measured and laid out; how fast they are is not tested here."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench import dask, processes
from bench.__main__ import ALL_ROWS, chosen_rows, number, table_of
from bench.probed import run_probe as run_engine_probe
from bench.ray_rows import RAY_ROWS
from bench.rows import Result, Rounds, Row, run_probe, run_process

ROOT = Path(__file__).resolve().parent.parent


def result_of(*, goal: float | None, ours: list[float]) -> Result:
    row = Row("sample", "a sample", "nothing", "µs", goal, lambda size: Rounds([], []))
    return Result(row, Rounds([2.0], ours, "a note"))


def test_verdict_is_by_the_median() -> None:
    assert result_of(goal=3, ours=[1, 3, 90]).verdict == "reached"
    assert result_of(goal=3, ours=[1, 4, 4]).verdict == "MISSED"
    assert result_of(goal=None, ours=[1]).verdict == "-"


def test_table_has_a_line_and_a_note_for_each_row() -> None:
    lines = table_of([result_of(goal=3, ours=[4.0]), result_of(goal=None, ours=[1.0])]).splitlines()
    assert len(lines) == 6
    assert [line.split() for line in lines[3::2]] == [["a", "note"]] * 2
    assert lines[2].split()[-4:] == ["3", "µs", "2.0", "MISSED"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.04 µs"), (12.34, "12.3 µs"), (1234.5, "1,234 µs")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert number(value, "µs") == text


def test_names_of_rows_are_unique_and_choose() -> None:
    assert len({row.name for row in ALL_ROWS}) == len(ALL_ROWS)
    assert len(chosen_rows(["dask"])) == len(dask.PROBES)
    assert len(chosen_rows(["pool-"])) == len(processes.PROBES)
    assert chosen_rows(["ray-"]) == RAY_ROWS
    assert [row.name for row in chosen_rows(["growth"])] == ["growth-direct", "growth-submit"]
    with pytest.raises(SystemExit, match="No row fits"):
        chosen_rows(["nonsense"])


@pytest.mark.parametrize("probe", ["direct", "submit", "map", "async", "async-direct"])
def test_probe_gives_figures(probe: str) -> None:
    figures = run_probe(probe, 1_000)
    assert set(figures) == {"baseline", "ours"}
    assert all(figure > 0 for figure in figures.values())


def test_dask_probe_in_a_process_of_its_own() -> None:
    figures = run_engine_probe("bench.dask", "chain", 5, 2)
    assert [len(figures[kind]) for kind in ("baseline", "ours")] == [2, 2]
    assert min(*figures["baseline"], *figures["ours"]) > 0


PROBE_ALL = """
import json
from bench.dask import PROBES, bed
with bed(processes=False) as opened:
    print(json.dumps({name: vars(probe(opened, 5, 1)) for name, probe in PROBES.items()}))
"""


def test_dask_probes_give_figures(penstock_home: Path) -> None:
    _, printed = run_process(["-c", PROBE_ALL], str(penstock_home))
    figures = json.loads(printed.splitlines()[-1])
    assert [(len(one["baseline"]), len(one["ours"])) for one in figures.values()] == [(1, 1)] * 11
    assert "chunks made by hand, of 100: " in figures["submit"]["notes"]


PROBE_PROCESSES = """
import json
from bench.processes import PROBES
print(json.dumps({name: vars(probe(8, 1)) for name, probe in PROBES.items()}))
"""


def test_process_probes_give_figures(penstock_home: Path) -> None:
    _, printed = run_process(["-c", PROBE_PROCESSES], str(penstock_home))
    figures = json.loads(printed.splitlines()[-1])
    assert [(len(one["baseline"]), len(one["ours"])) for one in figures.values()] == [(1, 1)] * 8
    assert "raw with chunksize=100: " in figures["map"]["notes"]


PROBE_RESULTS = """
import json
from bench.results import PROBES
print(json.dumps({name: vars(probe(20, 1)) for name, probe in PROBES.items()}))
"""


def test_result_probes_give_figures(penstock_home: Path) -> None:
    penstock_home.mkdir()
    _, printed = run_process(["-c", PROBE_RESULTS], str(penstock_home))
    figures = json.loads(printed.splitlines()[-1])
    assert [(len(one["baseline"]), len(one["ours"])) for one in figures.values()] == [(1, 1)] * 3
    assert "the SHA-256 alone takes " in figures["bytes"]["notes"]


def test_bytes_of_connections_are_counted() -> None:
    def send() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()) as sender:
                taker, _ = server.accept()
                with taker:
                    sender.sendall(bytes(100_000))
                    while len(taker.recv(100_000, socket.MSG_WAITALL)) < 100_000:
                        pass
                    seen.append((dask.sent_here() - before, sum(map(sum, dask.connections()))))

    seen: list[tuple[int, int]] = []
    before = dask.sent_here()
    send()
    [(sent, passed)] = seen
    assert sent >= 100_000
    assert passed >= 200_000


def test_command_gives_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--json", "-", "import-names"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=50,
        check=True,
    )
    [row] = json.loads(done.stdout)["rows"]
    assert (row["name"], row["unit"], row["verdict"]) == ("import-names", "ms", "-")
