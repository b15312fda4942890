"""HTTP/1.1 on both sides: mitmproxy's connections with our limits, framing and errors.

What differs from mitmproxy: heads are bounded; a refused head is answered in the error envelope
and never written to a log; trailers and 1xx answers don't crash or end the exchange; a 101 that
nobody asked for is an error; messages are built without the constructor that costs 70 µs.
"""

from __future__ import annotations

import re
import time
from typing import Any, Final, cast

import h11
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.net.http import http1
from mitmproxy.net.http.http1.read import _read_request_line, _read_response_line
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)

from tidegate.api import errors
from tidegate.api.types import Denial
from tidegate.runtime.heads import merge_trailers
from tidegate.runtime.messages import Fields, make_request, make_response

from .answers import envelope, wire
from .chunks import ChunkReader, TrailersTooLarge
from .limits import limits

type Commands = layer.CommandGenerator[None]

RESPONSE_HEAD: Final = 256 * 1024
"""Bytes that an upstream's head may have."""

BAD_BODY: Final = "bad body"
"""What is wrong with a request whose body is not well-formed; its client is still there."""
BIG_TRAILERS: Final = "big trailers"
"""What is wrong with a request whose trailers are over the limits of a head."""
UNEXPECTED_UPGRADE: Final = "unexpected upgrade"
"""What is wrong with an answer that is a 101 nobody asked for."""


class Malformed(ValueError):
    """A head that is not HTTP. The text is for the caller and repeats nothing of the head."""

    code = errors.BAD_REQUEST_FRAMING


class BadTarget(Malformed):
    """A request line that is well-formed, with a target that is not."""

    code = errors.BAD_REQUEST_TARGET


LENGTH_DIGITS: Final = 18
"""Digits of a Content-Length that no parser takes for another number."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) (HTTP/1\.[01])")
_FIELD_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")


def read_fields(lines: list[bytes]) -> Fields:
    """Field lines as they are. Raises Malformed: no folding, no control characters, no space
    before the colon (RFC 9112 §5)."""
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        found = _FIELD_LINE.fullmatch(line)
        if found is None:
            raise Malformed("A header field line is not well-formed.")
        fields.append((found[1], found[2].strip(b" \t")))
    return tuple(fields)


def read_request(lines: list[bytes]) -> http.Request:
    """A request without body. Raises Malformed."""
    if not _REQUEST_LINE.fullmatch(lines[0]):
        raise Malformed("The request line is not well-formed.")
    try:
        host, port, method, scheme, authority, path, version = _read_request_line(lines[0])
    except ValueError:
        raise BadTarget("The request target is not well-formed.") from None
    fields = read_fields(lines[1:])
    for name, value in fields:
        name = name.lower()
        if name == b"transfer-encoding" and value.lower() != b"chunked":
            raise Malformed("A transfer coding other than chunked.")
        if name == b"content-length" and len(value) > LENGTH_DIGITS:
            raise Malformed("Content-Length is not a length.")
    return make_request(
        method, scheme, authority, host, port, path, fields, None, time.time(), version
    )


def read_response(lines: list[bytes]) -> http.Response:
    """A response without body. Raises Malformed."""
    try:
        version, status, reason = _read_response_line(lines[0])
    except ValueError:
        raise Malformed("The status line is not well-formed.") from None
    if not 100 <= status <= 999:
        raise Malformed("The status code is out of range.")
    fields = read_fields(lines[1:])
    return make_response(status, reason, fields, None, time.time(), version)


def extract(buffer: Any, *, strict: bool = False) -> list[bytes] | None:
    """The lines of the next head in an h11 buffer, or None. Blank lines before it are skipped.

    `strict`: Malformed where a line ends in LF alone, in which parsers differ (RFC 9112 §2.2).
    """
    while True:
        before = bytes(buffer) if strict else b""
        lines = buffer.maybe_extract_lines()
        if lines is None:
            return None
        if strict:
            head = before[: len(before) - len(buffer)]
            if head.count(b"\n") != head.count(b"\r\n"):
                raise Malformed("A line does not end in CRLF.")
        if lines:
            return [bytes(line) for line in lines]


def unfinished(buffer: Any, limit: int) -> Denial | None:
    """What is wrong with the beginning of a head, if it is certain already."""
    start = bytes(buffer._data[:1])
    if start and start not in b"\r\n" and not _TOKEN.match(start):
        return errors.BAD_REQUEST_FRAMING.denial()
    if len(buffer) <= limit:
        return None
    if buffer._data.find(b"\n") < 0:
        return errors.URI_TOO_LONG.denial()
    return errors.HEADERS_TOO_LARGE.denial()


class Server(_http1.Http1Server):
    """The client's side."""

    trailers: Fields = ()

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        """Wait for a request head."""
        if not isinstance(event, events.DataReceived):
            yield commands.CloseConnection(self.conn)
            return
        bounds = limits()
        try:
            lines = extract(self.buf, strict=True)
        except Malformed as error:
            yield from self.refuse(errors.BAD_REQUEST_FRAMING.denial(str(error)))
            return
        if lines is None:
            denial = unfinished(self.buf, bounds.head)
            if denial is not None:
                yield from self.refuse(denial)
            return
        denial = None
        if len(lines[0]) > bounds.target + 32:
            denial = errors.URI_TOO_LONG.denial()
        elif len(lines) - 1 > bounds.fields or sum(map(len, lines)) > bounds.head:
            denial = errors.HEADERS_TOO_LARGE.denial()
        else:
            try:
                self.request = read_request(lines)
                size = http1.expected_http_body_size(self.request)
            except Malformed as error:
                denial = error.code.denial(str(error))
            except ValueError:
                denial = errors.BAD_REQUEST_FRAMING.denial()
        if denial is not None:
            yield from self.refuse(denial)
            return
        assert self.request is not None
        yield ReceiveHttp(RequestHeaders(self.stream_id, self.request, size == 0))
        if size is None:
            self.body_reader = cast(Any, ChunkReader(bounds.fields, bounds.head))
        else:
            self.body_reader = _http1.make_body_reader(size)
        self.state = self.read_body
        yield from self.state(event)

    def refuse(self, denial: Denial) -> Commands:
        """Answer a head that never became an exchange, and close."""
        yield commands.SendData(self.conn, wire(envelope(denial)))
        yield commands.CloseConnection(self.conn)
        self.state = self.done

    def read_body(self, event: events.Event) -> Commands:
        """Pass on what there is of the body. Trailers are dropped (RFC 9110 §6.5.1)."""
        while True:
            try:
                if isinstance(event, events.DataReceived):
                    part = self.body_reader(self.buf)
                else:
                    part = self.body_reader.read_eof()
            except h11.ProtocolError as error:
                self.state = self.done
                reason, code = BAD_BODY, ErrorCode.GENERIC_CLIENT_ERROR
                if isinstance(error, TrailersTooLarge):
                    reason = BIG_TRAILERS
                if not isinstance(event, events.DataReceived):
                    yield commands.CloseConnection(self.conn)
                    reason, code = "gone", ErrorCode.CLIENT_DISCONNECTED
                yield ReceiveHttp(RequestProtocolError(self.stream_id, reason, code))
                return
            if part is None:
                return
            if isinstance(part, h11.Data):
                if part.data:
                    yield ReceiveHttp(RequestData(self.stream_id, bytes(part.data)))
                continue
            assert self.request is not None
            if self.request.data.method != b"CONNECT":
                yield ReceiveHttp(RequestEndOfMessage(self.stream_id))
            yield from self.mark_done(request=True)
            return

    def send(self, event: Any) -> Commands:
        """Write a part of the answer."""
        if isinstance(event, ResponseTrailers):
            self.trailers = tuple(event.trailers.fields)
            return
        if isinstance(event, ResponseEndOfMessage) and self.trailers:
            assert self.request is not None
            assert self.response is not None
            trailers, self.trailers = self.trailers, ()
            chunked = self.response.headers.get("transfer-encoding", "") == "chunked"
            if chunked and self.request.method != "HEAD":
                lines = b"".join(b"%s: %s\r\n" % field for field in trailers)
                yield commands.SendData(self.conn, b"0\r\n%s\r\n" % lines)
                yield from self.mark_done(response=True)
                return
        if isinstance(event, ResponseProtocolError):
            if self.conn.state & ConnectionState.CAN_WRITE:
                if self.response is None and event.code.http_status_code() is not None:
                    raw = wire(envelope(errors.INTERNAL_ERROR.denial()))
                    yield commands.SendData(self.conn, raw)
                yield commands.CloseConnection(self.conn)
            return
        yield from super().send(event)


class Client(_http1.Http1Client):
    """The upstream's side."""

    upgrade = False
    """Whether the request asked for another protocol: only then may a 101 come."""

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        """Wait for a response head, past any 1xx (RFC 9110 §15.2)."""
        if not isinstance(event, events.DataReceived):
            if self.conn.state & ConnectionState.CAN_WRITE:
                yield commands.CloseConnection(self.conn)
            if self.stream_id:
                kind = "cut" if self.buf else "closed"
                yield from self.broken(kind)
            return
        if self.request is None:  # bytes that answer nothing: whose would they be?
            yield commands.CloseConnection(self.conn)
            return
        while True:
            lines = extract(self.buf)
            if lines is None:
                if len(self.buf) > RESPONSE_HEAD:
                    yield from self.broken("head too large", close=True)
                return
            try:
                response = read_response(lines)
                size = http1.expected_http_body_size(self.request, response)
            except ValueError:
                yield from self.broken("malformed head", close=True)
                return
            status = response.data.status_code
            if status == 101 and "upgrade" not in self.request.headers:
                yield from self.broken(UNEXPECTED_UPGRADE, close=True)
                return
            if status >= 200 or status == 101:
                break
        assert self.stream_id is not None
        self.response = response
        yield ReceiveHttp(ResponseHeaders(self.stream_id, response, size == 0))
        self.body_reader = _http1.make_body_reader(size)
        self.state = self.read_body
        yield from self.state(event)

    def broken(self, reason: str, *, close: bool = False) -> Commands:
        """The answer can't be used."""
        assert self.stream_id is not None
        if close:
            yield commands.CloseConnection(self.conn)
        error = ResponseProtocolError(self.stream_id, reason, ErrorCode.GENERIC_SERVER_ERROR)
        yield ReceiveHttp(error)

    def read_body(self, event: events.Event) -> Commands:
        """Pass on what there is of the body, and its trailers."""
        assert self.stream_id is not None
        while True:
            try:
                if isinstance(event, events.DataReceived):
                    part = self.body_reader(self.buf)
                else:
                    part = self.body_reader.read_eof()
                if part is None and len(self.buf) > RESPONSE_HEAD:
                    raise h11.RemoteProtocolError("an endless line between chunks")
            except h11.ProtocolError:
                yield from self.broken("cut", close=True)
                return
            if part is None:
                return
            if isinstance(part, h11.Data):
                if part.data:
                    yield ReceiveHttp(ResponseData(self.stream_id, bytes(part.data)))
                continue
            trailers = merge_trailers(tuple(part.headers)) if part.headers else None
            if trailers is not None:
                yield ReceiveHttp(ResponseTrailers(self.stream_id, trailers))
            yield ReceiveHttp(ResponseEndOfMessage(self.stream_id))
            yield from self.mark_done(response=True)
            return

    def send(self, event: Any) -> Commands:
        """Write a part of the request."""
        if not isinstance(event, RequestTrailers):
            yield from super().send(event)
