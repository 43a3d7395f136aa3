"""Task runs that are called off while they travel: told to their workers in groups."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from penstock.remote.engine import Bundle, Engine


class CalledOff:
    """Collects what is called off, and sends one word for each bundle. Used by one thread.

    Args:
        engine: what brings words to workers.
        header_of: gives what workers know the flow run of a bundle by.
    """

    def __init__(self, engine: Engine, header_of: Callable[[Bundle], bytes]) -> None:
        self._engine = engine
        self._header_of = header_of
        self._keys: dict[tuple[Bundle, int], list[bytes]] = {}

    def add(self, bundle: Bundle, kind: int, key: bytes) -> None:
        """Collect a task run of a bundle; `kind` is CANCEL or RECALL."""
        self._keys.setdefault((bundle, kind), []).append(key)

    def send(self) -> None:
        """Send what was collected."""
        while self._keys:
            (bundle, kind), called_off = self._keys.popitem()
            # What has ended or come back meanwhile is no longer there to be told about.
            keys = [key for key in called_off if key in bundle.cargo]
            if not keys:
                continue
            word = pickle.dumps((self._header_of(bundle), (kind, keys)), 5)
            self._engine.tell_about(bundle, word)
