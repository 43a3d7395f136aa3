"""What this machine has for task runs: usable cores, memory, and visible devices.

All of it is read from the system itself, in well under a millisecond; no program is started.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")
_DEVICES = Path("/dev")
_DEVICE = re.compile(r"nvidia(\d+)")


@dataclass(frozen=True)
class Machine:
    """What there is.

    Attributes:
        cpu: usable cores.
        memory: in bytes.
        gpus: the visible devices, as CUDA_VISIBLE_DEVICES names them.
    """

    cpu: float
    memory: float
    gpus: tuple[str, ...] = ()

    def amounts(self) -> dict[str, float]:
        """Give what there is by the names that tasks use."""
        return {"cpu": self.cpu, "gpu": len(self.gpus), "memory": self.memory}


def this_machine() -> Machine:
    """Look at the machine, and at what the control group of this process leaves of it."""
    return Machine(usable_cores(), usable_memory(), visible_gpus())


def usable_cores() -> int:
    """Give how many cores this process may use: by affinity, and by its group's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [_quota(folder / "cpu.max") for folder in _groups()]
    return max(1, min([cores, *(ceil(quota) for quota in quotas if quota is not None)]))


def usable_memory() -> int:
    """Give how many bytes of memory there are: the machine's, or less if its group has less."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [_number(folder / "memory.max") for folder in _groups()]
    limits.append(_number(_CGROUPS / "memory" / "memory.limit_in_bytes"))
    return min([pages, *(limit for limit in limits if limit is not None)])


def visible_gpus() -> tuple[str, ...]:
    """Give the devices that CUDA would show; CUDA_VISIBLE_DEVICES decides where it is set."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return _listed(given)
    if _NVIDIA_DRIVER.is_dir():
        return tuple(map(str, range(len(list(_NVIDIA_DRIVER.iterdir())))))
    found = (_DEVICE.fullmatch(path.name) for path in _DEVICES.glob("nvidia[0-9]*"))
    return tuple(sorted((match[1] for match in found if match), key=int))


def _listed(given: str) -> tuple[str, ...]:
    """Read CUDA_VISIBLE_DEVICES as CUDA does: what follows an entry that is none does not count."""
    devices: list[str] = []
    for entry in map(str.strip, given.split(",")):
        is_device = entry.isdigit() or entry.startswith(("GPU-", "MIG-"))
        if not is_device or entry in devices:
            break
        devices.append(entry)
    return tuple(devices)


def _groups() -> list[Path]:
    """Give the folders of this process's control group and of those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    names = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    if not names:
        return []
    inner = _CGROUPS / names[0]
    return [folder for folder in (inner, *inner.parents) if folder.is_relative_to(_CGROUPS)]


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        # There is no such file, or it says "max".
        return None


def _quota(file: Path) -> float | None:
    """Read "quota period" in microseconds; None where there is no quota."""
    try:
        quota, period = map(int, file.read_text().split())
    except (OSError, ValueError):
        return None
    return quota / period
