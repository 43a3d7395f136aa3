"""Read pages from a server that is often busy: retries, a condition for them, and hooks.

    python examples/retries.py

The server runs in this process: it answers 503 to the first two requests for each page, and
404 for a page that it does not have, which no retry will change.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from penstock import State, flow, get_run_logger, task, unmapped

PAGES = {"/tides": "high at 4:10", "/winds": "north-west, 5", "/waves": "1.2 m"}


class BusyHandler(BaseHTTPRequestHandler):
    """Answers the third request for a page."""

    asked: Counter[str] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        if self.path not in PAGES:
            self.send_error(404)
        elif self.asked[self.path] < 3:
            self.send_error(503)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGES[self.path].encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the flow's own log is the one to read."""


@contextmanager
def busy_server() -> Iterator[str]:
    """Serve on a free port of this machine; give the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BusyHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def is_worth_a_retry(task: Any, task_run: Any, state: State) -> bool:
    """Try again when the server was busy, not when the page is missing."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, urllib.error.HTTPError) and error.code == 404)


def report_missing(task: Any, task_run: Any, state: State) -> None:
    """Hook: runs once, after the last attempt failed."""
    print(f"given up: {task_run.name}: {state.message}")


@task(
    retries=3,
    retry_delay_seconds=[0.01, 0.02, 0.05],
    retry_condition_fn=is_worth_a_retry,
    on_failure=[report_missing],
    timeout_seconds=5,
)
def read_page(path: str, address: str) -> str:
    """Fetch one page."""
    try:
        with urllib.request.urlopen(address + path, timeout=3) as answer:
            text: str = answer.read().decode()
    except urllib.error.HTTPError as error:
        error.close()
        raise
    return text


@flow
def sea_report() -> dict[str, str]:
    """Read all pages; a missing one is left out of the report."""
    paths = [*PAGES, "/currents"]
    with busy_server() as address:
        states = read_page.map(paths, unmapped(address), return_state=True)
    report = {
        path: state.result()
        for path, state in zip(paths, states, strict=True)
        if state.is_completed()
    }
    get_run_logger().info("%s of %s pages read", len(report), len(paths))
    return report


if __name__ == "__main__":
    for path, text in sea_report().items():
        print(f"{path:8} {text}")
