"""Frames: what travels on the socket between the driver and one worker process.

    driver ──► worker    SETUP, then bundles and words
    worker ──► driver    READY or BROKEN, then reports, and what becomes of its bundles

A frame is its length in bytes, a kind, and a body. A worker that dies in the middle of one leaves
an unfinished frame behind, which nobody ever sees.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from struct import Struct

# To a worker.
SETUP, BUNDLE, WORD, BYE = range(4)
# To the driver.
READY, BROKEN, REPORT, DONE, RETURNED, LEFT, CAME_BACK = range(10, 17)

_HEAD = Struct("<QB")
_READ_BYTES = 256 * 1024
BUFFER_BYTES = 1024 * 1024
"""How much a socket takes in before whoever sends has to wait."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a connection."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return ends


def frame(kind: int, body: bytes = b"") -> bytes:
    """Give the bytes of a frame."""
    return _HEAD.pack(len(body), kind) + body


class Sender:
    """Sends on a socket that does not block; what it does not take at once waits here.

    Thread-safe.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._rest = bytearray()
        self._lock = threading.Lock()

    def send(self, data: bytes) -> bool:
        """Send, after all that was sent before; tell whether anything has to wait."""
        with self._lock:
            if self._rest:
                self._rest += data
            else:
                self._rest += data[self._taken(data) :]
            return bool(self._rest)

    def go_on(self) -> bool:
        """Send what has waited; tell whether anything still waits."""
        with self._lock:
            del self._rest[: self._taken(bytes(self._rest[:BUFFER_BYTES]))]
            return bool(self._rest)

    def _taken(self, data: bytes) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # The other side is gone; whoever looks after it will notice.
            return len(data)


class Reader:
    """Takes frames out of what a socket gives. Used by one thread.

    Attributes:
        is_at_end: whether the other side has closed its end.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._bytes = bytearray()
        self.is_at_end = False

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Give the frames that have arrived; a blocking socket waits for the next piece.

        Raises:
            BlockingIOError: nothing has arrived on a socket that does not block.
        """
        try:
            piece = self._socket.recv(_READ_BYTES)
        except ConnectionError:
            piece = b""
        if not piece:
            self.is_at_end = True
        self._bytes += piece
        return self._frames()

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        taken = 0
        while len(self._bytes) - taken >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._bytes, taken)
            end = taken + _HEAD.size + length
            if len(self._bytes) < end:
                break
            yield kind, bytes(memoryview(self._bytes)[taken + _HEAD.size : end])
            taken = end
        if taken:
            del self._bytes[:taken]
