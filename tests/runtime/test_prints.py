"""`log_prints`: what runs print is printed as ever and recorded besides."""

from __future__ import annotations

import asyncio
import builtins
import io
import sys
from pathlib import Path

import pytest

from penstock import flow, task
from penstock.task_runners import ConcurrentTaskRunner
from tests.history.rows import select


def prints_in(home: Path) -> list[str]:
    query = "SELECT message FROM logs WHERE logger = 'penstock.prints' ORDER BY position"
    return [message for (message,) in select(home / "history.db", query)]


def test_options_of_print_are_kept(penstock_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = io.StringIO()

    @flow(log_prints=True)
    def main() -> None:
        print("a", 1, None, sep="-", end="!\n")
        print("two\nlines", flush=True)
        print()
        print("explicit", file=sys.stdout)
        print("elsewhere", file=other)
        print("error", file=sys.stderr)

    main()
    assert capsys.readouterr().out == "a-1-None!\ntwo\nlines\n\nexplicit\n"
    assert other.getvalue() == "elsewhere\n"
    assert prints_in(penstock_home) == ["a-1-None", "two\nlines", "", "explicit"]


def test_values_are_made_into_text_once(penstock_home: Path) -> None:
    class Counter:
        times = 0

        def __str__(self) -> str:
            Counter.times += 1
            return f"text {self.times}"

    @flow(log_prints=True)
    def main() -> None:
        print(Counter())

    main()
    assert prints_in(penstock_home) == ["text 1"]


def test_bad_options_raise_as_ever() -> None:
    @flow(log_prints=True)
    def main() -> None:
        print("x", sep=1)  # type: ignore[call-overload]

    with pytest.raises(TypeError, match="sep must be None or a string"):
        main()


def test_inherited_unless_switched_off(penstock_home: Path) -> None:
    @task
    def inherits() -> None:
        print("task")

    @task(log_prints=False)
    def silent() -> None:
        print("silent")

    @flow
    def part() -> None:
        print("subflow")

    @flow(log_prints=True)
    def main() -> None:
        inherits.submit().wait()
        silent.submit().wait()
        part()

    main()
    assert prints_in(penstock_home) == ["task", "subflow"]


def test_off_by_default_and_outside_runs(penstock_home: Path) -> None:
    @flow
    def main() -> None:
        print("not recorded")

    main()
    print("outside")
    assert prints_in(penstock_home) == []


def test_async_tasks_of_one_loop_keep_their_prints_apart(penstock_home: Path) -> None:
    @task(log_prints=True)
    async def talk(number: int) -> None:
        for _ in range(5):
            print(number)
            await asyncio.sleep(0)

    @flow
    async def main() -> None:
        await asyncio.gather(*[talk(number) for number in range(10)])

    asyncio.run(main())
    rows = select(
        penstock_home / "history.db",
        "SELECT r.parameters, l.message FROM logs l JOIN task_runs r ON r.id = l.task_run_id",
    )
    assert len(rows) == 50
    assert all(parameters == f'{{"number": "{message}"}}' for parameters, message in rows)


def test_threads_keep_their_prints_apart(penstock_home: Path) -> None:
    @task(log_prints=True)
    def talk(number: int) -> None:
        for _ in range(20):
            print(number)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
    def main() -> None:
        talk.map(range(10))

    main()
    rows = select(
        penstock_home / "history.db",
        "SELECT r.parameters, l.message FROM logs l JOIN task_runs r ON r.id = l.task_run_id",
    )
    assert len(rows) == 200
    assert all(parameters == f'{{"number": "{message}"}}' for parameters, message in rows)


def test_print_of_somebody_else_around_ours(
    penstock_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @flow(log_prints=True)
    def main(text: str) -> None:
        print(text)

    main("first")
    ours = builtins.print

    def theirs(*values: object, **options: object) -> None:
        ours(">", *values, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "print", theirs)
    main("second")
    assert capsys.readouterr().out.splitlines() == ["first", "> second"]
    assert prints_in(penstock_home)[0] == "first"
    assert "second" in prints_in(penstock_home)[1]
