"""Make the message of a bundle: its items, the code they need, and what they refer to."""

from __future__ import annotations

import pickle
from typing import Any

from penstock.core.bundling import BUDGET_SECONDS
from penstock.core.pickling import LARGE_BYTES
from penstock.remote.cargo import Cargo
from penstock.remote.codes import Code, Codes
from penstock.remote.engine import Bundle, Engine
from penstock.remote.messages import Sent


def message_of(
    bundle: Bundle,
    header: bytes,
    engine: Engine,
    codes: Codes,
    given: dict[bytes, tuple[Any, ...]] | None,
) -> bytes:
    """Give the bytes that travel, and note in the bundle what the engine has to bring along.

    Args:
        header: what workers need to know of the flow run.
        codes: knows which code the workers have already.
        given: values that the items wait for, where they do not come from the bundle itself.
    """
    items, sent_codes = [], {}
    for cargo in bundle.cargo.values():
        code = cargo.code
        assert code is not None
        if code.digest not in sent_codes:
            sent_codes[code.digest] = _code_to_send(code, bundle, engine, codes)
        if cargo.parts:
            bundle.parts.update(cargo.parts)
        if cargo.large:
            _share(cargo, bundle, engine)
        items.append(cargo.item())
    sent = (bundle.id, header, sent_codes, items, BUDGET_SECONDS, None, given)
    return pickle.dumps(sent, 5)


def raw_message(bundle: Bundle, header: bytes, key: bytes, code: bytes) -> bytes:
    """Give the bytes of a callable that belongs to no flow run."""
    sent = Sent(bundle.id, header, {}, [], BUDGET_SECONDS, (key, code))
    return pickle.dumps(tuple(sent), 5)


def _code_to_send(code: Code, bundle: Bundle, engine: Engine, codes: Codes) -> bytes | None:
    """Give code that has to travel in the message; what is large is shared like an argument."""
    data = codes.to_send(code, engine.names())
    if data is None or len(data) < LARGE_BYTES:
        return data
    bundle.parts[code.digest] = codes.shared(code, engine.share)
    return None


def _share(cargo: Cargo, bundle: Bundle, engine: Engine) -> None:
    """Put the large buffers of a call where its worker can get them, while it is open."""
    cargo.shared = []
    for large in cargo.large:
        shared = engine.share(large.digest, large.buffer)
        cargo.shared.append(shared)
        bundle.parts[large.digest] = shared
    cargo.let_go_of_large()
