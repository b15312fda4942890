"""A running engine per test, on uvloop, over real sockets. One Master at a time."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_asyncio import fixture as async_fixture

from tidegate.api import Exchange, Plugin, Upstream, hook, upstream_from_url
from tidegate.engine import Engine, new_loop
from tidegate.lane import Lane
from tidegate.runtime.guard import watch
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.settings import parse
from tidegate.testing import ScriptedUpstream
from tidegate.testing.certificates import Authority

from .http3_node import Front, fronts


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """Every test of this folder runs on the engine's own loop."""
    return {"uvloop": new_loop}


class Answer:
    """An HTTP/1.1 answer as it came over the wire."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1]) if first else 0
        self.fields = [(n.lower(), v.strip()) for n, _, v in (x.partition(":") for x in lines)]

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]

    def __contains__(self, name: str) -> bool:
        return name in dict(self.fields)

    @property
    def code(self) -> str:
        """The code of the error envelope."""
        return str(json.loads(self.body)["error"]["code"])


class Serving:
    """One engine with one listener, and what it served."""

    def __init__(self, engine: Engine, runtime: Runtime, sock: socket.socket) -> None:
        self.engine = engine
        self.runtime = runtime
        self.sock = sock
        self.logged: list[Exchange] = []
        self.log_event = asyncio.Event()

    @property
    def port(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=20, trust_env=False, **options)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def raw(self, data: bytes, seconds: float = 20) -> Answer:
        """Send bytes, read until the gateway closes."""
        reader, writer = await self.connect()
        writer.write(data)
        async with asyncio.timeout(seconds):
            try:
                got = await reader.read(-1)
            finally:
                writer.close()
        return Answer(got)

    async def get(self, path: str = "/", *fields: str, method: str = "GET") -> Answer:
        """One request on a connection that closes after it."""
        lines = [f"{method} {path} HTTP/1.1", "Host: api.test", "Connection: close", *fields]
        return await self.raw(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def last(self, count: int = 1) -> Exchange:
        """The exchange that was logged last, when `count` have been."""
        async with asyncio.timeout(20):
            while len(self.logged) < count:
                self.log_event.clear()
                await self.log_event.wait()
        assert len(self.logged) == count
        return self.logged[-1]


type Serve = Callable[..., Awaitable[Serving]]


def router(to: Any, **options: Any) -> type[Plugin]:
    """A plugin that sends everything to one upstream."""
    target = to if isinstance(to, Upstream) else upstream_from_url(to, **options)

    class Router(Plugin):
        @hook
        def route(self, exchange: Exchange) -> Upstream:
            return target

    return Router


@async_fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """`await serve(plugin, …, gateway="toml lines")`: the plugins in that order, then a log."""
    async with AsyncExitStack() as stack:

        async def start(
            *plugins: type[Plugin],
            gateway: str = "",
            listener: str = "",
            more: str = "",
            options: str = "",
            guarded: bool = False,
            carrier: str = "engine",
        ) -> Serving:
            serving: list[Serving] = []

            class Log(Plugin):
                @hook
                def log(self, exchange: Exchange) -> None:
                    serving[0].logged.append(exchange)
                    serving[0].log_event.set()

            classes = {f"p{i}": plugin for i, plugin in enumerate(plugins)}
            text = f'[gateway]\ncarrier = "{carrier}"\n{gateway}\n'
            text += f'[[gateway.listen]]\nname = "main"\naddress = "127.0.0.1:0"\n{listener}\n'
            text += "".join(f'[[addon]]\nuse = "{name}"\n{options}\n' for name in classes)
            text += f'[[addon]]\nuse = "log"\n{more}\n'
            settings = parse(text, base=tmp_path)
            runtime = Runtime(Host(tmp_path / "state", plugins={**classes, "log": Log}))
            runtime.commit(await runtime.prepare(settings))
            sock = socket.create_server(("127.0.0.1", 0))
            lane = Lane(runtime, settings) if carrier == "lane" else None
            engine = Engine(runtime, settings, lane)
            serving.append(Serving(engine, runtime, sock))
            await engine.start({"main": sock})
            if guarded:
                watch.start()
                stack.callback(watch.stop)

            async def end() -> None:
                await engine.stop()
                await runtime.close()
                sock.close()

            stack.push_async_callback(end)
            return serving[0]

        yield start


@pytest.fixture
def route_to() -> Callable[..., type[Plugin]]:
    return router


@async_fixture
async def http3_origin(tmp_path: Path) -> AsyncIterator[ScriptedUpstream]:
    """An HTTPS origin at `localhost`, whose CA is `tmp_path / "origin.pem"`."""
    authority = Authority()
    (tmp_path / "origin.pem").write_bytes(authority.pem)
    async with ScriptedUpstream(tls=authority.server("localhost", "127.0.0.1")) as upstream:
        yield upstream


@async_fixture
async def front3(
    tmp_path: Path, http3_origin: ScriptedUpstream, unused_udp_port: int
) -> AsyncIterator[Front]:
    """`await front3(plugin, …, gateway="toml lines")`: a node with `reverse:http3:`."""
    async with fronts(tmp_path, http3_origin, unused_udp_port) as begin:
        yield begin
