"""Run a command where there is no network but loopback: for tests that start Ray.

python tests/loopback_only.py COMMAND [ARGUMENT…]

Ray listens on addresses of the machine, whatever it is told. In a network namespace of its own
it has none but loopback. Where no namespace can be had, the command runs as it is, after a note.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
_NEW_ROUTE, _REQUEST_ACK_CREATE = 24, 0x405
_LOCAL_TABLE, _ON_HOST, _LOCAL = 255, 254, 2
_DESTINATION, _OUTPUT, _PREFERRED_SOURCE = 1, 4, 7
_OUTSIDE = "8.8.8.8"
_REQUEST = "16sH14x"


def main(command: list[str]) -> None:
    """Replace this process by a command that sees loopback only."""
    try:
        _leave_network()
        _start_loopback()
        _route_outside_to_loopback()
    except OSError as exc:
        print(f"note: no network namespace to be had ({exc}); running without", file=sys.stderr)
    os.execvp(command[0], command)


def _leave_network() -> None:
    """Enter a network namespace of our own; without root, with a user namespace around it."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _unshare(_NEW_NET)
        return
    _unshare(_NEW_USER | _NEW_NET)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _unshare(flags: int) -> None:
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        raise OSError("this system has none")
    if unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _start_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack(_REQUEST, b"lo", 0)
        _, flags = struct.unpack(_REQUEST, fcntl.ioctl(control, _GET_FLAGS, request))
        fcntl.ioctl(control, _SET_FLAGS, struct.pack(_REQUEST, b"lo", flags | _UP))


def _route_outside_to_loopback() -> None:
    """Let one address of the outside lead to loopback, where every connection is refused.

    Dask and Ray look for the machine's own address by asking which one leads there; it has to be
    127.0.0.1. Ray connects in fact, in each of its processes, and where nobody even refuses it
    waits for five seconds. Done by a message to the kernel, as
    `ip route add local … dev lo src 127.0.0.1`.
    """
    head = (socket.AF_INET, 32, 0, 0, _LOCAL_TABLE, 4, _ON_HOST, _LOCAL, 0)
    route = struct.pack("BBBBBBBBI", *head)
    route += struct.pack("HH4s", 8, _DESTINATION, socket.inet_aton(_OUTSIDE))
    route += struct.pack("HHI", 8, _OUTPUT, socket.if_nametoindex("lo"))
    route += struct.pack("HH4s", 8, _PREFERRED_SOURCE, socket.inet_aton("127.0.0.1"))
    message = struct.pack("IHHII", 16 + len(route), _NEW_ROUTE, _REQUEST_ACK_CREATE, 1, 0) + route
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as control:
        control.settimeout(5)
        control.send(message)
        (error,) = struct.unpack_from("i", control.recv(4096), 16)
    if error:
        raise OSError(-error, os.strerror(-error))


if __name__ == "__main__":
    main(sys.argv[1:])
