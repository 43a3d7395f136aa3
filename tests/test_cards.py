"""What notebooks show: whatever a run is called and says, it is text, and little of it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock import flow, task
from penstock.cards import live_card, shown
from penstock.history.base import Group
from penstock.record_cards import flow_run_card, flow_runs_card, task_run_card
from tests.cli.histories import RUN_ID, flow_run, task_run, write_history

LARGEST = 50_000
EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "</script><script>alert(1)</script>",
    "</div></table></details>",
    '" onmouseover="alert(1)',
    "' style='position:fixed;inset:0",
    "{{7*7}} ${7*7} <%= 7 %> {% raw %}",
    "<svg/onload=alert(1)>",
    "<!-- comment",
    "]]> <![CDATA[",
    "&lt;b&gt; &amp; &#x3c;",
    "\x1b]0;owned\x07\x1b[2Jx\u202ey",
    "a\u2066b\u200bc\ufeff",
    "e" + "\u0301" * 5_000,
    "\ud800 lone, nul \x00, \x9b31m",
    "\U0001f600" * 400,
    "`backticks`",
]
KNOWN_TAGS = {
    "b", "bdi", "br", "code", "details", "div", "pre", "span", "summary", "table", "td", "th", "tr",
}  # fmt: skip


class Page(HTMLParser):
    """Takes HTML apart; refuses what is not ours to write."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in KNOWN_TAGS, tag
        assert [name for name, _ in attrs] in ([], ["style"]), attrs
        style = dict(attrs).get("style") or ""
        assert "url" not in style
        assert "position" not in style
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration: {decl}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


def checked(html: str) -> str:
    """Give the text of HTML that is well-formed, harmless and small."""
    assert len(html.encode()) < LARGEST, len(html.encode())
    page = Page(html)
    text = "".join(page.text)
    hidden = {"\x00", "\x07", "\x1b", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff"}
    assert not hidden & set(html)
    return text


def shape(text: str) -> dict[str, Any]:
    """Make the shape of a run in which every text is the same."""
    return {
        "id": text,
        "name": text,
        "flow": text,
        "task": text,
        "flow_run_id": text,
        "state": {"type": text, "name": text, "message": text},
        "parameters": {f"{text}{n}": text for n in range(100)},
        "tags": [f"{text}{n}" for n in range(64)],
        "runner": text,
        "worker": text,
        "created_at": "2026-09-21T14:13:20.000000+00:00",
        "started_at": "2026-09-21T14:13:20.000000+00:00",
        "ended_at": None,
        "duration": 3.5,
        "counts": {"COMPLETED": 3, "FAILED": 1, text: 2},
        "stale": False,
        "stale_since": None,
        "stale_reason": None,
        "attempt": 2,
        "upstream": [text] * 1000,
        "error": {"type": text, "message": text, "traceback": f"{text}\n" * 2_000},
    }


def long_of(text: str) -> str:
    return text * (20_000 // len(text) + 1)


@pytest.mark.parametrize("card", [flow_run_card, task_run_card], ids=lambda card: card.__name__)
@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
@pytest.mark.parametrize("length", [str, long_of], ids=["short", "long"])
def test_evil_text_is_shown_as_text(card: Any, evil: str, length: Any) -> None:
    checked(card(shape(length(evil))))
    checked(card(shape(length(evil)) | {"stale": True, "stale_reason": length(evil)}))


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_many_evil_runs_are_a_small_table(evil: str) -> None:
    text = checked(flow_runs_card([shape(long_of(evil))] * 1_000))
    assert text.endswith("and 980 more")
    checked(live_card(evil, long_of(evil), (evil, evil, long_of(evil)), evil))


@given(st.text(st.characters(), max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_text_is_shown_as_text(text: str) -> None:
    checked(flow_run_card(shape(text)))
    checked(flow_runs_card([shape(text)]))


@given(st.text(st.characters(), max_size=400), st.integers(1, 200))
def test_shown_text_is_escaped_and_cut(text: str, limit: int) -> None:
    html = shown(text, limit)
    html.encode()
    assert len("".join(Page(html).text)) <= limit
    assert not set(html) & set("<>\"'`")


def test_what_is_harmless_is_shown_as_it_is() -> None:
    assert checked(flow_run_card(shape("Grüße, 世界"))).startswith("Grüße, 世界 Grüße, 世界")
    assert shown("x" * 10, 5) == "xxxx…"
    assert shown("x" * 5, 5) == "xxxxx"


def test_evil_history_in_a_notebook(penstock_home: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\u202e"
    error = {"type": evil, "message": evil, "traceback": evil}
    group = Group(
        flow_runs=[
            flow_run(
                RUN_ID,
                name=evil,
                flow=evil,
                state="FAILED",
                message=evil,
                tags=json.dumps([evil]),
                parameters=json.dumps({evil: evil}),
                runner=evil,
                error=json.dumps(error),
            )
        ],
        tasks=[(RUN_ID.bytes, 0, evil, evil, None)],
        task_runs=[
            task_run(RUN_ID, 0, state="FAILED", message=evil, detail=json.dumps({"error": error}))
        ],
    )
    write_history(penstock_home, group)
    (record,) = runs = penstock.runs()
    (failed,) = record.task_runs()
    for html in (record._repr_html_(), runs._repr_html_(), failed._repr_html_()):
        assert "<img src=x onerror=alert(1)>\\u202e" in checked(html)


def test_run_with_ten_thousand_task_runs_is_small(penstock_home: Path) -> None:
    rows = [task_run(RUN_ID, n) for n in range(10_000)]
    group = Group(
        flow_runs=[flow_run(RUN_ID)],
        tasks=[(RUN_ID.bytes, 0, "m.x", "x", None)],
        task_runs=rows,
        counts=[(RUN_ID.bytes, 0, "COMPLETED", 10_000)],
    )
    write_history(penstock_home, group)
    text = checked(penstock.run("@last")._repr_html_())
    assert "10,000 task runs: 10,000 completed" in text


def test_run_says_what_people_ask_first() -> None:
    values = {
        "state": {"type": "FAILED", "name": "Failed", "message": "1/6 task runs failed."},
        "flow": "census",
        "name": "brave-otter",
        "counts": {"COMPLETED": 4, "FAILED": 1, "PENDING": 1},
        "parameters": {"path": "'a.csv'"},
        "tags": ["nightly"],
    }
    text = checked(flow_run_card(shape("x") | values))
    assert text.startswith("census brave-otter failed1/6 task runs failed.6 task runs: 4 completed")
    assert "1 failed, 1 not ready" in text
    assert "path ='a.csv'" in text
    stale = values | {
        "state": {"type": "RUNNING", "name": "Running", "message": None},
        "stale": True,
        "stale_reason": "its process 42 is gone",
        "stale_since": "2026-09-21T14:13:20.000000+00:00",
    }
    text = checked(flow_run_card(shape("x") | stale))
    assert "staleIt was running, but its process 42 is gone (last sign of life " in text


def test_no_runs_and_no_task_runs() -> None:
    assert checked(flow_runs_card([])) == "No such runs."
    empty: dict[str, Any] = {
        "counts": {},
        "error": None,
        "parameters": {},
        "tags": [],
        "started_at": None,
    }
    assert "not yet" in checked(flow_run_card(shape("x") | empty))


def test_live_runs_are_shown_without_being_looked_at() -> None:
    @task
    def fails() -> None:
        raise ValueError("<b>")

    shown_runs: list[str] = []

    @flow
    def outer() -> None:
        future = fails.submit()
        penstock.wait([future])
        shown_runs.append(future._repr_html_())
        shown_runs.append(future.task_run._repr_html_())
        shown_runs.append(penstock.get_run_context().flow_run._repr_html_())

    state = outer(return_state=True)
    assert state.is_failed()  # nobody looked at the failure
    for html in shown_runs[:2]:
        text = checked(html)
        assert text.startswith("fails-0 task run failed")
        assert "ValueError: <b>" in text
    assert "flow run of outer" in checked(shown_runs[2])
