"""Whose socket is at the other end, on this machine: asked of the kernel (sock_diag(7)).

Only sockets of the same network namespace are found.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST_DUMP: Final = 0x301
"""NLM_F_REQUEST | NLM_F_DUMP"""
S_COND: Final = 7
"""INET_DIAG_BC_S_COND: the source address and port are these."""
CGROUP_ID: Final = 21
"""INET_DIAG_CGROUP_ID, since Linux 5.8; 0 where the kernel gives none."""
OPEN_STATES: Final = sum(1 << state for state in (1, 4, 5, 8))
"""TCP_ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT: what can have an exchange."""

_HEADER: Final = struct.Struct("=IHHII")
_MESSAGE: Final = struct.Struct("=BBBB48sIIIII")


class Unknown(Exception):
    """The kernel does not say, or says more than one thing."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who made a socket: the user, and the cgroup (v2) by the number of its folder."""

    uid: int
    cgroup: int = 0


def owner_of(address: str, port: int) -> Owner | None:
    """The owner of the TCP socket that is bound to this address and port, or None.

    Raises Unknown: the kernel can't be asked, or several owners have such a socket (a port may
    be used again towards another destination).
    """
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    # A socket for both versions (Java's are) is an IPv6 one, whatever it talks.
    families = (family,) if family == socket.AF_INET6 else (socket.AF_INET, socket.AF_INET6)
    found: set[Owner] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(0.5)
            for one in families:
                netlink.send(_question(one, family, packed, port))
                found.update(_answers(netlink))
    except OSError as error:
        raise Unknown(f"the kernel can't be asked: {error}") from None
    if len(found) > 1:
        raise Unknown(f"{len(found)} owners have a socket at {address} port {port}")
    return found.pop() if found else None


def _question(dumped: int, family: int, packed: bytes, port: int) -> bytes:
    condition = struct.pack("=BBxxi", family, len(packed) * 8, port) + packed
    size = 4 + len(condition)
    code = struct.pack("=BBH", S_COND, size, size + 4) + condition
    attribute = struct.pack("=HH", 4 + len(code), 1) + code  # INET_DIAG_REQ_BYTECODE
    request = struct.pack("=BBBxI48x", dumped, socket.IPPROTO_TCP, 0, OPEN_STATES)
    payload = request + attribute
    head = _HEADER.pack(_HEADER.size + len(payload), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0)
    return head + payload


def _answers(netlink: socket.socket) -> Iterator[Owner]:
    while True:
        data = netlink.recv(65536)
        while data:
            size, kind, _, _, _ = _HEADER.unpack_from(data)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                raise OSError(-struct.unpack_from("=i", data, _HEADER.size)[0], "sock_diag")
            yield _owner(data[_HEADER.size : size])
            data = data[(size + 3) & ~3 :]


def _owner(message: bytes) -> Owner:
    uid = _MESSAGE.unpack_from(message)[8]
    cgroup, at = 0, _MESSAGE.size
    while at + 4 <= len(message):
        size, kind = struct.unpack_from("=HH", message, at)
        if size < 4:
            break
        if kind == CGROUP_ID:
            (cgroup,) = struct.unpack_from("=Q", message, at + 4)
        at += (size + 3) & ~3
    return Owner(uid, cgroup)


def cgroup_root() -> Path | None:
    """Where the cgroup v2 hierarchy is mounted, or None."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(where.replace("\\040", " "))
    return None


def cgroup_numbers(root: Path, path: str) -> frozenset[int]:
    """The numbers of a cgroup and of all below it; none where it does not exist."""
    top = root / path.strip("/")
    return frozenset(os.stat(folder).st_ino for folder, _, _ in os.walk(top))
