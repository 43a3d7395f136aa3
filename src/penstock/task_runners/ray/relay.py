"""The relay: an actor that passes messages between drivers and their workers.

    worker ──report──► relay ◄──take──── driver    reports, and what is asked of the driver
    driver ──tell────► relay ◄──listen── worker    words

Whoever wants to hear asks, and is answered once there is something: nobody has to be reachable.
The relay needs no processor of Ray's. It ends when nobody has used it for some seconds: starting
a process for each flow run would take longer than many of them.

A word about a bundle goes to the worker that has it. Nobody may know of one: then every worker is
asked to say that it has not begun it, and never will. Ray's own cancellation is of no use for
that: where it meets the end of a task, it ends the process that asked for it.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from itertools import count
from time import monotonic
from typing import Any

REPORT, BEGUN, ASKED, LOST, UNSENT = range(5)
"""What `take` gives: a report, a bundle that has begun, a value that is looked for, a barrier, a
bundle that nobody has begun or will."""
KILL, REVOKE = b"kill ", b"revoke "
"""Words, followed by the id of a bundle: end the worker process if it has it; do not begin it."""
POLL_SECONDS = 5.0
LINGER_SECONDS = 10.0
_SILENT_SECONDS = 8.0
DEAD_SECONDS = 300.0
_CHECK_SECONDS = 0.5
_MOST_HELD = 10_000
_ANSWER_SECONDS = 30.0


class Relay:
    """The actor: passes every call on to the channel of its driver.

    Args:
        driver: who has started it; known from here on, since calls may overtake each other.
    """

    def __init__(self, driver: str) -> None:
        self._channels = {driver: Channel()}
        self._used_at = monotonic()
        self._watch: asyncio.Task[None] | None = None

    async def open(self, driver: str) -> None:
        """Take in a driver."""
        self._channels[driver] = Channel()
        self._used_at = monotonic()

    async def _await_silence(self) -> None:
        """End the process once no driver has asked for anything for minutes: all have died."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            oldest = monotonic() - DEAD_SECONDS
            for driver, channel in list(self._channels.items()):
                if channel.asked_at < oldest:
                    self._channels.pop(driver).close()
            if not self._channels and self._used_at < oldest:
                os._exit(0)

    async def close(self, driver: str) -> None:
        """Let a driver go; end the actor if nobody needs it for some seconds."""
        channel = self._channels.pop(driver, None)
        if channel is not None:
            channel.close()
        self._used_at = monotonic()
        await asyncio.sleep(LINGER_SECONDS)
        if not self._channels and monotonic() - self._used_at >= LINGER_SECONDS:
            import ray

            ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    async def call(self, driver: str, name: str, *arguments: Any) -> Any:
        """Call a method of a driver's channel; None, at once, for one that has left."""
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._await_silence())
        channel = self._channels.get(driver)
        return None if channel is None else await getattr(channel, name)(*arguments)


class Channel:
    """What one driver and its workers have for each other; lives on one event loop."""

    def __init__(self) -> None:
        self._is_closed = False
        # When the driver has asked for news last.
        self.asked_at = monotonic()
        self._news: list[tuple[Any, ...]] = []
        self._is_news = asyncio.Event()
        self._words: dict[str, list[bytes]] = {}
        self._rings: dict[str, asyncio.Event] = {}
        # When each worker has asked for words last.
        self._heard_at: dict[str, float] = {}
        # The worker that has a bundle, and words for bundles of which nobody knows.
        self._workers: OrderedDict[str, str] = OrderedDict()
        self._held: OrderedDict[str, list[bytes]] = OrderedDict()
        # Who has yet to say that it has not begun a bundle.
        self._silent: dict[str, set[str]] = {}
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        # Never used twice: an answer may come when nobody waits for it any more.
        self._numbers = count()

    # Of the driver.

    def close(self) -> None:
        """Answer everybody who waits."""
        self._is_closed = True
        for event in (self._is_news, *self._rings.values()):
            event.set()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(None)
        self._silent.clear()

    async def take(self) -> list[tuple[Any, ...]]:
        """Give what is new, waiting for something; nothing when that takes long."""
        self.asked_at = monotonic()
        await _wait(self._is_news)
        news, self._news = self._news, []
        return news

    async def tell(self, worker: str, word: bytes) -> None:
        """Pass a word on to a worker."""
        self._words.setdefault(worker, []).append(word)
        self._ring(worker).set()

    async def tell_about(self, bundle_id: str, word: bytes) -> None:
        """Pass a word on to the worker that has a bundle; revoke it if none has begun it."""
        worker = self._workers.get(bundle_id)
        if worker is not None:
            await self.tell(worker, word)
        elif bundle_id in self._held:
            self._held[bundle_id].append(word)
        elif bundle_id not in self._revoked:
            _put(self._held, bundle_id, [word])
            await self._revoke(bundle_id)

    async def give(self, number: int, refs: list[Any] | None) -> None:
        """Answer what a worker has asked; `refs` holds one reference."""
        asked = self._asked.get(number)
        if asked is not None and not asked.done():
            asked.set_result(refs)

    async def lost(self, bundle_id: str) -> None:
        """Give a barrier back to the driver, after what the worker of a bundle has reported."""
        self._held.pop(bundle_id, None)
        self._silent.pop(bundle_id, None)
        self._add(LOST, bundle_id)

    # Of workers.

    async def join(self, worker: str) -> list[str]:
        """Take in a worker before it begins its first bundle; gives the bundles it must not."""
        self._heard_at[worker] = monotonic()
        return list(self._revoked)

    async def report(self, worker: str, number: int, data: bytes, refs: dict[str, Any]) -> None:
        """Take the report of this number; `refs` are the values that it says are kept."""
        self._add(REPORT, worker, number, data, refs)

    async def begin(self, worker: str, bundle_id: str) -> None:
        """Take that a worker has a bundle, or has had it."""
        self._silent.pop(bundle_id, None)
        _put(self._workers, bundle_id, worker)
        for word in self._held.pop(bundle_id, ()):
            await self.tell(worker, word)
        self._add(BEGUN, worker, bundle_id)

    async def disclaim(self, worker: str, bundle_id: str) -> None:
        """Take that a worker has not begun a bundle, and never will."""
        silent = self._silent.get(bundle_id)
        if silent is not None:
            silent.discard(worker)
            self._settle(bundle_id)

    async def listen(self, worker: str) -> list[bytes] | None:
        """Give the words for a worker, waiting for some; none when that takes long.

        None: the driver has left.
        """
        self._heard_at[worker] = monotonic()
        await _wait(self._ring(worker))
        self._heard_at[worker] = monotonic()
        return None if self._is_closed else self._words.pop(worker, [])

    async def ask(self, name: str) -> list[Any] | None:
        """Have the driver look for a kept value; gives a reference to it, None if it is lost."""
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._add(ASKED, name, number)
        try:
            return await asyncio.wait_for(asked, _ANSWER_SECONDS)
        except TimeoutError:
            return None
        finally:
            del self._asked[number]

    # Revoking.

    async def _revoke(self, bundle_id: str) -> None:
        # Who joins from now on is told by that.
        _put(self._revoked, bundle_id, None)
        self._silent[bundle_id] = set(self._heard_at)
        for worker in self._heard_at:
            await self.tell(worker, REVOKE + bundle_id.encode())
        task = asyncio.get_running_loop().create_task(self._await_silent(bundle_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await_silent(self, bundle_id: str) -> None:
        """Wait for the workers to answer; those that have died never will."""
        self._settle(bundle_id)
        while bundle_id in self._silent:
            await asyncio.sleep(_CHECK_SECONDS)
            oldest = monotonic() - _SILENT_SECONDS
            for worker in [each for each, at in self._heard_at.items() if at < oldest]:
                del self._heard_at[worker]
            if bundle_id in self._silent:
                self._silent[bundle_id] &= set(self._heard_at)
                self._settle(bundle_id)

    def _settle(self, bundle_id: str) -> None:
        if self._silent.get(bundle_id) == set():
            del self._silent[bundle_id]
            self._held.pop(bundle_id, None)
            self._add(UNSENT, bundle_id)

    def _add(self, *news: Any) -> None:
        self._news.append(news)
        self._is_news.set()

    def _ring(self, worker: str) -> asyncio.Event:
        return self._rings.setdefault(worker, asyncio.Event())


def _put(held: OrderedDict[str, Any], key: str, value: Any) -> None:
    """Keep something, and forget the oldest when there is too much."""
    held[key] = value
    while len(held) > _MOST_HELD:
        held.popitem(last=False)


async def _wait(event: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(event.wait(), POLL_SECONDS)
    except TimeoutError:
        pass
    event.clear()
