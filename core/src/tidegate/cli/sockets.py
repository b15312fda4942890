"""The listening sockets of a node: the supervisor binds them, its workers accept on them.

Each worker slot has its own socket per listener (SO_REUSEPORT: the kernel spreads connections
over them). A slot's socket lives as long as the node: connections that wait in its accept queue
while a worker is replaced are taken by the successor. When the node ends, the queue is emptied
before the socket is closed: closing it resets what waits there.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Final

from tidegate.runtime.intercepts import Intercept
from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.settings import Listener, split_address

BACKLOG: Final = 4096
"""Connections that wait for a worker; the kernel caps it (net.core.somaxconn)."""


def bind_all(
    listeners: tuple[Listener, ...], slots: int, intercepts: tuple[Intercept, ...] = ()
) -> list[dict[str, socket.socket]]:
    """For each slot, a listening socket per listener name. Raises ConfigError.

    An intercept that listens on all addresses has two, the second as `NAME|::`.
    """
    out: list[dict[str, socket.socket]] = [{} for _ in range(slots)]

    def open_one(name: str, host: str, port: int) -> int:
        probe(host, port)
        for sockets in out:
            sockets[name] = bind(host, port, shared=True)
            port = sockets[name].getsockname()[1]
        return port

    try:
        for listener in listeners:
            open_one(listener.name, listener.host, listener.port)
        for intercept in intercepts:
            port = 0
            for index, (host, wanted) in enumerate(intercept.addresses):
                if index and not socket.has_dualstack_ipv6():
                    continue  # a machine without IPv6 has nothing to intercept on it
                name = f"{intercept.name}|{host}" if index else intercept.name
                port = open_one(name, host, wanted or port)
    except ConfigError:
        for sockets in out:
            for sock in sockets.values():
                sock.close()
        raise
    return out


def probe(host: str, port: int) -> None:
    """Raises ConfigError where another process listens there.

    With SO_REUSEPORT alone two nodes of one user would share a port without a word.
    """
    if port:
        bind(host, port, shared=False).close()


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A listening TCP socket. Raises ConfigError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise refused(host, port, error) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise refused(host, port, error) from None
    return sock


def refused(host: str, port: int, error: OSError) -> ConfigError:
    """Why an address can't be listened on."""
    address = join(host, port)
    match error.errno:
        case errno.EADDRINUSE:
            text = f"{address} is taken: another process listens there"
            return ConfigError(Problem("port_taken", text, hint="choose another with --listen"))
        case errno.EACCES:
            text = f"{address}: this user may not listen on port {port}"
            return ConfigError(Problem("port_not_permitted", text))
    return ConfigError(Problem("address_unavailable", f"{address}: {error.strerror or error}"))


def join(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_status(address: str) -> socket.socket:
    """The socket of the status endpoints. Raises ConfigError."""
    host, port = split_address(address)
    return bind(host, port, shared=False)


# -- the end of a socket ------------------------------------------------------------------------

HANDSHAKE: Final = 0.2
"""Seconds in which connections that are being made reach the accept queue."""
EMPTY: Final = 2.0
"""Seconds in which a worker must have accepted what waits."""

SO_ATTACH_FILTER: Final = 26
TCPI_UNACKED: Final = 24
"""Offset in `struct tcp_info`; of a listening socket, the length of its accept queue."""
DROP_SYN: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load byte 13 of the TCP header: the flags
        (0x45, 0, 1, 0x02),  # SYN?
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # keep all else: the last ACK of a handshake, data
    )
)
"""A classic BPF program: whoever connects now is not answered, and asks again in a second."""


async def empty_queues(sockets: Iterable[socket.socket]) -> None:
    """Let no new connection in, and wait until those that are in have been accepted."""
    if sys.platform != "linux":
        return
    queues = list(sockets)
    for sock in queues:
        deafen(sock)
    loop = asyncio.get_running_loop()
    end = loop.time() + EMPTY
    await asyncio.sleep(HANDSHAKE)
    while loop.time() < end:
        if not any(map(waiting, queues)):
            return
        await asyncio.sleep(0.01)


def deafen(sock: socket.socket) -> None:
    """Have the kernel drop what asks for a new connection to a listening socket."""
    program = ctypes.create_string_buffer(DROP_SYN, len(DROP_SYN))
    count = len(DROP_SYN) // 8
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", count, ctypes.addressof(program))
        )
    except OSError:  # a sandbox without it: who connects in the last milliseconds is reset
        pass


def waiting(sock: socket.socket) -> int:
    """How many connections wait in the accept queue of a listening socket."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_UNACKED + 4)
    return int.from_bytes(info[TCPI_UNACKED:], sys.byteorder)
