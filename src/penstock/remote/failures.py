"""Exceptions, and states that hold them, as records of built-in types, and back.

A record can always be read, shown and stored, whatever classes exist where it arrives. The object
itself rides along, pickled, where that works; `from_record` uses it when it can.

An exception with all that hangs on it (causes, contexts, members of groups) becomes a flat list,
whose entries name each other by index: what is shared stays shared, and cycles are no problem.

The remote traceback is rebuilt as `__traceback__`, out of frames that only know their file, line
and name: tracebacks show it as if the exception had been raised here, and `str(exc)`,
`__notes__`, `__cause__` and `__context__` are what they were. Source lines are shown where the
file is there. A `RemoteTaskError` carries the traceback in its text instead.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from functools import partial
from traceback import extract_tb, format_list, walk_tb
from types import FrameType, FunctionType, TracebackType
from typing import Any

from penstock.core.pickling import dump_bounded
from penstock.core.previews import mask_secrets
from penstock.errors import RemoteTaskError, SerializationError, TerminationSignal
from penstock.history.text import LONGEST_PAYLOAD, clean_text
from penstock.remote.parcels import dump_value
from penstock.runtime.errors import describe
from penstock.states import State, StateType, describe_exception

LONGEST_PICKLE = 2**20
"""A larger exception is sent as text."""

DEEPEST_CHAIN = 20
"""Causes of causes that are followed."""

MOST_EXCEPTIONS = 200
"""Exceptions in one record, members of groups included."""

MOST_FRAMES = 100
"""Frames of one traceback: a quarter are the outermost, the rest the innermost."""

MOST_NOTES = 100

Record = dict[str, Any]
"""What an exception becomes; `type`, `module`, `message` and `traceback` are its own texts, with
secrets masked, and `exceptions` the list that it is rebuilt from, itself first."""


def to_record(exc: BaseException) -> Record:
    """Turn an exception into built-in values; never raises, whatever the exception does."""
    told = describe(exc)
    kind = type(exc)
    found: list[tuple[BaseException, int]] = [(exc, 0)]
    indices = {id(exc): 0}
    entries = []
    for each, depth in found:  # grows meanwhile
        entries.append(_entry(each, partial(_index, depth + 1, found, indices)))
    return {
        "type": kind.__qualname__,
        "module": kind.__module__,
        "message": told["message"],
        "traceback": told["traceback"],
        "exceptions": entries,
    }


def _index(
    depth: int,
    found: list[tuple[BaseException, int]],
    indices: dict[int, int],
    exc: BaseException | None,
) -> int | None:
    if exc is None:
        return None
    if id(exc) not in indices:
        if depth > DEEPEST_CHAIN or len(found) >= MOST_EXCEPTIONS:
            return None
        indices[id(exc)] = len(found)
        found.append((exc, depth))
    return indices[id(exc)]


def _entry(exc: BaseException, index: Callable[[BaseException | None], int | None]) -> Record:
    pickled = _pickled(exc)
    members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    entry: Record = {
        "pickled": pickled,
        "notes": _notes(exc),
        "frames": _frames(exc.__traceback__),
        "cause": index(exc.__cause__),
        "context": index(exc.__context__),
        "suppress_context": exc.__suppress_context__,
        "members": [index(member) for member in members],
    }
    if pickled is None:
        entry["text"] = _text(exc)
        if isinstance(exc, BaseExceptionGroup) and type(exc).__module__ == "builtins":
            entry["group"] = exc.message
    return entry


def _notes(exc: BaseException) -> list[str] | None:
    notes = getattr(exc, "__notes__", None)
    if not isinstance(notes, list | tuple):
        return None
    return [str.__str__(note) for note in notes[:MOST_NOTES] if isinstance(note, str)]


def _frames(traceback: TracebackType | None) -> list[tuple[str, str, int]]:
    """Give file, function and line of each frame, the outermost first."""
    outer = MOST_FRAMES // 4
    frames = [
        (frame.f_code.co_filename, frame.f_code.co_qualname, line)
        for frame, line in walk_tb(traceback)
    ]
    return frames if len(frames) <= MOST_FRAMES else frames[:outer] + frames[outer - MOST_FRAMES :]


def _text(exc: BaseException) -> str:
    """Phrase an exception that travels as text, with its own part of the traceback."""
    text = f"{type(exc).__module__}.{describe(exc)['message']}"
    try:
        lines = "".join(format_list(extract_tb(exc.__traceback__, limit=-MOST_FRAMES)))
    except Exception:
        lines = ""
    if lines:
        text += f"\n\nOn the worker:\nTraceback (most recent call last):\n{mask_secrets(lines)}"
    return clean_text(text.rstrip(), LONGEST_PAYLOAD)


def _pickled(exc: BaseException) -> bytes | None:
    """Pickle an exception; None unless that gives the same exception back.

    Many classes do not survive: their constructor takes other arguments than those that
    `BaseException` remembers. They are rebuilt without their constructor.
    """
    told = describe_exception(exc)
    for form in (_AsItself(exc), _WithoutConstructor(exc)):
        try:
            data = dump_bounded(form, LONGEST_PICKLE)
            if data is None:
                return None
            loaded = pickle.loads(data)
            # A constructor may take its own text for something else: "code code 5".
            if type(loaded) is type(exc) and describe_exception(loaded) == told:
                return data
        except BaseException as problem:
            _pass_on_interrupts(problem)
    return None


class _AsItself:
    """Pickles as an exception does by itself.

    Other libraries may have registered ways to pickle exceptions that take tracebacks along and
    lose attributes: Dask does on its workers.
    """

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    def __reduce__(self) -> Any:
        return self.exc.__reduce_ex__(5)


class _WithoutConstructor:
    """Pickles as a call that rebuilds an exception without calling its class's constructor."""

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self.exc)
        reduced: Any = _built_in_base(kind).__reduce__(self.exc)
        _, args, *state = reduced
        return _construct, (kind, args, state[0] if state else None)


def _built_in_base(kind: type[BaseException]) -> type[BaseException]:
    return next(each for each in kind.__mro__ if each.__module__ == "builtins")


def _construct(
    kind: type[BaseException], args: tuple[object, ...], state: dict[str, object] | None
) -> BaseException:
    base = _built_in_base(kind)
    exc = base.__new__(kind, *args)
    base.__init__(exc, *args)
    if state:
        exc.__setstate__(state)
    return exc


def _pass_on_interrupts(problem: BaseException) -> None:
    """Raise what is meant for the whole program; an exception's own code may raise anything."""
    if isinstance(problem, KeyboardInterrupt | TerminationSignal):
        raise problem


def from_record(record: Record) -> BaseException:
    """Rebuild an exception: of its own class where that can be, else a `RemoteTaskError`.

    Never raises, also not for a damaged record; running code of the exception's class, it may
    take as long as that does.
    """
    try:
        entries = record["exceptions"]
        made: dict[int, BaseException] = {}
        for index in reversed(range(len(entries))):
            _make(index, entries, record, made)
        for index, exc in made.items():
            _dress(exc, entries[index], made)
        return made[0]
    except BaseException as problem:
        _pass_on_interrupts(problem)
        return RemoteTaskError(
            f"An exception arrived that cannot be read here: {describe_exception(problem)}."
        )


def _make(
    index: int, entries: list[Record], record: Record, made: dict[int, BaseException]
) -> None:
    """Make the exception at an index; members of a group come with it where they can."""
    if index in made:
        return
    entry = entries[index]
    exc = _loaded(entry["pickled"])
    members = [member for member in entry["members"] if member is not None]
    if exc is not None:
        if isinstance(exc, BaseExceptionGroup):
            _adopt(exc, entry["members"], entries, made)
    elif "group" in entry and members:
        for member in members:
            _make(member, entries, record, made)
        exc = BaseExceptionGroup(entry["group"], [made[member] for member in members])
    made[index] = exc or RemoteTaskError(_remote_text(index, entry, record))


def _adopt(
    group: BaseExceptionGroup[BaseException],
    members: list[int | None],
    entries: list[Record],
    made: dict[int, BaseException],
) -> None:
    """Let the members that came inside a group's pickle stand for their entries."""
    for index, member in zip(members, group.exceptions, strict=False):
        if index is None:
            continue
        made[index] = member
        if isinstance(member, BaseExceptionGroup):
            _adopt(member, entries[index]["members"], entries, made)


def _loaded(pickled: bytes | None) -> BaseException | None:
    if pickled is None:
        return None
    try:
        loaded = pickle.loads(pickled)
    except BaseException as problem:
        _pass_on_interrupts(problem)
        return None
    return loaded if isinstance(loaded, BaseException) else None


def _remote_text(index: int, entry: Record, record: Record) -> str:
    if "text" in entry and index:
        return str(entry["text"])
    if index:
        return f"An exception of the worker cannot be rebuilt here.\n\n{_listed(entry)}".rstrip()
    text = f"{record['module']}.{record['message']}"
    return f"{text}\n\nOn the worker:\n{record['traceback']}".rstrip()


def _listed(entry: Record) -> str:
    return "".join(
        f'  File "{file}", line {line}, in {name}\n' for file, name, line in entry["frames"]
    )


def _dress(exc: BaseException, entry: Record, made: dict[int, BaseException]) -> None:
    """Put back what hangs on an exception and does not travel in its pickle."""
    notes = entry["notes"]
    if notes is not None and getattr(exc, "__notes__", None) != notes:
        exc.__notes__ = list(notes)
    # Setting a cause suppresses the context: that flag comes last.
    exc.__cause__ = _at(entry["cause"], made)
    exc.__context__ = _at(entry["context"], made)
    exc.__suppress_context__ = entry["suppress_context"]
    if not isinstance(exc, RemoteTaskError) or entry["pickled"] is not None:
        exc.__traceback__ = _traceback(entry["frames"])


def _at(index: int | None, made: dict[int, BaseException]) -> BaseException | None:
    return None if index is None else made.get(index)


def _traceback(frames: Iterable[tuple[str, str, int]]) -> TracebackType | None:
    """Make a traceback of frames that were never executed here."""
    made: TracebackType | None = None
    for file, name, line in reversed(list(frames)):
        # Without an instruction, tracebacks take the line from here and underline nothing.
        made = TracebackType(made, _frame(file, name), -1, max(line or 1, 1))
    return made


def _stub() -> Any:
    yield


def _frame(file: str, name: str) -> FrameType:
    """Give the frame of a generator that has not started: it refers to no caller."""
    short = name.rpartition(".")[2]
    code = _stub.__code__.replace(co_filename=file, co_name=short, co_qualname=name)
    frame: FrameType = FunctionType(code, {"__name__": "<worker>"})().gi_frame
    return frame


# --- states ----------------------------------------------------------------------------------

StateRecord = tuple[Any, ...]
"""Type, name, message, time, run key, kind of data, data."""

_COLLECTIONS: dict[str, Callable[[Iterable[Any]], Any]] = {"list": list, "tuple": tuple, "set": set}


def state_to_record(state: State, *, with_value: bool = False) -> StateRecord:
    """Turn a state into built-in values.

    Args:
        state: the state; states inside its data come whole.
        with_value: whether a COMPLETED state brings its value, which mostly travels elsewhere.

    Raises:
        SerializationError: the data is a value of the user's own that cannot be pickled.
    """
    leave_out = state.type is StateType.COMPLETED and not with_value
    form, data = ("none", None) if leave_out else _data_record(state.data)
    message = None if state.message is None else _as_text(state.message)
    name = _as_text(state.name)
    return str(state.type.value), name, message, state.at, state.run_key, form, data


def state_from_record(record: StateRecord, run_key: bytes | None) -> State:
    """Rebuild a state as that of a run; a COMPLETED one has no data when it came without."""
    kind, name, message, at, _, form, data = record
    return State(StateType(kind), name, message, at, _data_from(form, data), run_key)


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _data_record(data: Any) -> tuple[str, Any]:
    if data is None:
        return "none", None
    if isinstance(data, BaseException):
        return "exception", to_record(data)
    if isinstance(data, State):
        return "state", state_to_record(data, with_value=True)
    form = type(data).__name__
    if type(data) in (list, tuple, set) and data and all(isinstance(each, State) for each in data):
        return form, [state_to_record(each, with_value=True) for each in data]
    return "pickle", dump_value(data, "the data of the state")


def _data_from(form: str, data: Any) -> Any:
    if form == "none":
        return None
    if form == "exception":
        return from_record(data)
    if form == "state":
        return state_from_record(data, data[4])
    if form == "pickle":
        return _value(data)
    return _COLLECTIONS[form](state_from_record(each, each[4]) for each in data)


def _value(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception as exc:
        # The state is a failed one: its data then says why it has none.
        return SerializationError(
            f"The data of the state cannot be rebuilt here: {describe_exception(exc)}."
        )
