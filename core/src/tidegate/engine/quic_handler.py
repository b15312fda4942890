"""A client's QUIC connection: as any other, but whoever closes it has to say so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aioquic.h3.connection import ErrorCode
from mitmproxy.connection import Connection as AnyConnection

from .handler import Handler
from .quic import Connection

if TYPE_CHECKING:
    from . import http3


class QuicHandler(Handler):
    """Serves what comes from one address and port of a client by UDP."""

    quic: Connection | None = None
    http3: http3.Server | None = None

    def close_connection(self, connection: AnyConnection, half_close: bool = False) -> None:
        """As any: UDP has no close that the other end would see."""
        io = self.transports.get(connection)
        if connection is self.client and io is not None and self.quic is not None:
            self.quic.close(error_code=ErrorCode.H3_NO_ERROR)
            now = asyncio.get_running_loop().time()
            writer: Any = io.writer
            for datagram, _ in self.quic.datagrams_to_send(now):
                if not writer.is_closing():
                    writer.write(datagram)
        super().close_connection(connection, half_close)
