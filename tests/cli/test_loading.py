"""Files, flows and parameters of `penstock run`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.exits import CommandError
from penstock.cli.loading import LoadingFailed, load_file, read_parameters, split_target
from penstock.cli.runners import make_runner, runner_names, with_workers
from penstock.task_runners import ConcurrentTaskRunner, DaskTaskRunner, SequentialTaskRunner


@pytest.fixture(autouse=True)
def _interpreter() -> Iterator[None]:
    """Undo what loading a file changes in this process."""
    path, arguments, modules = list(sys.path), list(sys.argv), set(sys.modules)
    yield
    sys.path[:], sys.argv[:] = path, arguments
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_split_target(tmp_path: Path) -> None:
    file = tmp_path / "etl.py"
    file.touch()
    odd = tmp_path / "a:b.py"
    odd.touch()
    assert split_target(str(file)) == (file, None)
    assert split_target(f"{file}:main") == (file, "main")
    assert split_target(str(odd)) == (odd, None)
    assert split_target(f"{odd}:x") == (odd, "x")


@pytest.mark.parametrize("target", ["nosuch.py", "nosuch.py:flow", "."])
def test_split_target_without_a_file(target: str) -> None:
    with pytest.raises(CommandError, match=r"no file|folder"):
        split_target(target)


def test_file_is_loaded_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 7")
    file = tmp_path / "my-etl.py"
    file.write_text(
        "from __future__ import annotations\n"
        "import sys, dataclasses, beside\n"
        "@dataclasses.dataclass\nclass Row:\n    x: int\n"
        "arguments = list(sys.argv)\n"
        "if __name__ == '__main__':\n    raise SystemExit('must not run')\n"
    )
    module = load_file(file)
    assert module.__name__ == "my-etl"
    assert module.__file__ == str(file)
    assert sys.modules["my-etl"] is module
    assert module.beside.value == 7
    assert module.arguments == [str(file)]


def test_file_named_like_a_module_there_is(tmp_path: Path) -> None:
    import json

    file = tmp_path / "json.py"
    file.write_text("x = 1")
    assert load_file(file).x == 1
    assert sys.modules["json"] is json


@pytest.mark.parametrize("source", ["1 / 0", "x = (", "import nosuchmodule"])
def test_file_that_raises(tmp_path: Path, source: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    with pytest.raises(LoadingFailed) as caught:
        load_file(file)
    assert isinstance(caught.value.__cause__, ZeroDivisionError | SyntaxError | ImportError)


def example(
    a: Any = 0,
    text: str = "",
    maybe: str | None = None,
    old: str | None = None,
    n: int = 0,
) -> None: ...


@pytest.mark.parametrize(
    ("given", "parameters"),
    [
        (["a=1"], {"a": 1}),
        (["a=1.5", "b=true"], {"a": 1.5, "b": True}),
        (["a=null"], {"a": None}),
        (['a={"x": [1, 2]}'], {"a": {"x": [1, 2]}}),
        (["a=sales.csv"], {"a": "sales.csv"}),
        (['a="1"'], {"a": "1"}),
        (["a=x=y"], {"a": "x=y"}),
        (["a="], {"a": ""}),
        (["a=NaN"], {"a": "NaN"}),
        (["a=1", "a=2"], {"a": 2}),
        (["text=2024"], {"text": "2024"}),
        (["maybe=1", "old=2", "n=3"], {"maybe": "1", "old": "2", "n": 3}),
    ],
)
def test_parameters(given: list[str], parameters: dict[str, Any]) -> None:
    assert read_parameters(given, example) == parameters


@pytest.mark.parametrize("given", ["a", "=1", ""])
def test_parameters_that_are_none(given: str) -> None:
    with pytest.raises(CommandError, match="name=value"):
        read_parameters([given], example)


def test_annotations_that_cannot_be_evaluated_do_not_matter() -> None:
    def odd(a: "NoSuchName") -> None: ...  # type: ignore[name-defined] # noqa: F821, UP037

    assert read_parameters(["a=1"], odd) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "workers", "said"),
    [
        ("slurm", None, "no runner 'slurm'"),
        ("concurrent:tcp://x", None, "takes no address"),
        ("concurrent:", None, "takes no address"),
        ("dask:", None, "no address in 'dask:'"),
        ("dask: ", None, "no address in 'dask: '"),
        ("dask:tcp://h:1", 4, "cannot change what runs already at an address"),
        ("sequential", 4, "no number of workers"),
    ],
)
def test_runner_that_cannot_be(text: str, workers: int | None, said: str) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        make_runner(text, workers)
    assert caught.value.problem.exit == 2


def test_unknown_runner_lists_those_there_are() -> None:
    with pytest.raises(CommandError) as caught:
        make_runner("slurm")
    assert "sequential, concurrent" in caught.value.problem.hint


def test_dask_runner() -> None:
    assert make_runner("dask") == DaskTaskRunner()
    assert make_runner("dask:tcp://h:1") == DaskTaskRunner(address="tcp://h:1")
    three = {"n_workers": 3, "threads_per_worker": 1}
    assert make_runner("dask", 3) == DaskTaskRunner(cluster_kwargs=three)
    assert "dask:ADDRESS" in runner_names()


def test_workers_of_the_flow_s_own_runner() -> None:
    assert with_workers(ConcurrentTaskRunner(max_workers=9), 3).max_workers == 3
    own = DaskTaskRunner(cluster_kwargs={"processes": False}, client_kwargs={"timeout": 2})
    changed = with_workers(own, 3)
    assert changed.cluster_kwargs == {
        "processes": False,
        "n_workers": 3,
        "threads_per_worker": 1,
    }
    assert changed.client_kwargs == {"timeout": 2}
    assert own.cluster_kwargs == {"processes": False}


class MadeTaskRunner(SequentialTaskRunner):
    """A runner that the table does not know."""


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        (DaskTaskRunner(address="tcp://h:1"), "cannot change the flow's own runner"),
        (SequentialTaskRunner(), "no number of workers"),
        (MadeTaskRunner(), "does not know the flow's own runner"),
    ],
    ids=str,
)
def test_workers_that_cannot_be_changed(runner: Any, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        with_workers(runner, 3)
