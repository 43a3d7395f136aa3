"""What is said while a flow runs: a live block on a terminal, else a line every ten seconds.

A thread samples the running flow runs (`runtime.live`), 10 times a second at most. It only reads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, time_ns
from typing import TYPE_CHECKING
from uuid import UUID

from penstock.cli.live_block import LiveBlock
from penstock.cli.live_streams import in_front
from penstock.cli.screen import Screen
from penstock.cli.text import clean, clock, cut, padded, plural, width_of
from penstock.cli.words import FINAL, runner_word, short

if TYPE_CHECKING:
    from penstock.runtime.live import LiveFlowRun

Counts = dict[str, dict[str, int]]

TICK_SECONDS = 0.1
PLAIN_TICK_SECONDS = 0.5
PLAIN_SECONDS = 10.0
_MOST_ROWS = 5
_MOST_ALIKE = 5  # failures with the same text that are told one by one
_MOST_TOLD = 100
_BAR_WIDTH = 20
_STEADY_SECONDS = 3.0


class Sample:
    """Looks at the flow runs of this process, and remembers the outermost after its end."""

    def __init__(self, source: Callable[[], Sequence[LiveFlowRun]]) -> None:
        self._source = source
        self._seen: dict[UUID, int] = {}  # failures of a flow run that were looked at
        self._known: dict[UUID, Counts] = {}
        self._told: dict[str, int] = {}
        self._number_told = 0
        self._total = 0
        self._total_since = monotonic()
        self.run: LiveFlowRun | None = None
        self.runs: list[LiveFlowRun] = []

    def take(self) -> bool:
        """Look; False while no flow runs. What ran last is kept."""
        running = list(self._source())
        if running:
            self.runs = running
            self.run = running[0]
        return bool(running)

    def rows(self) -> Counts:
        """Give counts by task name, those of subflows under "flow › task"."""
        rows: Counts = {}
        for run in self.runs:
            before = "" if run is self.run else f"{run.flow_name} › "
            for name, counts in self._counts(run).items():
                row = rows.setdefault(before + name, {})
                for state, number in counts.items():
                    row[state] = row.get(state, 0) + number
        return rows

    def _counts(self, run: LiveFlowRun) -> Counts:
        """Give a run's counts; those of the last look once it has ended and forgotten them."""
        counts = run.counts() or self._known.get(run.id, {})
        self._known[run.id] = counts
        return counts

    def new_failures(self) -> Iterator[str]:
        """Give each failure not told before as a line; of many alike only the first ones."""
        for run in self.runs:
            failures = run.failures()
            start = self._seen.get(run.id, 0)
            self._seen[run.id] = len(failures)
            for name, text, task_run_id in failures[start:]:
                if line := self._telling(run, name, text, task_run_id):
                    yield line

    def _telling(self, run: LiveFlowRun, name: str, text: str, task_run_id: str) -> str:
        alike = self._told[text] = self._told.get(text, 0) + 1
        if alike > _MOST_ALIKE + 1 or self._number_told > _MOST_TOLD:
            return ""
        self._number_told += 1
        if alike > _MOST_ALIKE or self._number_told > _MOST_TOLD:
            return f"{clean(text)} again; more like this are only counted"
        reference = self._reference(run, name, task_run_id)
        return f"{clean(name)} {clean(text)}   (penstock task {reference})"

    def _reference(self, run: LiveFlowRun, name: str, task_run_id: str) -> str:
        """Give what `penstock task` takes for a task run that is called "clean-417"."""
        task, dash, number = name.rpartition("-")
        if dash and number.isdigit() and task in self._counts(run):
            return f"{short(str(run.id))}:{clean(task)}:{number}"
        return str(task_run_id)

    def remaining(self, counts: dict[str, int], elapsed: float) -> float | None:
        """Guess the seconds still to go, once the number of task runs stands still."""
        total, done = sum(counts.values()), finished(counts)
        now = monotonic()
        if total != self._total:
            self._total, self._total_since = total, now
        if now - self._total_since < _STEADY_SECONDS or not done or done == total:
            return None
        return elapsed * (total - done) / done


def finished(counts: dict[str, int]) -> int:
    """Add up the counts of final states."""
    return sum(counts.get(state, 0) for state in FINAL)


def failed(counts: dict[str, int]) -> int:
    """Add up what failed and what crashed."""
    return counts.get("FAILED", 0) + counts.get("CRASHED", 0)


def total_of(rows: Counts) -> dict[str, int]:
    """Add up counts over the tasks."""
    total: dict[str, int] = {}
    for counts in rows.values():
        for state, number in counts.items():
            total[state] = total.get(state, 0) + number
    return total


@contextlib.contextmanager
def shown_progress(screen: Screen, sample: Sample, *, quiet: bool) -> Iterator[None]:
    """Say how far the flow is, on a screen, while the body runs."""
    if quiet:
        yield
    elif screen.plain:
        with _ticking(PlainProgress(screen, sample).tick, PLAIN_TICK_SECONDS):
            yield
    else:
        block = LiveBlock(screen)
        progress = LiveProgress(screen, sample, block)
        with in_front(block), _ticking(progress.tick, TICK_SECONDS):
            yield


@contextlib.contextmanager
def _ticking(tick: Callable[[], None], seconds: float) -> Iterator[None]:
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(seconds):
            try:
                tick()
            except OSError:  # the terminal is gone; the flow goes on
                return

    thread = threading.Thread(target=work, name="penstock-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            tick()  # for what failed since the last one


class PlainProgress:
    """One line every ten seconds and one per failure, without control codes."""

    def __init__(self, screen: Screen, sample: Sample) -> None:
        self._screen = screen
        self._sample = sample
        self._next = monotonic() + PLAIN_SECONDS

    def tick(self) -> None:
        """Write what is due."""
        self._sample.take()
        for line in self._sample.new_failures():
            self._screen.line(f"{self._screen.symbol('failed')} {line}")
        if monotonic() >= self._next and self._sample.run is not None:
            self._next += PLAIN_SECONDS
            self._screen.line(self._status(self._sample.run))
        self._screen.flush()

    def _status(self, run: LiveFlowRun) -> str:
        total = total_of(self._sample.rows())
        parts = [f"{finished(total):,}/{sum(total.values()):,} done"]
        if total.get("RUNNING"):
            parts.append(f"{total['RUNNING']:,} running")
        if failed(total):
            parts.append(f"{failed(total):,} failed")
        elapsed = clock((time_ns() - run.started_at) / 1e9)
        return f"{clean(run.flow_name)} {clean(run.name)}  {elapsed}  {', '.join(parts)}"


class LiveProgress:
    """The block: a headline, a bar for each of the tasks at work, a status line."""

    def __init__(self, screen: Screen, sample: Sample, block: LiveBlock) -> None:
        self._screen = screen
        self._sample = sample
        self._block = block
        self._speed = Speed()

    def tick(self) -> None:
        """Look again and draw."""
        running = self._sample.take()
        cross = self._screen.style(self._screen.symbol("failed"), "red")
        for line in self._sample.new_failures():
            self._block.say(f"{cross} {line}")
        if running:
            self._block.show(self.lines(self._screen.size()[0]))

    def lines(self, width: int) -> list[str]:
        """Give the block's lines for a terminal of that width."""
        run = self._sample.run
        if run is None:
            return []
        rows = self._sample.rows()
        total = total_of(rows)
        elapsed = (time_ns() - run.started_at) / 1e9
        return [
            self._headline(run, total, elapsed, width),
            *self._bars(rows, width),
            self._status(total, width),
        ]

    def _fit(self, text: str, width: int) -> str:
        # One column stays free: a terminal wraps when the last one is written.
        return cut(self._screen.encodable(text), width - 1, self._screen.symbol("more"))

    def _headline(self, run: LiveFlowRun, total: dict[str, int], elapsed: float, width: int) -> str:
        flow = self._fit(clean(run.flow_name), width)
        rest = (
            f"  {clean(run.name)} {short(str(run.id))}  {runner_word(run.runner)}  {clock(elapsed)}"
        )
        remaining = self._sample.remaining(total, elapsed)
        if remaining is not None:
            rest += f"  about {clock(remaining)} to go"
        rest = self._fit(rest, width - width_of(flow)) if width_of(flow) + 8 < width else ""
        return self._screen.style(flow, "bold") + rest

    def _bars(self, rows: Counts, width: int) -> list[str]:
        names = _most_active(rows)
        if not names:
            return []
        figures = [f"{finished(rows[name]):,}/{sum(rows[name].values()):,}" for name in names]
        widest = max(map(len, figures))
        longest = max(width_of(clean(name)) for name in names)
        room = max(1, min(longest, max(width - _BAR_WIDTH - 32, 6), width - 3 - widest))
        lines = [
            self._bar(name, rows[name], text.rjust(widest), room, width)
            for name, text in zip(names, figures, strict=True)
        ]
        if len(rows) > len(names):
            rest = total_of({name: rows[name] for name in rows if name not in names})
            text = f"and {plural(len(rows) - len(names), 'task')} more: "
            text += f"{finished(rest):,}/{sum(rest.values()):,} done"
            lines.append(self._screen.style(self._fit(text, width), "dim"))
        return lines

    def _bar(self, name: str, counts: dict[str, int], figures: str, room: int, width: int) -> str:
        screen = self._screen
        total, done = sum(counts.values()), finished(counts)
        label = cut(screen.encodable(clean(name)), room, screen.symbol("more"))
        notes = self._notes(counts)
        left = width - 1 - room - 2 - len(figures) - 2
        size = min(_BAR_WIDTH, max(left - 12, 0))
        text = self._fit("  ".join(notes), left - size - 1) if left - size > 3 else ""
        bar = screen.style(screen.bar(done / total if total else 0, size), _bar_style(counts))
        return "  ".join(part for part in (padded(label, room), bar, figures, text) if part)

    def _notes(self, counts: dict[str, int]) -> list[str]:
        notes = [
            f"{counts[state]:,} {word}"
            for state, word in (("RUNNING", "running"), ("SCHEDULED", "waiting to try again"))
            if counts.get(state)
        ]
        if failed(counts):
            notes.append(f"{failed(counts):,} failed")
        if not notes and counts.get("PENDING"):
            notes.append("waiting")
        return notes

    def _status(self, total: dict[str, int], width: int) -> str:
        dot = self._screen.symbol("dot")
        parts = []
        if total:
            parts.append(f"{finished(total):,}/{sum(total.values()):,} done")
            speed = self._speed.of(finished(total))
            if speed >= 0.95:
                parts.append(f"{speed:,.0f} task runs/s")
        parts.append("Ctrl-C to stop (again to force)")
        text = f" {dot} ".join(parts)
        if width_of(text) >= width and len(parts) > 1:
            text = f" {dot} ".join(parts[:-1])
        return self._screen.style(self._fit(text, width), "dim")


class Speed:
    """Measures how much is done in a second, over the last few seconds."""

    _SECONDS = 5.0

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def of(self, done: int) -> float:
        """Add a count; give the speed."""
        now = monotonic()
        self._points.append((now, done))
        self._points = [point for point in self._points if now - point[0] <= self._SECONDS]
        start, before = self._points[0]
        return (done - before) / (now - start) if now - start >= TICK_SECONDS else 0.0


def _bar_style(counts: dict[str, int]) -> str:
    return "red" if failed(counts) else "green"


def _most_active(rows: Counts) -> list[str]:
    """Choose the tasks to show: at work first, then waiting, then the latest that are done."""

    def rank(item: tuple[int, str]) -> tuple[int, int]:
        index, name = item
        counts = rows[name]
        done = finished(counts) == sum(counts.values())
        return (0 if counts.get("RUNNING") else 2 if done else 1, -index if done else index)

    chosen = sorted(enumerate(rows), key=rank)[:_MOST_ROWS]
    return [name for _, name in sorted(chosen)]
