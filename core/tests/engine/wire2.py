"""HTTP/2 frame by frame: a client that sends exactly what a test says, valid or not."""

from __future__ import annotations

import asyncio
import ssl
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM, END_HEADERS, PADDED, PRIORITIZED, ACK = 0x1, 0x4, 0x8, 0x20, 0x1

REQUEST = ((":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/"))


@dataclass
class Frame:
    """A frame as it came."""

    type: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        at = 4 if self.type == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4])


def frame(type_: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Any frame, with the reserved bit of `stream` as it is given."""
    head = struct.pack(">I", len(payload))[1:] + bytes((type_, flags))
    return head + struct.pack(">I", stream) + payload


def block(*more: tuple[str, str], fields: tuple[tuple[str, str], ...] = REQUEST) -> bytes:
    """A field block that leaves the dynamic table alone."""
    encoder = Encoder()
    encoder.header_table_size = 0
    encoded: bytes = encoder.encode([*fields, *more])
    return encoded


def without(name: str) -> tuple[tuple[str, str], ...]:
    """A request's fields but for one."""
    return tuple(field for field in REQUEST if field[0] != name)


def post(*more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """A POST's fields."""
    return ((":method", "POST"), *without(":method"), *more)


def headers(
    stream: int = 1, payload: bytes | None = None, flags: int = END_HEADERS | END_STREAM
) -> bytes:
    """HEADERS; by default a whole GET."""
    return frame(HEADERS, flags, stream, block() if payload is None else payload)


def opened(stream: int = 1, *more: tuple[str, str]) -> bytes:
    """HEADERS of a request whose body follows."""
    return headers(stream, block(fields=post(*more)), END_HEADERS)


def data(stream: int = 1, payload: bytes = b"test", flags: int = END_STREAM) -> bytes:
    return frame(DATA, flags, stream, payload)


def settings(*pairs: tuple[int, int], flags: int = 0, stream: int = 0) -> bytes:
    return frame(SETTINGS, flags, stream, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window(increment: int, stream: int = 0) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def reset(stream: int = 1, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def ping(payload: bytes = b"01234567", flags: int = 0, stream: int = 0) -> bytes:
    return frame(PING, flags, stream, payload)


def priority(stream: int, on: int, weight: int = 16) -> bytes:
    return frame(PRIORITY, 0, stream, struct.pack(">IB", on, weight))


class Peer:
    """`async with Peer(port, trust) as peer`: the preface and SETTINGS are exchanged."""

    def __init__(self, port: int, trust: ssl.SSLContext, begin: bytes = PREFACE + settings()):
        self._port = port
        self._trust = trust
        self._begin = begin
        self.seen: list[Frame] = []
        """What came after the settings, in order."""
        self.closed = False

    async def __aenter__(self) -> Self:
        self._trust.set_alpn_protocols(["h2"])
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._trust, server_hostname="localhost"
        )
        self.send(self._begin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    def send(self, *raw: bytes) -> None:
        self.writer.write(b"".join(raw))

    async def receive(self, seconds: float = 10) -> Frame | None:
        """The next frame; None: the connection is over. SETTINGS are acknowledged."""
        try:
            async with asyncio.timeout(seconds):
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3]))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
            return None
        stream = int.from_bytes(head[5:])
        got = Frame(head[3], head[4], stream, payload)
        if got.type == SETTINGS and not got.flags & ACK:
            self.send(settings(flags=ACK))
        self.seen.append(got)
        return got

    async def until(self, type_: int, stream: int | None = None, flag: int = 0) -> Frame | None:
        """The next frame of a type (and stream, with a flag); None: the end came first."""
        while (got := await self.receive()) is not None:
            if got.type == type_ and stream in (None, got.stream) and got.flags & flag == flag:
                return got
        return None
