"""What a notebook shows of runs: small pieces of HTML, for light and dark pages.

Every text is made safe, cut and escaped here, by `shown`; nothing else may carry text that came
from somewhere. There is no script, no link and no style sheet: colours are the page's own, but
for the badges, whose white on a strong colour can be read on any page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from penstock.wording import clean, clean_lines, state_word

_NAME = 120
_MESSAGE = 400
_FACT = 160
_MOST_FACTS = 24
_MOST_LINES = 60
_TRACEBACK = 3_000

_COLOURS = {
    "COMPLETED": "#1a7f37",
    "FAILED": "#cf222e",
    "CRASHED": "#8250df",
    "CANCELLED": "#8a6100",
    "RUNNING": "#0969da",
    "STALE": "#953800",
}
_QUIET = "#59636e"
# From what is done to what is still to come.
_BAR_ORDER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED", "RUNNING")

_LINE = "1px solid rgba(128,128,128,.4)"
_CARD = (
    f"font:13px/1.5 system-ui,sans-serif;border:{_LINE};border-radius:6px;padding:10px 14px;"
    "margin:4px 0;max-width:760px;overflow-wrap:anywhere"
)
_CELL = "text-align:left;vertical-align:top;padding:2px 14px 2px 0;border:0;background:none"
_PRE = (
    "font:12px/1.45 ui-monospace,monospace;white-space:pre-wrap;margin:6px 0 0;padding:0;"
    "background:none;color:inherit;border:0"
)
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "`": "&#96;"}
)


def shown(text: object, limit: int = _FACT) -> str:
    """Make one line of any text safe to stand in HTML, with `limit` characters at most.

    Example:
        >>> shown('<b onclick="x()">')
        '&lt;b onclick=&quot;x()&quot;&gt;'
    """
    # Cut before it is cleaned, so that a long text costs no more than a short one.
    return _escaped(_cut(clean(_cut(str(text), limit)), limit))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _apart(html: str) -> str:
    """Keep the direction of a text to itself."""
    return f"<bdi>{html}</bdi>"


def unbroken(html: str) -> str:
    """Keep a short text on one line."""
    return f'<span style="white-space:nowrap">{html}</span>'


def badge(kind: str, word: str) -> str:
    """Show a state.

    Args:
        kind: its type, or "STALE".
        word: what people read.
    """
    style = (
        f"background:{_COLOURS.get(kind, _QUIET)};color:#fff;border-radius:9px;padding:1px 8px;"
        "font-size:12px;white-space:nowrap"
    )
    return f'<span style="{style}">{shown(word, 40)}</span>'


def title(strong: object, quiet: object, mark: str) -> str:
    """Show the head of a card: a name, another one, and a badge."""
    return (
        f'<div><b style="font-size:14px">{_apart(shown(strong, _NAME))}</b> '
        f'<span style="opacity:.75">{_apart(shown(quiet, _NAME))}</span> {mark}</div>'
    )


def message(text: object) -> str:
    """Show what is said of a state; nothing for no text."""
    return f"<div>{_apart(shown(text, _MESSAGE))}</div>" if text else ""


def facts(pairs: Iterable[tuple[object, object]]) -> str:
    """Show names and values, those that have one; no more than a few dozen."""
    known = [pair for pair in pairs if pair[1] not in (None, "")]
    rows = [_fact(_apart(shown(name, 40)), _apart(shown(value))) for name, value in known]
    if len(rows) > _MOST_FACTS:
        rows[_MOST_FACTS:] = [_fact("…", f"{len(rows) - _MOST_FACTS:,} more")]
    return table([], rows) if rows else ""


def _fact(name: str, value: str) -> str:
    return row([f'<span style="opacity:.75">{name}</span>', value])


def row(cells: Sequence[str]) -> str:
    """Make a row of a table out of HTML."""
    columns = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f'<tr style="background:none">{columns}</tr>'


def table(headings: Sequence[str], rows: Sequence[str]) -> str:
    """Make a table out of words and rows."""
    cells = "".join(
        f'<th style="{_CELL};opacity:.75;font-weight:normal">{shown(word, 40)}</th>'
        for word in headings
    )
    head = f'<tr style="background:none">{cells}</tr>' if cells else ""
    style = "border-collapse:collapse;border:0;margin:6px 0 0;font-size:13px"
    return f'<table style="{style}">{head}{"".join(rows)}</table>'


def progress(counts: Mapping[str, int], words: str) -> str:
    """Show how many task runs are in each state, as a bar and in words; nothing for none."""
    number = sum(counts.values())
    if number <= 0:
        return ""
    parts = "".join(
        f'<span style="background:{_COLOURS[kind]};width:{share:.2f}%"></span>'
        for kind in _BAR_ORDER
        if (share := 100 * counts.get(kind, 0) / number)
    )
    style = (
        "display:flex;height:6px;border-radius:3px;overflow:hidden;margin:8px 0 2px;"
        "background:rgba(128,128,128,.3);max-width:420px"
    )
    return f'<div style="{style}">{parts}</div><div>{shown(words, 200)}</div>'


def error(summary: object, traceback: object) -> str:
    """Show an error: its kind and text, and its traceback once that is asked for."""
    said = f"<b>{_apart(shown(summary, _MESSAGE))}</b>"
    text = _end_of(str(traceback or ""))
    if not text:
        return f'<div style="margin:6px 0 0">{said}</div>'
    return (
        f'<details style="margin:6px 0 0"><summary>{said}</summary>'
        f'<pre style="{_PRE}">{text}</pre></details>'
    )


def _end_of(text: str) -> str:
    """Give the end of a text of several lines: of a traceback that tells most."""
    if len(text) > _TRACEBACK:
        text = "…" + text[-_TRACEBACK:]
    lines = clean_lines(text.strip("\n"))[-_MOST_LINES:]
    return _escaped("\n".join(lines)[-_TRACEBACK - 1 :])


def card(*parts: str) -> str:
    """Frame pieces of HTML, one below the other."""
    return f'<div style="{_CARD}">{"".join(parts)}</div>'


def live_card(kind: str, name: str, state: tuple[str, str | None, str | None], id: object) -> str:
    """Show a run that this process has in memory.

    Args:
        kind: what it is, such as "task run".
        name: its name.
        state: its type, its name where that is a special one, and its message.
        id: its id.
    """
    type, special, said = state
    mark = badge(type, state_word({"type": type, "name": special}))
    return card(title(name, kind, mark), message(said), facts([("id", id)]))
