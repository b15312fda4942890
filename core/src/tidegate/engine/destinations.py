"""Where an intercepted client was going, as an upstream, and how it is reached."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mitmproxy import http
from mitmproxy.net.server_spec import ServerSpec
from mitmproxy.proxy import mode_specs

from tidegate.api import errors
from tidegate.api.upstream import Tls, Upstream
from tidegate.runtime.dial import DialError, allowed, resolve

from .gateway import GatewayMode
from .streams import Streams, open_streams, secure
from .tls import upstream_context

if TYPE_CHECKING:
    from .handler import Handler
    from .policies import Policy

KEPT: Final = 64
"""Destinations that a connection remembers, for upstream connections to be used again."""
_METADATA: Final = ipaddress.ip_address("fd00:ec2::254")


@dataclass(slots=True, eq=False)
class Destination(Upstream):
    """The origin that a client asked for itself.

    `extra_ca`: authorities believed beside the system's. `via`: the proxy that leads there.
    `local`: it may be this machine, or a link-local address. `http2`: whether the origin chose
    HTTP/2 when it was last asked.
    """

    extra_ca: str | None = None
    via: ServerSpec | None = None
    local: bool = True
    http2: bool | None = None


def original(handler: Handler, flow: http.HTTPFlow) -> Destination | None:
    """Where the client itself was going, in a mode that intercepts; None on a gateway."""
    mode = flow.client_conn.proxy_mode
    if isinstance(mode, GatewayMode):
        return None
    server, request = flow.server_conn, flow.request
    if isinstance(mode, mode_specs.ReverseMode):
        host, port = mode.address
        secure = mode.scheme != "http"
    elif server.address is not None:
        host, port = server.address[:2]
        secure = server.tls
    else:
        host, port, secure = request.host, request.port, request.scheme == "https"
    if not host:
        return None
    sni = None if isinstance(mode, mode_specs.ReverseMode) else flow.client_conn.sni
    key = (host, port, secure, sni)
    found = handler.destinations.get(key)
    if found is None:
        policy = handler.master.policies[mode.full_spec]
        found = Destination(
            name=f"{host}:{port}",
            scheme="https" if secure else "http",
            host=host,
            port=port,
            preserve_host=not isinstance(mode, mode_specs.ReverseMode),
            websocket=True,
            tls=Tls(sni=sni),
            extra_ca=policy.upstream_ca,
            via=proxy_of(mode),
            local=reaches_local(policy),
        )
        if len(handler.destinations) >= KEPT:
            handler.destinations.clear()
        handler.destinations[key] = found
    return found


def proxy_of(mode: mode_specs.ProxyMode) -> ServerSpec | None:
    """The proxy that a mode chains to."""
    if isinstance(mode, mode_specs.UpstreamMode):
        return (mode.scheme, mode.address)
    return None


def reaches_local(policy: Policy) -> bool:
    """Whether its clients may be led to this machine itself."""
    return policy.intercept.local or not policy.explicit or policy.intercept.kind == "upstream"


async def connect(upstream: Upstream, *, http2: bool = False) -> Streams:
    """Connect to an upstream, TLS included, within its connect timeout. Raises DialError.

    `http2`: the origin may choose it (ALPN).
    """
    context = None
    extra = upstream.extra_ca if isinstance(upstream, Destination) else None
    if upstream.scheme == "https":
        context = upstream_context(upstream.tls, extra, http2=http2)
    if isinstance(upstream, Destination) and upstream.via is not None:
        return await _through(upstream, upstream.via, context)
    loop = asyncio.get_running_loop()
    addresses = allowed(upstream, await resolve(loop, upstream.host, upstream.port))
    if isinstance(upstream, Destination) and not upstream.local:
        addresses = elsewhere(addresses)
    streams = await open_streams(upstream, addresses, context)
    if isinstance(upstream, Destination) and not upstream.local and is_here(streams[1]):
        streams[1].transport.abort()
        raise DialError(errors.UPSTREAM_ADDRESS_FORBIDDEN, f"{upstream.host} is this machine")
    return streams


def elsewhere(addresses: Any) -> list[str]:
    """The addresses that a client of an explicit proxy may be led to. Raises DialError."""
    kept = []
    for address in addresses:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        plain = getattr(parsed, "ipv4_mapped", None) or parsed
        if plain.is_loopback or plain.is_link_local or plain.is_unspecified:
            continue
        if plain != _METADATA and not plain.is_multicast:
            kept.append(address)
    if not kept:
        raise DialError(errors.UPSTREAM_ADDRESS_FORBIDDEN, "the address is local")
    return kept


def is_here(writer: asyncio.StreamWriter) -> bool:
    """Whether the other end of a connection is on this machine: its address is our own."""
    peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    return bool(peer and own and peer[0] == own[0])


async def _through(
    upstream: Destination, via: ServerSpec, context: ssl.SSLContext | None
) -> Streams:
    """By way of a proxy: CONNECT for TLS (RFC 9110 §9.3.6); cleartext is sent to it as it is."""
    scheme, (host, port) = via
    first = Upstream(upstream.name, scheme, host, port, timeouts=upstream.timeouts)
    outer = upstream_context(Tls(), upstream.extra_ca) if scheme == "https" else None
    loop = asyncio.get_running_loop()
    reader, writer = await open_streams(first, await resolve(loop, host, port), outer)
    if context is None:
        return reader, writer
    try:
        async with asyncio.timeout(upstream.timeouts.connect):
            at = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
            target = f"{at}:{upstream.port}".encode()
            writer.write(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target))
            head = await reader.readuntil(b"\r\n\r\n")
            status = head.split(b" ", 2)[1:2]
            if not status or not status[0].startswith(b"2"):
                raise OSError("the proxy refuses the tunnel")
    except TimeoutError:
        failure = DialError(errors.UPSTREAM_TIMEOUT, "connecting took too long")
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:
        failure = DialError(errors.UPSTREAM_UNREACHABLE, str(error))
    else:
        return await secure(upstream, (reader, writer), context)
    writer.transport.abort()
    raise failure
