"""Heads and framing of what the client gets, and of what goes upstream."""

from __future__ import annotations

import time
from random import getrandbits
from typing import cast

from mitmproxy import http
from mitmproxy.net.http import http1

from tidegate.api.exchange import Exchange
from tidegate.api.types import Denial
from tidegate.runtime.heads import client_fields
from tidegate.runtime.messages import Fields, error_response, make_response


def envelope(denial: Denial, request_id: str = "") -> http.Response:
    """The answer to a head that never became an exchange. The connection closes after it."""
    request_id = request_id or f"{getrandbits(96):024x}"
    response = error_response(denial, request_id, time.time())
    response.headers.fields += (
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    )
    return response


def wire(response: http.Response) -> bytes:
    """A response in HTTP/1.1."""
    return cast(bytes, http1.assemble_response(response))  # type: ignore[no-untyped-call]


def whole(exchange: Exchange, response: http.Response, *, close: bool) -> http.Response:
    """`response` as the client gets it, with its body and Content-Length."""
    data = response.data
    content = data.content or b""
    fields = client_fields(exchange, response)
    head = exchange.request.data.method == b"HEAD"
    if head or data.status_code == 304:
        length = len(content) if content else content_length(response)
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        content = b""
    elif data.status_code == 204:
        content = b""
    else:
        fields.append((b"content-length", b"%d" % len(content)))
    fields += persistence(exchange.request, close=close)
    sent = make_response(
        data.status_code, data.reason, tuple(fields), content, data.timestamp_start
    )
    sent.data.trailers = None
    return sent


def streamed(
    exchange: Exchange, response: http.Response, *, keep_length: bool, close: bool
) -> http.Response:
    """The head of `response` as the client gets it, framed for a body that follows."""
    data = response.data
    fields = client_fields(exchange, response)
    length = content_length(response) if keep_length else None
    version = exchange.request.data.http_version
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    elif version == b"HTTP/1.1":
        fields.append((b"transfer-encoding", b"chunked"))
    elif version == b"HTTP/1.0":
        close = True
    fields += persistence(exchange.request, close=close)
    return make_response(data.status_code, data.reason, tuple(fields), None, data.timestamp_start)


def persistence(request: http.Request, *, close: bool) -> Fields:
    """What is said of the connection after an answer (RFC 9112 §9.3)."""
    if close:
        return ((b"connection", b"close"),)
    if request.data.http_version == b"HTTP/1.0":
        return ((b"connection", b"keep-alive"),)
    return ()


def closes(request: http.Request) -> bool:
    """Whether a client wants its connection closed after the answer (RFC 9112 §9.6)."""
    tokens: set[bytes] = set()
    for name, value in request.data.headers.fields:
        if len(name) == 10 and name.lower() == b"connection":
            tokens.update(token.strip() for token in value.lower().split(b","))
    if request.data.http_version == b"HTTP/1.0":
        return b"keep-alive" not in tokens or b"close" in tokens
    return b"close" in tokens


def switching(exchange: Exchange, response: http.Response) -> http.Response:
    """The 101 that opens a WebSocket (RFC 6455 §4.2.2)."""
    data = response.data
    fields = client_fields(exchange, response)
    fields += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    return make_response(101, data.reason, tuple(fields), b"", data.timestamp_start)


def content_length(message: http.Message) -> int | None:
    """What Content-Length says; it was checked when the head was parsed."""
    for name, value in message.data.headers.fields:
        if len(name) == 14 and name.lower() == b"content-length":
            return int(value)
    return None
