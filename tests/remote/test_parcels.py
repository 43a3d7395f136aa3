from __future__ import annotations

import array
import math
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import OrderedDict
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import task
from penstock.core import pickling
from penstock.core.pickling import LARGE_BYTES
from penstock.errors import MissingDependencyError, SerializationError, TerminationSignal
from penstock.remote import parcels
from penstock.remote.parcels import (
    MEMO_ENTRIES,
    Parcel,
    Placeholder,
    pack,
    pack_code,
    unpack,
    unpack_code,
)
from tests.remote import definitions
from tests.remote.definitions import Pair, Point

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("a", "b", "c", "d")

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
    | st.just(...)
)
hashable = st.recursive(
    scalars | st.decimals(allow_nan=False) | st.fractions() | st.datetimes() | st.uuids(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
nested = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=20,
)


def arrived(parcel: Parcel, resolver: Any = None) -> tuple[Any, ...]:
    """Unpack a parcel whose large parts were copied, as on another machine."""
    large = {digest: bytes(buffer) for digest, buffer in parcel.large}
    return unpack(parcel.data, large, resolver)


def elsewhere(code: str, sent: bytes = b"") -> bytes:
    """Run code in a fresh process with bytes on its standard input; give its output."""
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, cwd=ROOT, timeout=50
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def problem_of(*values: Any) -> str:
    with pytest.raises(SerializationError) as caught:
        pack(values, NAMES)
    return str(caught.value)


# --- what is accepted comes back ---------------------------------------------------------------


@given(st.lists(nested, max_size=4).map(tuple))
def test_values_come_back(values: tuple[Any, ...]) -> None:
    assert arrived(pack(values, NAMES)) == values


@given(st.lists(scalars, max_size=4).map(tuple))
def test_scalars_come_back_exactly(values: tuple[Any, ...]) -> None:
    got = arrived(pack(values, NAMES))
    assert list(map(type, got)) == list(map(type, values))
    assert got == values


def test_not_a_number_comes_back() -> None:
    assert math.isnan(arrived(pack((math.nan,), NAMES))[0])


def test_lone_surrogates_come_back() -> None:
    assert arrived(pack(("\ud800", "\udc80" * LARGE_BYTES), NAMES))[1][0] == "\udc80"


def test_values_come_back_in_a_fresh_process() -> None:
    values = (
        Point([1, (2, 3)], {"k": Pair(Decimal("1.5"), Fraction(1, 3))}),
        OrderedDict(a=datetime(2024, 1, 2)),
        definitions.Multiplier,
        definitions.guarded,
    )
    code = (
        "import sys\n"
        "from penstock.remote.parcels import pack, unpack\n"
        "values = unpack(sys.stdin.buffer.read(), {})\n"
        "sys.stdout.buffer.write(pack(values, 'abcd').data)"
    )
    assert unpack(elsewhere(code, pack(values, NAMES).data), {}) == values


def test_same_object_stays_one_object() -> None:
    inner = [1]
    first, second, third = arrived(pack((inner, {"k": inner}, inner), NAMES))
    assert first is second["k"]
    assert first is third


def test_cycle_comes_back() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    (got,) = arrived(pack((cycle,), NAMES))
    assert got[1] is got


# --- functions and classes ---------------------------------------------------------------------


def test_lambda_and_closure_travel() -> None:
    offset = 5
    first, second = arrived(pack((lambda x: x + offset, [lambda: offset]), NAMES))
    assert first(1) == 6
    assert second[0]() == 5


def test_local_class_travels() -> None:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

    assert arrived(pack((Local(3),), NAMES))[0].x == 3


SCRIPT = """
import sys
from penstock.remote.parcels import pack
FACTOR = 7
class Scaled:
    def __init__(self, x): self.x = x
    def value(self): return self.x * FACTOR
def scale(x): return x * FACTOR
sys.stdout.buffer.write(pack((scale, Scaled(2), [Scaled]), 'abc').data)
"""


def test_what_a_script_defines_travels_by_value() -> None:
    scale, scaled, classes = unpack(elsewhere(SCRIPT), {})
    assert scale(2) == 14  # type: ignore[operator]
    assert scaled.value() == 14  # type: ignore[attr-defined]
    assert type(scaled) is classes[0]  # type: ignore[index]


def test_importable_function_is_a_reference() -> None:
    assert arrived(pack((definitions.plain,), NAMES)) == (definitions.plain,)


def test_function_below_a_task_is_a_reference() -> None:
    # By value it would need the lock that it uses.
    function, made = arrived(
        pack((definitions.guarded.fn, partial(definitions.wrapped.fn, 4)), NAMES)
    )
    assert function is definitions.guarded.fn
    assert made() == 8


def test_module_sent_by_value_on_request() -> None:
    import cloudpickle

    module = sys.modules[definitions.__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        parcel = pack((definitions.Multiplier(2),), NAMES)
        code = pack_code(definitions.quadruple)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert b"_make_skeleton_class" in parcel.data
    assert b"_make_skeleton_class" in code
    assert arrived(parcel)[0](4) == 8


def test_missing_cloudpickle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    pickling._pickler.cache_clear()
    with pytest.raises(MissingDependencyError, match="requires `cloudpickle`; install it with"):
        pack((lambda: 1,), NAMES)


# --- large parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, str])
@pytest.mark.parametrize("extra", [0, -1])
def test_long_text_and_bytes_leave_the_data(kind: Any, extra: int) -> None:
    value: Any = "x" * (LARGE_BYTES + extra) if kind is str else kind(LARGE_BYTES + extra)
    parcel = pack((value, 1), NAMES)
    assert len(parcel.large) == (extra == 0)
    assert (len(parcel.data) < 500) == (extra == 0)
    got = arrived(parcel)
    assert got == (value, 1)
    assert type(got[0]) is kind


def test_array_leaves_the_data_as_it_is_at_that_moment() -> None:
    numbers = np.arange(LARGE_BYTES, dtype=np.uint8)
    before = numbers.copy()
    parcel = pack(([numbers],), NAMES)
    numbers[:] = 7
    ((got,),) = arrived(parcel)
    assert np.array_equal(got, before)
    assert not got.flags.writeable


def test_equal_content_is_copied_once() -> None:
    parcels = [pack((np.zeros(LARGE_BYTES, dtype=np.uint8),), NAMES) for _ in range(3)]
    buffers = {id(parcel.large[0].buffer) for parcel in parcels}
    assert len(buffers) == 1
    changed = pack((np.ones(LARGE_BYTES, dtype=np.uint8),), NAMES)
    assert changed.large[0].digest != parcels[0].large[0].digest


def test_small_array_stays_writable() -> None:
    (got,) = arrived(pack((np.arange(3),), NAMES))
    got[0] = 9
    assert got.tolist() == [9, 1, 2]


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_either_order_and_views_come_back(order: Any) -> None:
    grid = np.asarray(np.arange(400_000.0).reshape(400, 1000), order=order)
    whole, part = arrived(pack((grid, grid[::2, ::3]), NAMES))
    assert np.array_equal(whole, grid)
    assert np.array_equal(part, grid[::2, ::3])


def test_frame_leaves_the_data() -> None:
    frame = pd.DataFrame({"x": np.arange(300_000), "y": np.arange(300_000) * 0.5})
    parcel = pack((frame, "y"), NAMES)
    assert len(parcel.data) < 5_000
    got, name = arrived(parcel)
    pd.testing.assert_frame_equal(got, frame)
    assert got[name].sum() == frame["y"].sum()


def test_long_list_is_pickled_apart() -> None:
    value = list(range(500_000))
    parcel = pack(({"k": 1}, value), NAMES)
    assert len(parcel.large) == 1
    assert len(parcel.data) < 500
    assert arrived(parcel) == ({"k": 1}, value)


def test_equal_contents_travel_once() -> None:
    first, second = bytes(LARGE_BYTES), bytes(bytearray(LARGE_BYTES))
    assert len(pack((first, second, np.zeros(LARGE_BYTES, np.uint8)), NAMES).large) == 1
    assert pack((first,), NAMES).large[0].digest == pack((second,), NAMES).large[0].digest


def test_one_large_object_at_two_places_stays_one() -> None:
    value = list(range(500_000))
    first, second = arrived(pack((value, value), NAMES))
    assert first is second


def test_owner_may_resize_a_bytearray_that_travels() -> None:
    value = bytearray(LARGE_BYTES)
    parcel = pack((value,), NAMES)
    value.append(1)
    assert arrived(parcel) == (bytearray(LARGE_BYTES),)


def test_fallback_to_cloudpickle_takes_each_buffer_once() -> None:
    numbers = np.zeros(LARGE_BYTES, np.uint8)
    parcel = pack(([numbers, lambda: 1],), NAMES)
    assert len(parcel.large) == 1
    ((got, function),) = arrived(parcel)
    assert got.nbytes == LARGE_BYTES
    assert function() == 1


def test_memo_packs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    digested = []
    real = parcels._large

    def digest(buffer: Any) -> Any:
        digested.append(buffer)
        return real(buffer)

    monkeypatch.setattr(parcels, "_large", digest)
    shared: list[Any] = [np.zeros(LARGE_BYTES, np.uint8)]
    memo: dict[int, Any] = {}
    for number in range(20):
        got = arrived(pack((shared, number), NAMES, memo))
        assert got[1] == number
        assert got[0][0].nbytes == LARGE_BYTES
    assert len(digested) == 1


def test_memo_keeps_what_is_used_and_stays_small() -> None:
    shared = bytes(LARGE_BYTES)
    memo: dict[int, Any] = {}
    for number in range(MEMO_ENTRIES + 5):
        pack((shared, bytes([number]) * LARGE_BYTES), NAMES, memo)
        assert id(shared) in memo
    assert len(memo) == MEMO_ENTRIES


def test_memo_leaves_small_arguments_alone() -> None:
    memo: dict[int, Any] = {}
    assert arrived(pack(({"k": 1}, [2]), NAMES, memo)) == ({"k": 1}, [2])
    assert not memo


def test_missing_part_is_named() -> None:
    parcel = pack((bytes(LARGE_BYTES),), NAMES)
    with pytest.raises(SerializationError, match=parcel.large[0].digest):
        unpack(parcel.data, {})


# --- placeholders ------------------------------------------------------------------------------


def test_placeholders_become_values_anywhere() -> None:
    known = {("run", 1): [1, 2], 7: "seven"}
    one, seven = Placeholder(("run", 1)), Placeholder(7)
    values = (one, {seven: [one]}, Point(seven, Pair(one, {seven})), bytes(LARGE_BYTES))
    got = arrived(pack(values, NAMES), known.__getitem__)
    assert got[:2] == ([1, 2], {"seven": [[1, 2]]})
    assert got[2] == Point("seven", Pair([1, 2], {"seven"}))
    assert got[0] is got[1]["seven"][0] is known["run", 1]


def test_placeholder_needs_a_resolver() -> None:
    with pytest.raises(SerializationError, match="Unpack them with a resolver"):
        arrived(pack((Placeholder(1),), NAMES))


def test_resolvers_nest_and_end() -> None:
    inner = pack((Placeholder(1),), NAMES)
    outer = pack((Placeholder(2), Placeholder(3)), NAMES)

    def resolver(token: Any) -> Any:
        return unpack(inner.data, {}, lambda token: f"inner {token}") if token == 2 else "outer"

    assert arrived(outer, resolver) == (("inner 1",), "outer")
    with pytest.raises(SerializationError):
        arrived(inner)


def test_resolver_belongs_to_its_thread() -> None:
    data = pack((Placeholder(1),), NAMES).data
    refused: list[BaseException] = []

    def other_thread() -> None:
        try:
            unpack(data, {})
        except SerializationError as exc:
            refused.append(exc)

    def resolver(token: Any) -> Any:
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        return token

    assert unpack(data, {}, resolver) == (1,)
    assert len(refused) == 1


# --- what cannot travel ------------------------------------------------------------------------


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Config:
    def __init__(self, db: Any) -> None:
        self.db = db

    def __repr__(self) -> str:
        raise AssertionError("never called")


class Refusing:
    def __init__(self, problem: BaseException) -> None:
        self.problem = problem

    def __reduce__(self) -> Any:
        raise self.problem


class Careful:
    """Leaves what cannot travel behind."""

    def __init__(self, broken: Any = None) -> None:
        self.guard = threading.Lock()
        self.broken = broken

    def __getstate__(self) -> dict[str, Any]:
        return {"broken": self.broken}


def test_path_to_the_culprit() -> None:
    connection = sqlite3.connect(":memory:")
    config = Config([1, 2, 3, {"key": connection}])
    text = problem_of(1, config)
    connection.close()
    assert text == (
        "argument 'b' -> .db -> [3] -> ['key'] : sqlite3.Connection cannot be pickled: "
        "TypeError: cannot pickle 'sqlite3.Connection' object; open it inside the task."
    )


def test_argument_itself_is_the_culprit() -> None:
    text = problem_of(threading.Lock())
    assert text.startswith("argument 'a' : _thread.lock cannot be pickled: TypeError: ")
    assert text.endswith("run the task on the ConcurrentTaskRunner.")


LOCK = threading.Lock()


def uses_a_global() -> None:
    LOCK.acquire()


def closure_over_a_lock() -> Any:
    guard = threading.Lock()
    return lambda: guard


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: Slotted([LOCK]), "argument 'a' -> .inner -> [0] : _thread.lock"),
        (lambda: Point(1, Pair(2, LOCK)), "argument 'a' -> .y -> "),
        (lambda: {LOCK: 1}, "argument 'a' -> the key "),
        (lambda: {LOCK}, "argument 'a' -> an element : _thread.lock"),
        (lambda: OrderedDict(k=LOCK), "argument 'a' -> ['k'] : _thread.lock"),
        (lambda: Careful(broken=[LOCK]), "argument 'a' -> .broken -> [0] : _thread.lock"),
        (closure_over_a_lock, "argument 'a' -> closure variable 'guard' : _thread.lock"),
        (lambda: lambda x=LOCK: x, "argument 'a' -> default of 'x' : _thread.lock"),
        (lambda: lambda *, x=LOCK: x, "argument 'a' -> default of 'x' : _thread.lock"),
        (lambda: lambda: LOCK, "argument 'a' -> global 'LOCK' : _thread.lock"),
        (lambda: lambda: [lambda: LOCK], "argument 'a' -> global 'LOCK' : _thread.lock"),
        (lambda: partial(print, LOCK), "argument 'a' -> .args -> [0] : _thread.lock"),
        (lambda: Config(LOCK).__eq__, "argument 'a' -> "),
        (lambda: (x for x in [1]), "argument 'a' : generator"),
        (lambda: [LOCK] * 3, "argument 'a' -> [0] : _thread.lock"),
    ],
)
def test_paths(make: Any, path: str) -> None:
    text = problem_of(make())
    assert text.startswith(path)
    assert "cannot be pickled: TypeError: cannot pickle" in text


def test_generator_gets_its_own_advice() -> None:
    assert problem_of(x for x in [1]).endswith("; pass a list of its elements.")


def test_socket_and_file(tmp_path: Path) -> None:
    with socket.socket() as opened:
        assert "argument 'a' -> [0] : socket.socket" in problem_of([opened])
    with (tmp_path / "f").open("wb") as file:
        text = problem_of(file)
    assert text.endswith("pass the path and open the file inside the task.")


def test_cycle_before_the_culprit() -> None:
    cycle: list[Any] = []
    cycle += [cycle, {"k": LOCK}]
    assert problem_of(cycle).startswith("argument 'a' -> [1] -> ['k'] : _thread.lock")


@pytest.mark.parametrize("problem", [ValueError("no"), SystemExit(3), MemoryError()])
def test_whatever_pickling_raises_is_told(problem: BaseException) -> None:
    text = problem_of({"k": Refusing(problem)})
    assert f"argument 'a' -> ['k'] : {__name__}.Refusing cannot be pickled: " in text
    assert type(problem).__name__ in text


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), TerminationSignal(15)])
def test_interrupts_pass(problem: BaseException) -> None:
    with pytest.raises(type(problem)):
        pack((Refusing(problem),), NAMES)


def test_deep_nesting_is_told() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert problem_of(deep).endswith("it is nested too deeply; pass it in a flatter form.")


def test_search_is_bounded() -> None:
    text = problem_of([*range(50_000), LOCK])
    assert text.startswith("argument 'a' : list cannot be pickled")


def test_large_argument_that_cannot_travel() -> None:
    assert problem_of(bytes(LARGE_BYTES), [LOCK]).startswith("argument 'b' -> [0] : _thread.lock")


def test_memoryview_and_array_travel() -> None:
    view, numbers = arrived(pack((memoryview(b"abc"), array.array("i", [1, 2])), NAMES))
    assert bytes(view) == b"abc"
    assert numbers.tolist() == [1, 2]


# --- code --------------------------------------------------------------------------------------


def test_code_of_an_importable_task_is_a_reference() -> None:
    data = pack_code(definitions.guarded)
    assert len(data) < 200
    assert unpack_code(data) is definitions.guarded


def test_code_names_the_closure_variable() -> None:
    guard = threading.Lock()

    @task
    def closed() -> None:
        guard.acquire()

    with pytest.raises(SerializationError) as caught:
        pack_code(closed)
    assert str(caught.value).startswith(
        "task 'closed' -> .fn -> closure variable 'guard' : _thread.lock cannot be pickled: "
    )


def test_code_names_what_the_instance_holds() -> None:
    held = definitions.Adder(1)
    held.amount = LOCK  # type: ignore[assignment]
    with pytest.raises(SerializationError) as caught:
        pack_code(held.add)
    assert "task 'add' -> .fn -> .__self__ -> .amount : _thread.lock" in str(caught.value)


def test_code_of_a_plain_callable() -> None:
    assert unpack_code(pack_code(partial(lambda x: x + 1, 2)))() == 3
    with pytest.raises(SerializationError, match="the function '<lambda>' -> global 'LOCK'"):
        pack_code(lambda: LOCK)


def test_code_names_the_option() -> None:
    guard = threading.Lock()
    held = definitions.guarded.with_options(on_failure=lambda *given: guard)
    with pytest.raises(SerializationError, match="closure variable 'guard'"):
        pack_code(held)


def test_missing_module_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack_code(definitions.guarded)
    monkeypatch.setitem(sys.modules, definitions.__name__, None)
    with pytest.raises(ImportError) as caught:
        unpack_code(data)
    assert caught.value.name == definitions.__name__
