"""Streams to origins and proxies, with TLS that loses nothing.

uvloop's own TLS throws away what was received but not read yet when the other side closes
(`SSLProtocol.eof_received`, 0.22): the end of an answer is missing whenever a slow client has
made us pause. So TLS here is asyncio's, over uvloop's TCP; `test_streams` shows the difference.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from tidegate.api import errors
from tidegate.api.upstream import Upstream
from tidegate.runtime.dial import DialError
from tidegate.runtime.dial import connect as dial

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class _End:
    """Our end of a connection that is being made."""

    reader: asyncio.StreamReader
    protocol: asyncio.StreamReaderProtocol
    secured: asyncio.Future[None]

    @classmethod
    def make(cls, loop: asyncio.AbstractEventLoop) -> _End:
        reader = asyncio.StreamReader(loop=loop)
        secured: asyncio.Future[None] = loop.create_future()
        secured.add_done_callback(lambda done: done.cancelled() or done.exception())
        return cls(reader, asyncio.StreamReaderProtocol(reader, loop=loop), secured)

    def tls(
        self, upstream: Upstream, context: ssl.SSLContext, *, begin: bool = True
    ) -> asyncio.BufferedProtocol:
        made = sslproto.SSLProtocol(
            asyncio.get_running_loop(),
            self.protocol,
            context,
            self.secured,
            server_side=False,
            server_hostname=upstream.tls.sni or upstream.host,
            call_connection_made=begin,
        )
        return cast(asyncio.BufferedProtocol, made)

    async def secured_within(self, upstream: Upstream, transport: Any) -> None:
        """Wait for the handshake. Raises DialError."""
        try:
            async with asyncio.timeout(upstream.timeouts.connect):
                await self.secured
        except TimeoutError:
            failure = DialError(errors.UPSTREAM_TIMEOUT, "connecting took too long")
        except ssl.SSLError as error:
            failure = DialError(errors.UPSTREAM_TLS_INVALID, error.reason or str(error))
        except OSError as error:
            failure = DialError(errors.UPSTREAM_UNREACHABLE, str(error))
        except asyncio.CancelledError:
            transport.abort()
            raise
        else:
            return
        transport.abort()
        raise failure

    def of(self, transport: Any) -> Streams:
        loop = asyncio.get_running_loop()
        return self.reader, asyncio.StreamWriter(transport, self.protocol, self.reader, loop)


async def open_streams(
    upstream: Upstream, addresses: Sequence[str], context: ssl.SSLContext | None
) -> Streams:
    """Connect to the first address that answers. Raises DialError."""
    loop = asyncio.get_running_loop()
    ends: dict[Any, _End] = {}

    def make() -> Any:
        end = _End.make(loop)
        protocol = end.protocol if context is None else end.tls(upstream, context)
        ends[protocol] = end
        return protocol

    made = await dial(loop, upstream, addresses, None, make)
    end = ends[made]
    if context is None:
        return end.of(cast(Any, made)._transport)
    transport = cast(Any, made)._get_app_transport()
    await end.secured_within(upstream, transport)
    return end.of(transport)


async def secure(upstream: Upstream, streams: Streams, context: ssl.SSLContext) -> Streams:
    """TLS within streams that are open already. Raises DialError."""
    reader, writer = streams
    end = _End.make(asyncio.get_running_loop())
    end.reader, end.protocol = reader, cast(Any, writer)._protocol
    plain = writer.transport
    tls = cast(Any, end.tls(upstream, context, begin=False))
    plain.set_protocol(tls)
    tls.connection_made(plain)
    await end.secured_within(upstream, plain)
    # as StreamWriter.start_tls does: both belong to the connection within from now on
    within = tls._get_app_transport()
    cast(Any, writer)._transport = cast(Any, end.protocol)._transport = within
    cast(Any, end.protocol)._over_ssl = True
    return streams
