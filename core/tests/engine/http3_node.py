"""A node with `reverse:http3:` in front of an HTTPS origin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tidegate.api import Exchange, Plugin, hook
from tidegate.engine import Engine
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.settings import parse
from tidegate.testing import ScriptedUpstream

from .http3 import Client, client


class Http3Node:
    """An engine with `reverse:http3:` to an origin, and what it logged."""

    def __init__(self, engine: Engine, port: int, state: Path) -> None:
        self.engine = engine
        self.port = port
        self.ca = state / "ca" / "mitmproxy-ca-cert.pem"
        self.logged: list[Exchange] = []

    @property
    def handlers(self) -> list[Any]:
        assert self.engine._master is not None
        return self.engine._master.handlers

    def connect(self, **options: Any) -> Any:
        return client(self.port, self.ca, **options)


type Front = Callable[..., Awaitable[Http3Node]]


@asynccontextmanager
async def fronts(tmp_path: Path, origin: ScriptedUpstream, port: int) -> AsyncIterator[Front]:
    """`await front(plugin, …, gateway="toml lines")`."""
    started: list[tuple[Engine, Runtime]] = []

    async def begin(
        *plugins: type[Plugin], gateway: str = "", lines: str = 'upstream_ca = "origin.pem"'
    ) -> Http3Node:
        nodes: list[Http3Node] = []

        class Log(Plugin):
            @hook
            def log(self, exchange: Exchange) -> None:
                nodes[0].logged.append(exchange)

        classes = {**{f"p{i}": plugin for i, plugin in enumerate(plugins)}, "log": Log}
        mode = f"reverse:http3://localhost:{origin.port}@127.0.0.1:{port}"
        text = f'[gateway]\n{gateway}\n[[intercept]]\nname = "h3"\nmode = "{mode}"\n{lines}\n'
        text += "".join(f'[[addon]]\nuse = "{name}"\n' for name in classes)
        settings = parse(text, base=tmp_path)
        runtime = Runtime(Host(tmp_path / "state", plugins=classes))
        runtime.commit(await runtime.prepare(settings))
        engine = Engine(runtime, settings)
        await engine.start({})
        started.append((engine, runtime))
        nodes.append(Http3Node(engine, port, tmp_path / "state"))
        return nodes[0]

    yield begin
    for engine, runtime in started:
        await engine.stop()
        await runtime.close()


async def ended(h3: Client) -> int:
    """With what a connection was closed."""
    await h3.until(lambda: h3.over)
    assert h3.over is not None
    return h3.over.error_code


async def eventually(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)
