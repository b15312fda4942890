"""A lane on a real socket, a raw client, and the small addons that the tests put in force."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest_asyncio
import uvloop

from tidegate.api import AddonConfig, Exchange, Plugin, Upstream, hook
from tidegate.lane import Lane
from tidegate.runtime.settings import Listener
from tidegate.testing import Harness, Use


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The lane runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


class To(Plugin):
    """Routes everything to `upstream`, set by the test."""

    class Config(AddonConfig):
        upstream: Any = None

    @hook
    def route(self, exchange: Exchange) -> Upstream | None:
        return self.config.upstream


class Recorder(Plugin):
    """Keeps each exchange that has ended."""

    def __init__(self, config: AddonConfig, context: Any) -> None:
        super().__init__(config, context)
        self.ended: list[Exchange] = []
        self.news = asyncio.Event()

    @hook
    def log(self, exchange: Exchange) -> None:
        self.ended.append(exchange)
        self.news.set()


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool = True
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return next(value for key, value in self.headers if key == name)

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def code(self) -> str:
        code: str = orjson.loads(self.body)["error"]["code"]
        return code


class Peer:
    """A client that sends bytes and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def line(self) -> str:
        async with asyncio.timeout(10):
            return (await self.reader.readuntil(b"\r\n")).decode("latin-1")[:-2]

    async def fields(self) -> list[tuple[str, str]]:
        found = []
        while line := await self.line():
            name, _, value = line.partition(":")
            found.append((name.lower(), value.strip()))
        return found

    async def head(self) -> Answer:
        status = int((await self.line()).split(" ")[1])
        return Answer(status, await self.fields(), b"")

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, whole, or as much of it as there is."""
        answer = await self.head()
        async with asyncio.timeout(10):
            try:
                if answer.get("transfer-encoding") == "chunked":
                    while size := int((await self.line()).partition(";")[0], 16):
                        answer.body += await self.reader.readexactly(size)
                        assert await self.line() == ""
                    answer.trailers = await self.fields()
                elif method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
                    pass
                elif (length := answer.get("content-length")) is not None:
                    answer.body = await self.reader.readexactly(int(length))
                else:
                    answer.body = await self.reader.read()
            except asyncio.IncompleteReadError as error:
                answer.complete = False
                answer.body += error.partial
        return answer

    async def get(self, path: str = "/", **headers: str) -> Answer:
        lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
        await self.send(f"GET {path} HTTP/1.1\r\nHost: api.test\r\n{lines}\r\n".encode())
        return await self.answer()

    async def post(self, body: bytes, path: str = "/", **headers: str) -> Answer:
        lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
        head = f"POST {path} HTTP/1.1\r\nHost: api.test\r\n{lines}Content-Length: {len(body)}\r\n"
        await self.send(head.encode() + b"\r\n" + body)
        return await self.answer()

    async def closed(self, seconds: float = 10.0) -> bytes:
        """What comes until the connection closes."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()


class Running:
    """A lane that serves."""

    def __init__(self, harness: Harness, lane: Lane, server: asyncio.Server) -> None:
        self.harness = harness
        self.lane = lane
        self.server = server
        self.port: int = server.sockets[0].getsockname()[1]
        self.peers: list[Peer] = []

    async def connect(self, tls: ssl.SSLContext | None = None, name: str = "") -> Peer:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls, server_hostname=name or None, limit=2**20
        )
        peer = Peer(reader, writer)
        self.peers.append(peer)
        return peer

    async def ended(self, count: int = 1) -> list[Exchange]:
        """The exchanges that have ended, once there are `count`."""
        recorder = self.harness.plugin("Recorder")
        async with asyncio.timeout(10):
            while len(recorder.ended) < count:
                recorder.news.clear()
                await recorder.news.wait()
        return list(recorder.ended)


type Serve = Callable[..., Any]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts lanes: `running = await serve(upstream_or_None, *addons, gateway={…})`."""
    async with AsyncExitStack() as stack:

        async def start(
            upstream: Upstream | None,
            *uses: Use | type[Plugin[Any]],
            gateway: Mapping[str, Any] | None = None,
            listener: Listener | None = None,
            handover: Any = None,
        ) -> Running:
            addons = [Recorder, *uses]
            if upstream is not None:
                addons.append(Use(To, {"upstream": upstream}))
            harness = await stack.enter_async_context(Harness(*addons, gateway=gateway))
            settings = harness.runtime.current.settings
            lane = Lane(harness.runtime, settings, handover=handover)
            stack.push_async_callback(lane.stop)
            listener = listener or settings.gateway.listen[0]
            server = await asyncio.get_running_loop().create_server(
                lambda: lane.protocol(listener), "127.0.0.1", 0, ssl=lane.tls(listener)
            )
            stack.callback(server.close)
            running = Running(harness, lane, server)
            stack.callback(lambda: [peer.close() for peer in running.peers])
            return running

        yield start
