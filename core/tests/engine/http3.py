"""An HTTP/3 client that does what a test says, on aioquic."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection, Setting
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

type Fields = Sequence[tuple[bytes, bytes]]
GET: Final = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"))


class Stream:
    """What came on one stream."""

    def __init__(self) -> None:
        self.heads: list[dict[bytes, bytes]] = []
        self.body = bytearray()
        self.ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.heads[0][b":status"]) if self.heads else 0


class Client(QuicConnectionProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.quic = self._quic
        self.h3 = H3Connection(self._quic)
        self.streams: dict[int, Stream] = {}
        self.over: ConnectionTerminated | None = None
        self._moved = asyncio.Event()

    def quic_event_received(self, event: QuicEvent) -> None:
        """From aioquic."""
        if isinstance(event, ConnectionTerminated):
            self.over = event
        elif isinstance(event, StreamReset):
            self.streams[event.stream_id].reset = event.error_code
        for found in self.h3.handle_event(event):
            self._take(found)
        self._moved.set()

    def _take(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.streams[event.stream_id].heads.append(dict(event.headers))
            self.streams[event.stream_id].ended |= event.stream_ended
        elif isinstance(event, DataReceived):
            self.streams[event.stream_id].body += event.data
            self.streams[event.stream_id].ended |= event.stream_ended

    async def until(self, true: Callable[[], Any], seconds: float = 20) -> None:
        """Wait for something to become true."""
        async with asyncio.timeout(seconds):
            while not true():
                self._moved.clear()
                await self._moved.wait()

    def open(
        self,
        path: str = "/",
        *fields: tuple[bytes, bytes],
        body: bytes | None = None,
        end: bool = True,
        method: bytes = b"GET",
    ) -> tuple[int, Stream]:
        """Begin a request."""
        head = [(b":method", method), *GET[1:], (b":path", path.encode()), *fields]
        return self.head(head, body=body, end=end)

    def head(
        self, fields: Fields, *, body: bytes | None = None, end: bool = True
    ) -> tuple[int, Stream]:
        """Begin a request with these very fields."""
        stream_id = self.quic.get_next_available_stream_id()
        stream = self.streams[stream_id] = Stream()
        self.h3.send_headers(stream_id, list(fields), end_stream=end and body is None)
        if body is not None:
            self.h3.send_data(stream_id, body, end_stream=end)
        self.transmit()
        return stream_id, stream

    def raw(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Send bytes on a stream."""
        self.streams.setdefault(stream_id, Stream())
        self.quic.send_stream_data(stream_id, data, end)
        self.transmit()

    async def get(self, path: str = "/", *fields: tuple[bytes, bytes], **more: Any) -> Stream:
        """One exchange."""
        _, stream = self.open(path, *fields, **more)
        await self.until(lambda: stream.ended or stream.reset is not None or self.over)
        return stream

    @property
    def settings(self) -> dict[int, int]:
        """What the server has said of itself."""
        return {Setting(k): v for k, v in (self.h3.received_settings or {}).items()}


@asynccontextmanager
async def client(port: int, ca: Path | None, **options: Any) -> AsyncIterator[Client]:
    """A connection to `localhost` that believes one CA."""
    settings = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost", **options)
    settings.verify_mode = ssl.CERT_REQUIRED
    if ca is not None:
        settings.load_verify_locations(str(ca))
    async with connect(
        "127.0.0.1", port, configuration=settings, create_protocol=Client
    ) as protocol:
        assert isinstance(protocol, Client)
        yield protocol
