from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from penstock import Flow, Task, flow, task
from penstock.core.callables import Decorated, function_reference
from penstock.flows import SubflowTask
from tests.remote import definitions
from tests.remote.definitions import Adder

ROOT = Path(__file__).resolve().parents[2]


def arrived(value: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(value))


def same(first: Decorated, second: Decorated) -> bool:
    """Compare all that identifies a flow or task."""
    return (
        type(first) is type(second)
        and first.key == second.key
        and first.digest == second.digest
        and first.parameter_names == second.parameter_names
        and first.is_async == second.is_async
        and str(first.signature) == str(second.signature)
        and vars(first).keys() == vars(second).keys()
        and vars(first).get("__doc__") == vars(second).get("__doc__")
    )


@pytest.mark.parametrize(
    "decorated",
    [
        definitions.guarded,
        definitions.wrapped,
        definitions.total,
        Adder.add,
        vars(Adder)["made"],
        Adder.twice,
    ],
    ids=lambda decorated: decorated.name,
)
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_importable_is_a_reference(decorated: Any, dumps: Any) -> None:
    data = dumps(decorated)
    assert pickle.loads(data) is decorated
    assert len(data) < 200


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_changed_copy_refers_to_the_function(dumps: Any) -> None:
    data = dumps(definitions.patient)
    got = pickle.loads(data)
    assert got is not definitions.guarded
    assert got.fn is definitions.guarded.fn
    assert got.__wrapped__ is got._source is got.signature.fn is got.fn
    assert (got.name, got.retries) == ("patient", 3)
    assert same(got, definitions.patient)
    assert got.with_options(retries=1).retries == 1
    assert got(1) == 2


def test_copy_of_a_flow_refers_to_the_function() -> None:
    got = arrived(definitions.total.with_options(name="other", retries=2))
    assert got.fn is definitions.total.fn
    assert (got.name, got.retries, got.version) == ("other", 2, definitions.total.version)
    assert got(1) == 3


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_bound_task_refers_to_the_function(dumps: Any) -> None:
    bound = Adder(5).add
    got = pickle.loads(dumps(bound))
    assert got.fn.__func__ is Adder.add.fn
    assert got.held[0].amount == 5
    assert got.held[0] is got.fn.__self__
    assert got.parameter_names == ("x",)
    assert same(got, bound)
    assert got(1) == 6


def test_class_methods_and_static_methods() -> None:
    made = arrived(Adder.made)
    assert made.fn.__self__ is Adder
    assert made(4) == 4
    assert arrived(Adder(1).twice)(4) == 8
    unbound = vars(Adder)["made"].with_options(retries=1)
    got = arrived(unbound)
    assert type(got._source) is classmethod
    assert got._source.__func__ is got.fn is vars(Adder)["made"].fn
    assert same(got, unbound)


@pytest.mark.parametrize(
    ("decorated", "value"),
    [
        (definitions.fast, (6, (2, 3))),
        (definitions.triple, (12, (4,))),
        (definitions.quadruple, (20, (5,))),
        (task(len), (2, ("ab",))),
        (task("a-b".split), (["a", "b"], ("-",))),
    ],
    ids=["function", "partial", "object", "builtin", "builtin method"],
)
def test_other_callables(decorated: Any, value: Any) -> None:
    got = arrived(decorated)
    assert same(got, decorated)
    assert got(*value[1]) == value[0]


def test_closure_travels_by_value() -> None:
    offset = [1]

    @task(retries=2, tags={"t"}, on_failure=lambda *given: offset)
    def shifted(x: int, y: int = 4) -> int:
        """Shift."""
        return x + y + offset[0]

    got = arrived(shifted)
    assert got.fn is not shifted.fn
    assert same(got, shifted)
    assert got.__wrapped__ is got.fn is got.signature.fn
    assert (got.retries, got.tags, got.description) == (2, {"t"}, "Shift.")
    assert got.hooks.keys() == shifted.hooks.keys()
    assert got(1) == 6


def test_recursive_closure() -> None:
    @task
    def down(x: int) -> int:
        return down(x - 1) if x else 0

    got = arrived(down)
    assert got.fn.__closure__[0].cell_contents is got
    assert got(3) == 0


def test_one_task_stays_one_object() -> None:
    @task
    def local() -> None: ...

    first, second = arrived([local, {"k": local}])
    assert first is second["k"]
    patient, again = arrived((definitions.patient, definitions.patient))
    assert patient is again


def test_attributes_of_the_function_and_of_the_task_survive() -> None:
    @task
    def local() -> None: ...

    vars(local)["own"] = 1
    vars(local.fn)["mark"] = 2
    marked = local.with_options(retries=1)
    assert vars(marked)["mark"] == 2
    assert arrived(local).own == 1
    assert arrived(marked).mark == 2


def test_subflow_as_task() -> None:
    stand_in = definitions.total._as_task()
    got = arrived(stand_in)
    assert type(got) is SubflowTask
    assert got.name == "sum"
    assert got.parameter_names == ("x", "y")


def test_flow_that_was_changed_keeps_its_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flow, "_is_changed", lambda self: True)
    got = arrived(definitions.total)
    assert got is not definitions.total
    assert got.fn is definitions.total.fn
    assert got.task_runner == definitions.total.task_runner


def test_local_flow() -> None:
    @flow(name="local")
    def body(x: int) -> int:
        return x + 1

    got = arrived(body)
    assert isinstance(got, Flow)
    assert same(got, body)
    assert got(2) == 3


def test_task_replaced_in_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = definitions.guarded.with_options(retries=7)
    original = definitions.guarded
    monkeypatch.setattr(definitions, "guarded", renewed)
    assert arrived(renewed) is renewed
    assert arrived(original).fn is original.fn
    assert arrived(original).retries == 0


def test_decorator_above_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    original = definitions.guarded
    monkeypatch.setattr(definitions, "guarded", definitions.announced(original))
    assert arrived(original) is original


def test_copy_module_gives_the_same_task() -> None:
    assert copy.copy(definitions.guarded) is definitions.guarded
    assert copy.deepcopy(definitions.guarded) is definitions.guarded


def test_reference_to_a_task_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(definitions.guarded)
    monkeypatch.delattr(definitions, "guarded")
    with pytest.raises(ImportError, match="no flow or task 'guarded' in the module") as caught:
        pickle.loads(data)
    assert caught.value.name == "tests.remote.definitions"


def test_only_hidden_functions_need_a_reference() -> None:
    assert function_reference(definitions.plain) is None
    assert function_reference(lambda: 1) is None
    assert function_reference(definitions.guarded.fn) is not None
    assert function_reference(definitions.Multiplier(1)) is None


SCRIPT = """
import sys
from penstock import task, flow
from penstock.remote.parcels import pack_code, pack
FACTOR = 3
@task
def scale(x, y=1):
    return x * y * FACTOR
@task
def both(x):
    return scale(x) + patient(x) + guarded(x)
@flow
def body(x):
    return both(x)
patient = scale.with_options(retries=2)
from tests.remote.definitions import guarded
class Box:
    def __init__(self, n): self.n = n
    @task
    def put(self, x): return self.n + x * FACTOR
less = task(lambda x: x - FACTOR)
code = pack_code(both), pack_code(body), pack_code(Box(2).put), pack_code(less)
sys.stdout.buffer.write(pack(code, "abcd").data)
"""


def test_what_a_script_defines_runs_in_another_process() -> None:
    from penstock.remote.parcels import unpack, unpack_code

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, cwd=ROOT, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    both, body, put, less = map(unpack_code, unpack(done.stdout, {}))  # type: ignore[arg-type]
    assert isinstance(both, Task)
    assert both(2) == 6 + 6 + 3
    assert body(2) == 15
    assert put(4) == 14
    assert less(5) == 2
    assert both.key == "__main__.both"
    scale = both.fn.__globals__["scale"]
    assert both.fn.__globals__["patient"].fn is scale.fn
