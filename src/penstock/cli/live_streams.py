"""What stands in front of stdout and stderr while a block is shown below them."""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from penstock.cli.live_block import LiveBlock


class StreamInFront(io.TextIOBase):
    """Stands for stdout or stderr: what is written to it appears above the block."""

    def __init__(self, stream: TextIO, block: LiveBlock) -> None:
        self._stream = stream
        self._block: LiveBlock | None = block
        self.buffer = _BytesInFront(self)

    # Handlers made during the run may hold this stream for longer than the block lives.
    def detach_block(self) -> None:
        """Write straight to the stream from now on."""
        self._block = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        block = self._block
        if block is None:
            return self._stream.write(text)
        block.write_above(self._stream, text)
        return len(text)

    def flush(self) -> None:
        if self._block is None:
            self._stream.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


class _BytesInFront(io.RawIOBase):
    """The `.buffer` of a `StreamInFront`."""

    def __init__(self, text: StreamInFront) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._text.write(bytes(data).decode(self._text.encoding, "replace"))
        return len(data)


@contextlib.contextmanager
def in_front(block: LiveBlock) -> Iterator[None]:
    """Let everything this process prints to its terminal appear above a block."""
    before = (sys.stdout, sys.stderr)
    fronts = {stream: StreamInFront(stream, block) for stream in before if stream.isatty()}
    handlers = _redirect_handlers(fronts)
    sys.stdout, sys.stderr = (cast(TextIO, fronts.get(each, each)) for each in before)
    try:
        with _asking_without(block, before):
            yield
    finally:
        sys.stdout, sys.stderr = before
        for handler, stream in handlers:
            handler.stream = stream
        block.close()
        for front in fronts.values():
            front.detach_block()


def _redirect_handlers(
    fronts: dict[TextIO, StreamInFront],
) -> list[tuple[logging.StreamHandler[Any], Any]]:
    """Turn the log handlers that write to the terminal to what stands in front of it."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    changed = []
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            stream = getattr(handler, "stream", None)
            if isinstance(handler, logging.StreamHandler) and stream in fronts:
                changed.append((handler, stream))
                handler.stream = fronts[stream]
    return changed


@contextlib.contextmanager
def _asking_without(block: LiveBlock, real: tuple[TextIO, TextIO]) -> Iterator[None]:
    """Take the block away while a person is asked; after a breakpoint it stays away."""
    ask, stop = builtins.input, sys.breakpointhook

    def input_below(prompt: object = "", /) -> str:
        fronts = (sys.stdout, sys.stderr)
        block.pause()
        # With the real streams `input` edits lines and keeps its history.
        sys.stdout, sys.stderr = real
        try:
            return ask(prompt)
        finally:
            sys.stdout, sys.stderr = fronts
            block.resume()

    def breakpoint_below(*args: Any, **kwargs: Any) -> Any:
        block.pause()
        if os.environ.get("PYTHONBREAKPOINT") or args or kwargs:
            return stop(*args, **kwargs)
        import pdb  # noqa: T100 - this is what `breakpoint()` does

        # The debugger begins in the user's frame, not in this one.
        return pdb.Pdb(skip=["penstock.cli.*"]).set_trace(sys._getframe().f_back)

    builtins.input, sys.breakpointhook = input_below, breakpoint_below
    try:
        yield
    finally:
        builtins.input, sys.breakpointhook = ask, stop
