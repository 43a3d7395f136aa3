"""Notice a history on a network file system, where file locks cannot be relied on."""

from __future__ import annotations

import os
import re
from pathlib import Path

# As /proc/mounts names them.
_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "smb2",
        "smb3",
        "smbfs",
    }
)
_MOUNTS = Path("/proc/mounts")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def network_filesystem(path: str, mounts: Path = _MOUNTS) -> str | None:
    """Give the type of the network file system that a path lies on, such as "nfs4".

    None on a local one, and where the system does not tell (no `/proc/mounts`).
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    place = os.path.join(os.path.realpath(path), "")
    kind, longest = "", -1
    for line in lines:
        words = line.split(" ")
        point = os.path.join(_ESCAPE.sub(_unescaped, words[1]), "") if len(words) > 2 else ""
        # the later of two mounts on one point hides the earlier one
        if point and place.startswith(point) and len(point) >= longest:
            kind, longest = words[2], len(point)
    return kind if kind in _NETWORK else None


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))
