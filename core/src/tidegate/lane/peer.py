"""What a transport tells about the peer at its other end."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from tidegate.api.types import Client

_CLOSE_WAIT: Final = 8
"""TCP_CLOSE_WAIT of Linux: the peer has sent a FIN, and nothing else."""


def client_of(transport: asyncio.BaseTransport) -> Client:
    """The client, as TCP and TLS show it."""
    peer = transport.get_extra_info("peername")
    address, port = (peer[0], peer[1]) if isinstance(peer, tuple) else ("", 0)
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return Client(address, port, address)
    sni = getattr(tls, "tidegate_sni", None)
    return Client(address, port, address, True, sni, tls.getpeercert(True))


def has_left(transport: asyncio.BaseTransport) -> bool:
    """Whether a peer that sent a FIN has answered what was sent since with a reset.

    False where the system does not tell (TCP_INFO is Linux's).
    """
    sock = transport.get_extra_info("socket")
    try:
        state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (OSError, AttributeError):
        return False
    return state != _CLOSE_WAIT
