"""A small HTTP/2 client that can also misbehave: h2's state machine over a socket."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import h2.config
import h2.connection
import h2.events


@dataclass
class Stream:
    """What came on one stream."""

    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return int(self.fields[":status"])


class Http2Client:
    """`async with Http2Client(port, context) as client`. `gone` holds a GOAWAY's error code.

    With `auto` off, flow-control windows are not opened again.
    """

    def __init__(
        self, port: int, context: ssl.SSLContext, *, host: str = "127.0.0.1", auto: bool = True
    ) -> None:
        self._at = (host, port)
        self._context = context
        self._auto = auto
        context.set_alpn_protocols(["h2"])
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.streams: dict[int, Stream] = {}
        self.gone: int | None = None
        self.closed = False
        self.events: list[Any] = []
        self.changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(
            *self._at, ssl=self._context, server_hostname="localhost"
        )
        self.h2.initiate_connection()
        self.flush()
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._task.cancel()
        self.writer.transport.abort()
        await asyncio.gather(self._task, return_exceptions=True)

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def open(
        self,
        path: str = "/",
        *more: tuple[str, str],
        method: str = "GET",
        authority: str = "localhost",
        end: bool = True,
    ) -> int:
        """Begin a request; its stream id."""
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", authority)]
        self.h2.send_headers(stream, [*fields, (":path", path), *more], end_stream=end)
        self.streams[stream] = Stream()
        self.flush()
        return stream

    async def until(self, condition: Any, seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def get(self, path: str = "/", *more: tuple[str, str], **options: Any) -> Stream:
        stream = self.streams[self.open(path, *more, **options)]
        await self.until(lambda: stream.ended or stream.reset is not None or self.closed)
        return stream

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._take(event)
                self.flush()
                self.changed.set()
        except ConnectionError:
            pass
        finally:
            self.closed = True
            self.changed.set()

    def _take(self, event: Any) -> None:
        self.events.append(event)
        stream = self.streams.get(getattr(event, "stream_id", None) or 0, Stream())
        match event:
            case h2.events.ResponseReceived():
                stream.fields = dict(event.headers)
            case h2.events.TrailersReceived():
                stream.trailers = dict(event.headers)
            case h2.events.DataReceived():
                stream.body += event.data
                if self._auto:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                stream.ended = True
            case h2.events.StreamReset():
                stream.reset = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.gone = int(event.error_code)
