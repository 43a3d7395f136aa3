"""The event loop of a flow run: the caller's own, or one in a thread of its own on demand.

async flow:  the caller's loop
sync flow:   thread "penstock-loop", started when something asynchronous is first submitted
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from penstock.runtime.blocking import take

if TYPE_CHECKING:
    import asyncio

_JOIN_SECONDS = 1.0
logger = logging.getLogger("penstock.runtime")
_Start = tuple[Callable[..., Coroutine[Any, Any, None]], tuple[Any, ...], Context | None, bool]


def running_loop() -> Any:
    """Give the loop that runs in this thread, or None; does not load asyncio for that."""
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


class FlowLoop:
    """An event loop that any thread can give coroutines to.

    Args:
        loop: the caller's loop; None starts one in a thread of its own when it is needed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._thread_id = None if loop is None else get_ident()
        self._thread: threading.Thread | None = None
        self._starts: deque[_Start] = deque()
        self._is_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._alarm: LoopAlarm | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a loop already."""
        return self._loop is not None

    @property
    def alarm(self) -> LoopAlarm:
        """The alarm of the loop, for what waits on it."""
        if self._alarm is None:
            self._alarm = LoopAlarm.of(self.opened())
        return self._alarm

    def current_task(self) -> Any:
        """Give the asyncio task that runs in this thread, None when there is none."""
        asyncio = sys.modules["asyncio"]
        return asyncio.current_task(self._loop if self.runs_here() else None)

    def runs_here(self) -> bool:
        """Tell whether the calling thread is the one that runs the loop."""
        # Cheaper than asking asyncio, which makes a system call each time. Our own code runs in
        # the loop's thread only while the loop runs it.
        return get_ident() == self._thread_id

    def spawn(
        self,
        function: Callable[..., Coroutine[Any, Any, None]],
        *arguments: Any,
        context: Context | None = None,
        keeps_itself: bool = False,
    ) -> None:
        """Start a coroutine function on the loop; many calls cost one wake-up. Thread-safe.

        Args:
            keeps_itself: somebody else refers to the asyncio task while it runs; the loop itself
                only has weak references to its tasks.
        """
        if self.runs_here():
            self._start(function, arguments, context, keeps_itself)
            return
        self._starts.append((function, arguments, context, keeps_itself))
        if not self._is_scheduled:
            self._is_scheduled = True
            self.opened().call_soon_threadsafe(self._drain)

    def run(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine function on the loop, in the current context, and wait for its end.

        Blocks the calling thread. When that runs a loop of ours, which may be this one or be
        waited for by this one, another loop does the work.
        """
        if is_loop_thread():
            return PassingLoop().run(function)
        return self._run(function)

    def _run(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        import asyncio

        context = copy_context()
        ended = SimpleQueue[tuple[Any, BaseException | None]]()

        async def contain() -> None:
            try:
                ended.put((await asyncio.create_task(function(), context=context), None))
            except BaseException as exc:
                ended.put((None, exc))

        self.spawn(contain)
        told = take(ended)
        assert told is not None
        value, problem = told
        if problem is not None:
            raise problem
        return value

    def close(self) -> None:
        """Stop the loop if it is our own. Nothing may be running on it any more."""
        if self._thread is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            logger.warning("1 event loop could not be stopped: a task blocks it.")
        self._thread = self._loop = self._thread_id = None

    def opened(self) -> asyncio.AbstractEventLoop:
        """Give the loop, starting it if there is none yet."""
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = _LoopThread(
                    target=_serve, args=(self._loop,), name="penstock-loop", daemon=True
                )
                self._thread.start()
                self._thread_id = self._thread.ident
            return self._loop

    def _drain(self) -> None:
        self._is_scheduled = False
        while self._starts:
            self._start(*self._starts.popleft())

    def _start(
        self,
        function: Callable[..., Coroutine[Any, Any, None]],
        arguments: tuple[Any, ...],
        context: Context | None,
        keeps_itself: bool,
    ) -> None:
        assert self._loop is not None
        task = self._loop.create_task(function(*arguments), context=context)
        if not keeps_itself:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class _LoopThread(threading.Thread):
    """A thread that runs a loop of ours."""


def is_loop_thread() -> bool:
    """Tell whether the calling thread runs a loop of ours."""
    return isinstance(threading.current_thread(), _LoopThread)


class PassingLoop(FlowLoop):
    """A loop for one piece of work, in a thread that ends with it."""

    def run(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        loop = FlowLoop()
        try:
            return loop._run(function)
        finally:
            loop.close()

    def spawn(
        self,
        function: Callable[..., Coroutine[Any, Any, None]],
        *arguments: Any,
        context: Context | None = None,
        keeps_itself: bool = False,
    ) -> None:
        work = (partial(function, *arguments),)
        threading.Thread(target=self.run, args=work, name="penstock-loop", daemon=True).start()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


class LoopAlarm:
    """Tells one event loop, from any thread, that awaited things are done: in groups."""

    _alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopAlarm] = WeakKeyDictionary()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopAlarm:
        """Give the alarm of a loop that runs in this thread: one for all that wait on it."""
        alarm = cls._alarms.get(loop)
        if alarm is None:
            alarm = cls._alarms[loop] = cls(weakref.proxy(loop))
        # A loop may be run by one thread now and by another one later.
        alarm._thread_id = get_ident()
        return alarm

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[asyncio.Future[None]] = deque()
        self._is_scheduled = False
        self._thread_id = get_ident()

    def waiter_for(self, run: Any) -> asyncio.Future[None]:
        """Make a future of the loop that is resolved once a task run is over."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        run.live.when_over(run, partial(self.ring, waiter))
        return waiter

    def ring(self, waiter: asyncio.Future[None], _: object = None) -> None:
        """Resolve a future of the loop. Thread-safe."""
        if get_ident() == self._thread_id:
            _resolve(waiter)
            return
        self._done.append(waiter)
        if not self._is_scheduled:
            self._is_scheduled = True
            # Nobody waits on a loop that is closed or gone.
            with suppress(RuntimeError, ReferenceError):
                self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_scheduled = False
        while self._done:
            _resolve(self._done.popleft())


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
