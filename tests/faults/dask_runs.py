"""What the tests of faults on Dask share: what is in the history, and a connection to cut."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from penstock.testing.ledger import Ledger, wait_until

LARGE = 200_000  # bytes: too large to travel with a report


def worker_here() -> str:
    """Give the address of the worker that runs this."""
    import distributed

    return str(distributed.get_worker().address)


def history(home: Path, task_name: str) -> list[tuple[str, int, list[str]]]:
    """Give state, attempt and names of all states of the runs of a task."""
    connection = sqlite3.connect(home / "history.db")
    try:
        rows = connection.execute(
            "SELECT r.state, r.attempt, r.states FROM task_runs r JOIN tasks t "
            "ON t.flow_run_id = r.flow_run_id AND t.number = r.task WHERE t.name = ? ",
            (task_name,),
        ).fetchall()
    finally:
        connection.close()
    return [
        (state, attempt, [name or type for type, name, *_ in json.loads(states or "[]")])
        for state, attempt, states in rows
    ]


def wait_for_line(ledger: Ledger, number: int = 0) -> str:
    wait_until(lambda: len(ledger.lines()) > number)
    return ledger.lines()[number]


class Proxy:
    """A TCP proxy on loopback that can be cut and mended."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").partition(":")
        self._target = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._writers: list[asyncio.StreamWriter] = []
        self._port = 0
        self.mend()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def mend(self) -> None:
        async def serve() -> None:
            self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

        self._call(serve())

    def cut(self) -> None:
        async def close() -> None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            self._writers.clear()

        self._call(close())

    def close(self) -> None:
        self.cut()

        async def wait() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)

        self._call(wait())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, there_writer]
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
