"""What a scripted upstream does: small actions, put together per request.

    upstream.answer(head(200, {"content-length": "10"}), send(b"12345"), reset())

An action is an async function of a `Turn`. Where none of these fits, write one.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson

type Pairs = Mapping[str, str] | Iterable[tuple[str, str]]
type Action = Callable[[Turn], Awaitable[None]]

FOREVER: Final = 3600.0


@dataclass(frozen=True)
class Received:
    """A request as it came over the wire. `raw` holds its very bytes, body framing included."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes
    trailers: tuple[tuple[str, str], ...] = ()
    connection: int = 0
    """Number of the connection it came on, from 1."""

    def values(self, name: str) -> list[str]:
        """All values of a field; `name` in any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


@dataclass
class Turn:
    """One request on one connection, and the means to answer it."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    chunked: bool = field(default=False)

    async def write(self, data: bytes) -> None:
        """Send bytes, at the pace of the peer."""
        self.writer.write(data)
        await self.writer.drain()


def send(data: bytes) -> Action:
    """Send raw bytes: garbage, half a head, anything."""

    async def run(turn: Turn) -> None:
        await turn.write(data)

    return run


def head(status: int = 200, headers: Pairs = (), reason: str | None = None) -> Action:
    """Send a response head with these fields and no others."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    phrase = _phrase(status) if reason is None else reason
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in pairs)]
    return send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def chunk(data: bytes) -> Action:
    """Send one chunk of a chunked body."""
    return send(b"%x\r\n%b\r\n" % (len(data), data))


def last_chunk(trailers: Pairs = ()) -> Action:
    """End a chunked body."""
    pairs = trailers.items() if isinstance(trailers, Mapping) else trailers
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return send(f"0\r\n{lines}\r\n".encode("latin-1"))


def sleep(seconds: float) -> Action:
    """Do nothing for a time."""

    async def run(_: Turn) -> None:
        await asyncio.sleep(seconds)

    return run


def silence() -> Action:
    """Say nothing until the peer goes away."""

    async def run(turn: Turn) -> None:
        while await turn.reader.read(65536):
            pass

    return run


def drip(data: bytes, seconds: float, size: int = 1) -> Action:
    """Send `data` in pieces of `size`, one each `seconds`."""

    async def run(turn: Turn) -> None:
        for at in range(0, len(data), size):
            await turn.write(data[at : at + size])
            await asyncio.sleep(seconds)

    return run


def close() -> Action:
    """Close the connection in order (FIN)."""

    async def run(turn: Turn) -> None:
        turn.writer.close()

    return run


def reset() -> Action:
    """Break the connection (RST): what was not yet read by the peer may be lost to it."""

    async def run(turn: Turn) -> None:
        sock = turn.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        turn.writer.transport.abort()

    return run


def switch_protocols(protocol: str = "x") -> Action:
    """`101`, whether it was asked for or not."""
    return head(101, {"connection": "upgrade", "upgrade": protocol})


def early_hints() -> Action:
    """`103`, an interim response (RFC 8297)."""
    return head(103, {"link": "</style.css>; rel=preload; as=style"})


# -- whole answers ----------------------------------------------------------------------------


def body(data: bytes, status: int = 200, headers: Pairs = ()) -> tuple[Action, ...]:
    """A whole answer with Content-Length."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in pairs}
    if "content-type" not in names:
        pairs.append(("content-type", "text/plain"))
    return head(status, [*pairs, ("content-length", str(len(data)))]), send(data)


def json(value: Any, status: int = 200, headers: Pairs = ()) -> tuple[Action, ...]:
    """A whole answer in JSON."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    return body(orjson.dumps(value), status, [*pairs, ("content-type", "application/json")])


def chunked(
    *chunks: bytes, status: int = 200, headers: Pairs = (), trailers: Pairs = ()
) -> tuple[Action, ...]:
    """A whole answer in chunks."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    return (
        head(status, [*pairs, ("transfer-encoding", "chunked")]),
        *(chunk(data) for data in chunks),
        last_chunk(trailers),
    )


def sse(*events: str, pause: float = 0.0, done: bool = True) -> tuple[Action, ...]:
    """An event stream: one chunk per event, `pause` seconds after each, then `[DONE]`."""
    actions: list[Action] = [
        head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
    ]
    for event in (*events, *(("[DONE]",) if done else ())):
        actions.append(chunk(f"data: {event}\n\n".encode()))
        if pause:
            actions.append(sleep(pause))
    return (*actions, last_chunk())


def cut_body(data: bytes, missing: int = 10) -> tuple[Action, ...]:
    """Content-Length promises `missing` bytes more than come before the connection ends."""
    return head(200, {"content-length": str(len(data) + missing)}), send(data), close()


def cut_chunk(data: bytes, missing: int = 10) -> tuple[Action, ...]:
    """The connection ends `missing` bytes before the end of a chunk."""
    start = b"%x\r\n%b" % (len(data) + missing, data)
    return head(200, {"transfer-encoding": "chunked"}), send(start), close()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
