"""Values of task runs that ended elsewhere: encoded there, decoded here when somebody asks.

small, or up to 64 KiB   travels with the report, stays bytes until it is asked for
larger                   stays on the engine; fetched when it is asked for
persisted                lies in the result storage; read from there when it is asked for
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any

from penstock.errors import SerializationError
from penstock.remote.messages import INLINE, KEPT, Value
from penstock.remote.parcels import Resolver, pack, resolving, unpack
from penstock.results.kept import load_kept
from penstock.results.references import STORED, reference_of
from penstock.results.small import decode_small, encode_small
from penstock.states import State, StateType, describe_exception

INLINE_LIMIT = 64 * 1024
"""The largest value, in bytes once encoded, that travels with the report."""
OWN = "own"
"""The codec of a kept value that refers to things of the engine's own."""
_MOST_LOOKED_THROUGH = 2**20  # what a pickle writes at once beyond that is one long text or buffer
HEAVY_BYTES = 256 * 2**20
"""The size of a result above which bringing it to the driver is warned of."""
logger = logging.getLogger("penstock.remote")
_NOTHING: Any = object()


def encode(
    value: Any,
    keep: Callable[[Any], tuple[str, int]],
    own: bytes | None = None,
    resolver: Resolver | None = None,
    held: tuple[bytes | None, str | None] = (None, None),
) -> Value:
    """Encode the value of a task run on the worker that made it.

    Args:
        keep: keeps a value that is not small on the engine; gives its name and size in bytes.
        own: what occurs in the pickle of a value that has to be kept, whatever its size: it
            refers to things of the engine's own that end with it.
        resolver: gives what the futures in it stand for.
        held: what the history is to keep of it and its codec, where it has been kept already.

    Raises:
        SerializationError: it cannot be turned into bytes, so it could never leave.
    """
    data, codec = held
    if codec == STORED and data is not None:
        return Value(INLINE, data, STORED, reference_of(data).size, False)
    if data is None:
        data, codec = encode_small(value)
    if data is not None:
        if codec == "pickle":
            if own is not None and own in data:
                return _kept(keep(value), OWN)
            _check(data, resolver)
        return Value(INLINE, data, codec, len(data), True)
    measure = _Measure(own)
    data = _pickled(value, measure)
    if measure.has_own:
        return _kept(keep(value), OWN)
    if data is None:
        return _kept(keep(value), None)
    return Value(INLINE, data, "parcel", len(data), False)


def _kept(named: tuple[str, int], codec: str | None) -> Value:
    name, size = named
    return Value(KEPT, name, codec, size, False)


def _check(data: bytes, resolver: Resolver | None) -> None:
    """See that a pickled value can be loaded again before it is promised."""
    try:
        with resolving(resolver):
            pickle.loads(data)
    except Exception as exc:
        raise SerializationError(
            "The result was turned into bytes that cannot be turned back: "
            f"{describe_exception(exc)}. Return plain data instead."
        ) from exc


class _Measure:
    """A file that keeps nothing and knows how much was written to it."""

    def __init__(self, own: bytes | None = None) -> None:
        self.size = 0
        self.has_own = False
        self._own = own

    def write(self, chunk: Any) -> int:
        size = memoryview(chunk).nbytes
        self.size += size
        if self._own is not None and size < _MOST_LOOKED_THROUGH and self._own in bytes(chunk):
            self.has_own = True
        return size

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        self.size += memoryview(buffer).nbytes
        return False


def _pickled(value: Any, measure: _Measure) -> bytes | None:
    """Pickle a value that fits the report; None for a larger one, which can be pickled as well."""
    try:
        # To its end, also when it is too large: what could never leave has to fail here.
        pickle.Pickler(measure, 5, buffer_callback=measure.take).dump(value)
    except Exception:
        pass  # what plain pickle cannot do, the parcel may
    else:
        if measure.size > INLINE_LIMIT:
            return None
    parcel = pack((value,), ("result",))
    return None if parcel.large or len(parcel.data) > INLINE_LIMIT else parcel.data


def whole(value: Any, name: str = "result") -> Value:
    """Encode a value of any size, large buffers included; errors call it by its name."""
    parcel = pack((value,), (name,))
    large = {part.digest: bytes(part.buffer) for part in parcel.large}
    return Value(INLINE, (parcel.data, large), "whole", len(parcel.data), False)


def decode(value: Value, resolver: Resolver | None = None) -> Any:
    """Decode a value that travelled with a report.

    Args:
        resolver: gives what the futures in it stand for.

    Raises:
        SerializationError: it cannot be rebuilt in this process.
        ResultStorageError: it was stored, and is not there as it was.
    """
    if value.codec == STORED:
        return load_kept(value.data, STORED)
    try:
        if value.codec == "json":
            return decode_small(value.data, "json")  # the most common, and it holds no futures
        if value.is_small:
            with resolving(resolver):
                return decode_small(value.data, value.codec or "")
        data, large = value.data if value.codec == "whole" else (value.data, {})
        return unpack(data, large, resolver)[0]
    except Exception as exc:
        raise not_rebuilt(exc) from exc


def not_rebuilt(exc: Exception) -> SerializationError:
    """Say that a value has arrived, and why nothing can be made of it."""
    return SerializationError(
        f"The result cannot be rebuilt in this process: {describe_exception(exc)}. What the "
        "worker could import must be importable here as well."
    )


class Fetch:
    """How a kept value is fetched; an engine makes one for each. Released when it is dropped.

    Attributes:
        native: what stands for the value on the engine itself.
        engine: what keeps it.
        worker: where it is.
        recipe: what it takes to make the value again; None where that is not known.
    """

    native: Any
    engine: Any = None
    worker: str
    recipe: Any = None

    @property
    def name(self) -> str:
        """The name under which it is kept now; making it again gives it another one."""
        raise NotImplementedError

    @property
    def is_lost(self) -> bool:
        """Whether the engine has said that it has the value no more."""
        return False

    def fetch(self) -> Any:
        """Bring the value here; blocks.

        Raises:
            CrashedRun: the value is lost.
        """
        raise NotImplementedError

    def hold(self) -> None:
        """See that the engine keeps the value until the flow run ends: its user refers to it."""


class ArrivedState(State):
    """The COMPLETED state of a task run that ended elsewhere; its data is decoded on demand.

    Attributes:
        resolver: gives what the futures in the data stand for; None where nothing does.
    """

    __slots__ = ("_data", "fetch", "resolver", "value")

    def __init__(
        self,
        value: Value,
        fetch: Fetch | None,
        at: int,
        key: bytes,
        name: str | None = None,
        message: str | None = None,
    ) -> None:
        self.value = value
        self.fetch = fetch
        self.resolver: Resolver | None = None
        self._data: Any
        super().__init__(StateType.COMPLETED, name, message, at, _NOTHING, key)

    @property
    def is_here(self) -> bool:
        """Whether the value has arrived in this process already."""
        return self._data is not _NOTHING

    @property
    def is_at_hand(self) -> bool:
        return self.is_here or (self.fetch is None and self.value.codec != STORED)

    @property
    def data(self) -> Any:
        """The value; asking for it the first time may fetch it from the engine."""
        if self._data is _NOTHING:
            if self.fetch is None:
                self._data = decode(self.value, self.resolver)
            else:
                self._data = self._fetched(self.fetch)
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        self._data = data

    def _fetched(self, fetch: Fetch) -> Any:
        if self.value.size > HEAVY_BYTES:
            logger.warning(
                "The value %s takes %s MiB and is brought to this process. Pass its future to a "
                "task that reduces it: then it moves from worker to worker.",
                self.value.data,
                f"{self.value.size / 2**20:,.0f}",
            )
        with resolving(self.resolver):
            value = fetch.fetch()
        if self.value.codec == OWN:
            fetch.hold()
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (self.type, self.name, self.message, self.at, self.data, self.run_key)

    def small(self) -> tuple[bytes | None, str | None]:
        """Give the value as the history keeps it; (None, None) when it does not."""
        is_held = self.value.is_small or self.value.codec == STORED
        return (self.value.data, self.value.codec) if is_held else (None, None)


def fetched(state: State) -> Any:
    """Fetch a value, without leaving a copy behind where it was kept for whoever asks for it."""
    if isinstance(state, ArrivedState) and not state.is_here and state.fetch is not None:
        return state.fetch.fetch()
    return state.data
