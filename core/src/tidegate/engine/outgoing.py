"""What goes upstream: the leaf that was picked, and the request rebuilt for it."""

from __future__ import annotations

import logging
import select
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mitmproxy import http
from mitmproxy.connection import Connection
from mitmproxy.proxy.server import ConnectionIO

from tidegate.api import errors
from tidegate.api.types import Denial
from tidegate.api.upstream import Upstream
from tidegate.runtime.heads import upstream_head
from tidegate.runtime.messages import Fields, make_request

from .answers import content_length
from .call import Call
from .destinations import Destination
from .gateway import GatewayMode
from .layers import MULTIPLEXED

if TYPE_CHECKING:
    from .bridge import Bridge

log = logging.getLogger("tidegate.engine")


def send(bridge: Bridge, call: Call, flow: http.HTTPFlow) -> None:
    """Make the request that goes upstream and say that it may, or deny."""
    exchange = call.exchange
    assert exchange.upstream is not None
    upstream = exchange.upstream.pick(exchange, ())
    denial = None
    if upstream is None:
        denial = errors.UPSTREAM_UNREACHABLE.denial()
    elif upstream.codec is not None:
        log.error("upstream %s has a codec, which the engine can't apply", upstream.name)
        denial = errors.INTERNAL_ERROR.denial()
    else:
        denial = rebuild(bridge, call, flow, upstream)
    if denial is not None:
        bridge.deny(call, flow, denial)
        return
    assert upstream is not None
    call.begin(upstream)
    call.ready = True


def rebuild(bridge: Bridge, call: Call, flow: http.HTTPFlow, upstream: Upstream) -> Denial | None:
    """Put the request for `upstream` in the flow, or say why not."""
    exchange = call.exchange
    request = exchange.request
    gateway = bridge.master.gateway
    inside = isinstance(flow.client_conn.proxy_mode, GatewayMode)
    target, fields = upstream_head(
        exchange,
        request,
        upstream,
        forwarding=gateway.forwarding if inside else "none",
        trusted=bridge.proxies.trusts(exchange.client.peer),
    )
    wanted = upgrade_of(request)
    if wanted:
        if wanted != "websocket" or not upstream.websocket:
            return errors.UPGRADE_NOT_ALLOWED.denial()
        fields += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    if call.pipeline.decodes or call.pipeline.gather_response:
        fields = [field for field in fields if field[0].lower() != b"accept-encoding"]
        fields.append((b"accept-encoding", b"identity"))
    content = request.data.content
    if call.gathering or content is not None:  # gathered, or put in place of what streams
        if content or has_body(flow.request):
            fields.append((b"content-length", b"%d" % len(content or b"")))
    else:
        length = content_length(flow.request)
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        elif call.unread:
            fields.append((b"transfer-encoding", b"chunked"))
    if flow.client_conn.alpn in MULTIPLEXED:
        fields += hop_of(request)
    absolute = isinstance(upstream, Destination) and upstream.via is not None
    sent = make_request(
        request.data.method,
        upstream.scheme.encode(),
        upstream.authority if absolute and upstream.scheme == "http" else b"",
        upstream.host,
        upstream.port,
        target,
        tuple(fields),
        content,
        time.time(),
    )
    flow.request = sent
    return None


def has_body(request: http.Request) -> bool:
    """Whether a request came with a body, be it an empty one."""
    return content_length(request) is not None or "transfer-encoding" in request.headers


def hop_of(request: http.Request) -> Fields:
    """The fields for this hop of a request that came in HTTP/2.

    Streams share no HTTP/1.1 connection. TE says that trailers are taken (RFC 9110 §10.1.4),
    where the caller says so: gRPC servers insist.
    """
    for name, value in request.data.headers.fields:
        if len(name) == 2 and name.lower() == b"te" and value.strip().lower() == b"trailers":
            return ((b"te", b"trailers"), (b"connection", b"close, TE"))
    return ((b"connection", b"close"),)


def upgrade_of(request: http.Request) -> str:
    """The protocol that a request wants to change to, lower case, or "".

    HTTP/2 by upgrade is not heard: a server may ignore it, and curl asks for it by itself.
    """
    for name, value in request.data.headers.fields:
        if len(name) == 7 and name.lower() == b"upgrade":
            wanted = value.decode("latin-1").strip().lower()
            return "" if wanted == "h2c" else wanted
    return ""


def was_closed(transports: Mapping[Connection, ConnectionIO], connection: Connection) -> bool:
    """Whether the peer has closed a connection, which a busy loop may not have read as yet.

    Asked before a connection is used again: a body that streams can't be sent a second time.
    """
    io = transports.get(connection)
    reader, writer = (None, None) if io is None else (io.reader, io.writer)
    if not isinstance(reader, StreamReader) or not isinstance(writer, StreamWriter):
        return True
    if reader.at_eof():
        return True
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
