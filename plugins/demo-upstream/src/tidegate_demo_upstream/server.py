"""A small HTTP/1.1 server on asyncio streams and llhttp, for loopback.

Keep-alive, pipelining (answers in order), Content-Length and chunked requests, whole and chunked
answers, `Expect: 100-continue`. Heads and bodies are bounded. It knows nothing of what it serves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

import httptools

log = logging.getLogger("tidegate.demo_upstream")

MAX_HEAD: Final = 32 * 1024
MAX_BODY: Final = 4 * 1024 * 1024
MAX_WAITING: Final = 16
"""Pipelined requests that may wait on one connection."""
READ: Final = 64 * 1024


@dataclass(slots=True)
class Request:
    """A whole request. `path` is without query; field names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool = True
    version: str = "1.1"


@dataclass(slots=True)
class Answer:
    """An answer: whole, or streamed where `body` is an async generator of chunks."""

    status: int
    body: bytes | AsyncGenerator[bytes, None]
    headers: dict[str, str] = field(default_factory=dict)


type Handler = Callable[[Request], Answer]
type Refuse = Callable[[int, str], Answer]


class BadRequest(Exception):
    """What came is not a request that this server takes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Incoming:
    """Requests out of bytes: llhttp's callbacks. No I/O but the `100 Continue` it asks for."""

    def __init__(self, proceed: Callable[[], None]) -> None:
        self.requests: deque[Request] = deque()
        self._proceed = proceed
        self._parser = httptools.HttpRequestParser(self)
        self._head_size = 0
        self._in_head = False
        self._reset()

    def feed(self, data: bytes) -> None:
        """Parse the next bytes. Raises BadRequest."""
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD + READ:
                raise BadRequest(431, "the request head is too large")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.requests.pop()  # llhttp reports it after the request is complete
            raise BadRequest(400, "upgrades are not served here") from None
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__ or error.__cause__
            raise cause if isinstance(cause, BadRequest) else error from None
        except httptools.HttpParserError as error:
            raise BadRequest(400, f"this is not HTTP: {error}") from None

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._size = 0

    # -- llhttp ---

    def on_message_begin(self) -> None:
        self._reset()
        self._in_head = True
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > MAX_HEAD:
            raise BadRequest(431, "the request head is too large")
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._size = 0
        if self._headers.get("expect", "").lower() == "100-continue":
            self._proceed()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY:
            raise BadRequest(413, "the request body is too large")
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if len(self.requests) >= MAX_WAITING:
            raise BadRequest(400, "too many pipelined requests")
        try:
            target = httptools.parse_url(self._url)
        except httptools.HttpParserInvalidURLError:
            raise BadRequest(400, "the request target is not valid") from None
        self.requests.append(
            Request(
                self._parser.get_method().decode("latin-1"),
                (target.path or b"/").decode("latin-1"),
                self._headers,
                b"".join(self._chunks),
                self._parser.should_keep_alive(),
                self._parser.get_http_version(),
            )
        )


class Server:
    """Serves a handler on one address; `refuse(status, message)` makes its errors."""

    def __init__(self, handler: Handler, refuse: Refuse) -> None:
        self._handler = handler
        self._refuse = refuse
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int = 0) -> None:
        """Listen; `port` is then the port. Raises OSError."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=READ)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, cut the connections that are left."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, TimeoutError):
            pass  # the client went away
        except asyncio.CancelledError:
            pass  # closing: asyncio.start_server logs a cancelled handler as an error
        except Exception:
            log.exception("a connection failed")
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming = Incoming(lambda: writer.write(b"HTTP/1.1 100 Continue\r\n\r\n"))
        while True:
            while not incoming.requests:
                data = await reader.read(READ)
                if not data:
                    return
                try:
                    incoming.feed(data)
                except BadRequest as error:
                    await self._drain_waiting(incoming, reader, writer)
                    answer = self._refuse(error.status, str(error))
                    await _send(answer, None, reader, writer)
                    return
            request = incoming.requests.popleft()
            await _send(self._answer(request), request, reader, writer)
            if not request.keep_alive:
                return

    async def _drain_waiting(
        self, incoming: Incoming, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer what came whole before the bytes that are wrong."""
        for request in incoming.requests:
            await _send(self._answer(request), request, reader, writer)

    def _answer(self, request: Request) -> Answer:
        try:
            return self._handler(request)
        except Exception:
            log.exception("the handler failed")
            return self._refuse(500, "the server failed")


async def _send(
    answer: Answer,
    request: Request | None,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Write an answer. `request` None: to bytes that are none; the connection closes."""
    keep = request is not None and request.keep_alive
    body = answer.body
    chunked = not isinstance(body, bytes) and (request is None or request.version != "1.0")
    if request is not None and not isinstance(body, bytes) and not chunked:
        keep = request.keep_alive = False  # HTTP/1.0: the end of the connection ends the body
    fields = dict(answer.headers)
    if isinstance(body, bytes):
        fields["content-length"] = str(len(body))
    elif chunked:
        fields["transfer-encoding"] = "chunked"
    if not keep:
        fields["connection"] = "close"
    reason = HTTPStatus(answer.status).phrase
    head = f"HTTP/1.1 {answer.status} {reason}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    writer.write(head.encode("latin-1"))
    silent = request is not None and request.method == "HEAD"
    if isinstance(body, bytes):
        writer.write(b"" if silent else body)
        await writer.drain()
    elif not silent:
        async with aclosing(body) as chunks:
            async for chunk in chunks:
                if reader.at_eof() or writer.is_closing():
                    raise ConnectionResetError("the client has gone")
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
        await writer.drain()
