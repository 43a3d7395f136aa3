"""What is called off while it travels."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

from penstock.remote.called_off import CalledOff
from penstock.remote.engine import Bundle
from penstock.remote.messages import CANCEL


class Engine:
    """Notes the words that it is to bring."""

    def __init__(self) -> None:
        self.words: list[Any] = []

    def tell_about(self, bundle: Any, data: bytes) -> None:
        self.words.append(pickle.loads(data))


def bundle_of(*keys: bytes) -> Bundle:
    bundle = Bundle(None, ())
    bundle.cargo = dict.fromkeys(keys, SimpleNamespace())  # type: ignore[arg-type]
    return bundle


def test_what_has_ended_meanwhile_is_left_out() -> None:
    engine: Any = Engine()
    called_off = CalledOff(engine, lambda bundle: next(iter(bundle.cargo)))
    empty, half = bundle_of(), bundle_of(b"2", b"3")
    for bundle, key in ((half, b"1"), (half, b"2"), (empty, b"4")):
        called_off.add(bundle, CANCEL, key)
    called_off.send()
    assert engine.words == [(b"2", (CANCEL, [b"2"]))]
