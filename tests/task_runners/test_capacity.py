"""What the machine has, read from files that tests write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.task_runners import capacity


@pytest.mark.parametrize(
    ("given", "devices"),
    [
        ("0,2", ("0", "2")),
        (" 1 , GPU-8f2e, MIG-1/0", ("1", "GPU-8f2e", "MIG-1/0")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("1,1", ("1",)),
        ("NoDevFiles", ()),
    ],
)
def test_cuda_visible_devices_decides(
    given: str, devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert capacity.visible_gpus() == devices


def test_devices_of_the_driver_and_of_dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(capacity, "_NVIDIA_DRIVER", tmp_path / "driver")
    monkeypatch.setattr(capacity, "_DEVICES", tmp_path)
    assert capacity.visible_gpus() == ()
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert capacity.visible_gpus() == ("0", "2", "10")
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "driver" / name).mkdir(parents=True)
    assert capacity.visible_gpus() == ("0", "1")


def test_the_smallest_limit_of_the_groups_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "user" / "job"
    inner.mkdir(parents=True)
    (tmp_path / "user" / "memory.max").write_text("500000\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "user" / "cpu.max").write_text("max 100000\n")
    monkeypatch.setattr(capacity, "_CGROUPS", tmp_path)
    monkeypatch.setattr(capacity, "_groups", lambda: [inner, inner.parent, tmp_path])
    assert capacity.usable_memory() == 500000
    assert capacity.usable_cores() == 1


def test_this_machine() -> None:
    machine = capacity.this_machine()
    assert 1 <= machine.cpu <= len(os.sched_getaffinity(0))
    assert machine.memory > 2**20
    assert machine.amounts().keys() == {"cpu", "gpu", "memory"}
