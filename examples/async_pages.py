"""Walk through a small site with async tasks: an async flow on the caller's own event loop.

    python examples/async_pages.py

The site runs in this process. Every page links to some others; the flow follows the links level
by level, fetching the pages of a level at the same time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock import flow, task, unmapped

PAGES = 60


def page_text(number: int) -> str:
    """Give the page of a number, with links to its two children and to its parent."""
    linked = [max(0, (number - 1) // 2), 2 * number + 1, 2 * number + 2]
    links = "".join(f'<a href="/{page}">{page}</a>' for page in linked if page < PAGES)
    return f"<h1>Page {number}</h1>{links}"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request of one connection."""
    request = (await reader.readline()).decode()
    number = int(request.split()[1].strip("/"))
    writer.write(f"HTTP/1.0 200 OK\r\n\r\n{page_text(number)}".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def site() -> AsyncIterator[int]:
    """Serve the site on a free port of this machine; give the port."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@task(retries=2, task_run_name="fetch-{page}")
async def fetch(page: int, port: int) -> str:
    """Read one page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /{page} HTTP/1.0\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return text


@task
def find_links(text: str) -> list[int]:
    """Find the pages that a page links to; a plain function, on a thread."""
    return [int(number) for number in re.findall(r'href="/(\d+)"', text)]


@flow
async def walk() -> list[int]:
    """Visit every page that can be reached from the first; give the pages per level."""
    seen: set[int] = {0}
    level, sizes = [0], []
    async with site() as port:
        while level:
            sizes.append(len(level))
            texts = fetch.map(level, unmapped(port))
            links = await asyncio.gather(*find_links.map(texts))
            level = sorted({page for linked in links for page in linked} - seen)
            seen.update(level)
    return sizes


if __name__ == "__main__":
    sizes = asyncio.run(walk())
    for depth, size in enumerate(sizes):
        print(f"level {depth}: {size:2} pages")
    print(f"{sum(sizes)} pages in {len(sizes)} levels")
