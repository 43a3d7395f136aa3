"""What workers print: read line by line, and written where the driver prints."""

from __future__ import annotations

import codecs
import os
import selectors
import sys
import threading
from contextlib import suppress
from typing import IO, Any

_PIECE_BYTES = 64 * 1024


class Output:
    """Passes on what comes out of two pipes, until it is closed.

    A worker prints into the pipes as any program does, C code included. The driver writes it to
    its own `sys.stdout` and `sys.stderr`, wherever those lead: a terminal below a live block, a
    notebook, a file.

    Args:
        out, err: the pipes, from which nobody else reads.
    """

    def __init__(self, out: IO[bytes] | None, err: IO[bytes] | None) -> None:
        self._pipes = [pipe for pipe in (out, err) if pipe is not None]
        self._selector = selectors.DefaultSelector()
        for name, pipe in (("stdout", out), ("stderr", err)):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe, selectors.EVENT_READ, _Stream(name))
        self._bell, self._rope = os.pipe()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="penstock-output", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Pass on what is there, and read no more."""
        os.write(self._rope, b"\0")
        self._thread.join()
        for pipe in self._pipes:
            pipe.close()
        self._selector.close()
        os.close(self._bell)
        os.close(self._rope)

    def descriptors(self) -> frozenset[int]:
        """Give the descriptors that live as long as it does."""
        ends = [self._bell, self._rope, self._selector.fileno()]
        return frozenset([*ends, *(pipe.fileno() for pipe in self._pipes)])

    def _serve(self) -> None:
        is_over = False
        while not is_over:
            for key, _ in self._selector.select():
                if key.data is None:
                    is_over = True
                elif not self._pass_on(key):
                    self._selector.unregister(key.fileobj)
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                while self._pass_on(key):
                    pass
                key.data.end()

    def _pass_on(self, key: Any) -> bool:
        try:
            piece = os.read(key.fd, _PIECE_BYTES)
        except BlockingIOError:
            return False
        key.data.write(piece)
        return bool(piece)


class _Stream:
    """Writes whole lines to one of the driver's streams, whatever that is at the moment."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""

    def write(self, piece: bytes) -> None:
        """Take in a piece."""
        text = self._rest + self._decoder.decode(piece)
        lines, newline, self._rest = text.rpartition("\n")
        if newline:
            self._put(lines + newline)

    def end(self) -> None:
        """Write what is left, which nobody ended with a new line."""
        if self._rest:
            self._put(self._rest)

    def _put(self, text: str) -> None:
        # The stream may be closed, or refuse what it cannot encode: that is no reason to stop.
        with suppress(Exception):
            stream = getattr(sys, self._name)
            stream.write(text)
            stream.flush()
