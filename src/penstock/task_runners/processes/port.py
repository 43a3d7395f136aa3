"""A worker process's way to the driver, as the code that runs there uses it."""

from __future__ import annotations

import pickle
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from penstock.failpoints import FAILPOINTS, hit
from penstock.remote.blackbox import BlackBox, NoBox
from penstock.remote.outbox import Outbox, Port
from penstock.task_runners.processes.arena import Arena
from penstock.task_runners.processes.frames import CAME_BACK, LEFT, REPORT, RETURNED, frame
from penstock.task_runners.processes.surroundings import Surroundings

VALUE, BUFFER = range(2)
_SLICE_SECONDS = 0.25


class Load(NamedTuple):
    """A bundle as it travels to a worker process.

    Attributes:
        id: the id of the bundle.
        data: the pickled `Sent`.
        parts: names and kinds of what it refers to in the arena.
        variables: environment variables that hold while it runs.
        awaits_go: whether it has to be given its resources again after a wait.
    """

    id: str
    data: bytes
    parts: list[tuple[str, int]]
    variables: dict[str, str]
    awaits_go: bool


class ProcessPort(Port):
    """The driver's end, seen from a worker process. Thread-safe.

    Attributes:
        waiting: bundles that the driver has sent ahead; whoever pops one has it.
        awaits_go: whether what runs here has to wait for `go` when it comes back from a wait.
    """

    lost: tuple[type[BaseException], ...] = ()
    # The driver itself watches over what does not stop: it can, when this process cannot.
    patience = float("inf")

    def __init__(self, end: socket.socket, name: str, box: BlackBox, arena: Arena) -> None:
        self.worker = name
        self.box = box
        self.arena = arena
        self.surroundings = Surroundings()
        self.waiting: deque[Load] = deque()
        self.awaits_go = False
        self.go = threading.Event()
        self._socket: socket.socket | None = end
        self._lock = threading.Lock()
        self._outbox: BoxedOutbox | None = None

    def tell(self, kind: int, body: bytes = b"") -> None:
        """Send a frame; blocks while the driver has more than it can take."""
        data = frame(kind, body)
        with self._lock:
            if self._socket is not None:
                self._socket.sendall(data)

    def disown(self) -> None:
        """Tell nobody anything any more: this is a copy of the process, in a child of it."""
        self._lock = threading.Lock()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._outbox is not None:
            self._outbox.disown()

    def send(self, reply_to: Any, data: bytes) -> None:
        self.tell(REPORT, data)

    def confirm(self, reply_to: Any, data: bytes) -> None:
        self.tell(REPORT, data)

    def keep(self, reply_to: Any, name: str, value: Any) -> int:
        return self.arena.write_value(name, value)

    def fetch(self, name: str) -> Any:
        return self.arena.read_value(name)

    def leave(self) -> None:
        self.give_back()
        self.tell(LEFT)

    def come_back(self) -> None:
        if not self.awaits_go:
            self.tell(CAME_BACK)
            return
        # The processor that it had is others' now.
        self.go.clear()
        self.tell(CAME_BACK)
        while not self.go.wait(_SLICE_SECONDS):
            pass  # so that it can be interrupted

    def give_back(self) -> None:
        """Give back what the driver has sent ahead."""
        while self.waiting:
            try:
                load = self.waiting.pop()
            except IndexError:
                return
            self.tell(RETURNED, load.id.encode())

    def open_outbox(self, reply_to: Any) -> Outbox:
        # All flow runs here have the same driver.
        if self._outbox is None:
            self._outbox = BoxedOutbox(self)
        return self._outbox

    def parts(self, listed: list[tuple[str, int]]) -> Parts:
        """Give what a bundle refers to; each is loaded when it is asked for."""
        return Parts(self.arena, dict(listed))


class Parts(Mapping[str, Any]):
    """Large buffers by digest, and kept values by name, out of the arena."""

    def __init__(self, arena: Arena, kinds: dict[str, int]) -> None:
        self._arena = arena
        self._kinds = kinds
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            is_value = self._kinds[name] == VALUE
            read = self._arena.read_value if is_value else self._arena.read_buffer
            self._loaded[name] = read(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


class BoxedOutbox(Outbox):
    """An outbox whose entries lie in the black box until a report has told them."""

    def __init__(self, port: ProcessPort) -> None:
        super().__init__(port, None)
        self._use(port.box)
        self._surroundings = port.surroundings
        self._reports = 0

    def add(self, *entry: Any) -> None:
        data = pickle.dumps(entry, 5)
        with self._lock:
            if not self._box.note(data):
                self._flush()
                if not self._box.note(data):
                    # Too large for the box: it leaves at once.
                    self.entries.append(entry)
                    self._flush()
                    return
            self.entries.append(entry)

    def flush(self) -> None:
        if self.entries:
            with self._lock:
                self._flush()

    def confirm(self, *entry: Any) -> None:
        # What is in the socket arrives, whatever becomes of this process.
        self.add(*entry)
        self.flush()

    def _use(self, box: BlackBox | NoBox) -> None:
        self._box = box
        # Directly: these happen for every task run.
        self.begins = box.begins  # type: ignore[method-assign]
        self.enters = box.enters  # type: ignore[method-assign]

    def rests(self) -> None:
        self._box.rests()
        self._surroundings.restore()

    def disown(self) -> None:
        """Leave the box alone, which is shared with the parent of this process."""
        self._lock = threading.Lock()
        self._use(NoBox())

    def _flush(self) -> None:
        if not self.entries:
            return
        entries = list(self.entries)
        self.entries.clear()
        if FAILPOINTS:
            hit("worker.send")
        self.port.send(None, pickle.dumps((self.port.worker, entries), 5))
        self._box.sent(self._reports)
        self._reports += 1
