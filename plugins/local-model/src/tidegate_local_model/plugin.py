"""The addon: installs the model, has its server run beside the workers, routes there."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Denial,
    Duration,
    ErrorCode,
    Exchange,
    Node,
    Plugin,
    Timeouts,
    Upstream,
    hook,
    upstream_from_url,
)
from tidegate.api.match import Match, RouteEntry, RouteTable

from .install import MODEL, REQUIREMENTS, Installer
from .server import KEY

LOADING: Final = ErrorCode("model_loading", 503, "The local model is loading. Try again shortly.")

LOOPBACK: Final = "127.0.0.1"
SITE: Final = "TIDEGATE_LOCAL_MODEL_SITE"
"""Names a folder that the packages are installed in already: nothing is installed then."""
PROBE_EVERY: Final = 0.1
PATIENCE: Final = Timeouts(first_byte=300.0, idle=300.0)
"""A CPU writes a long answer in minutes; asked for whole, its first byte is its last."""


class LocalModelConfig(AddonConfig):
    """The options. `model` is a GGUF file of your own; `threads` 0 means all cores but one.

    `wait` is how long a starting worker waits for the model, so that the first call finds it.
    `port` 0 is a free one.
    """

    paths: tuple[str, ...] = ("/v1/*",)
    model: str | None = None
    threads: int = Field(default=0, ge=0, le=256)
    context: int = Field(default=4096, ge=256)
    parallel: int = Field(default=2, ge=1, le=64)
    port: int = Field(default=0, ge=0, le=65535)
    wait: Duration = Field(default=15.0, le=25.0)
    requirements: tuple[str, ...] = REQUIREMENTS


class LocalModel(Plugin[LocalModelConfig]):
    """A real language model on the CPU, without network."""

    Config = LocalModelConfig
    codes = (LOADING,)

    def __init__(self, config: LocalModelConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self.installer = Installer(context.state / "site", config.requirements)
        self._port: int = context.shared.get("port", config.port)
        key = context.shared.get("key", "")
        self.upstream = upstream_from_url(
            f"http://{LOOPBACK}:{self._port}",
            name=context.name,
            timeouts=PATIENCE,
            headers=((b"authorization", f"Bearer {key}".encode()),) if key else (),
        )
        self.ready = False
        self._paths = RouteTable([RouteEntry(True, path=path) for path in config.paths])
        self._waiting: asyncio.Task[None] | None = None

    # -- the node -----------------------------------------------------------------------------

    @hook
    def bootstrap(self, node: Node) -> None:
        """Install the model if it is not there, and have its server run."""
        given = os.environ.get(SITE)
        if not given:
            self.installer.ensure()
        site = Path(given).absolute() if given else self.installer.folder
        own = self.config.model
        model = self.context.base / own if own is not None else site / MODEL
        if not model.is_file():
            raise FileNotFoundError(f"there is no model file {model}")
        port = self.config.port or free_port()
        key = secrets.token_urlsafe(32)
        node.shared.update(port=port, key=key)
        node.run("server", self._command(port, model), {"PYTHONPATH": str(site), KEY: key})

    def _command(self, port: int, model: Path) -> list[str]:
        here = Path(__file__)
        threads = self.config.threads or max(1, (os.cpu_count() or 2) - 1)
        command = [sys.executable, "-P", str(here.with_name("server.py"))]
        command += ["--port", str(port), "--model", str(model), "--threads", str(threads)]
        command += ["--context", str(self.config.context)]
        command += ["--parallel", str(self.config.parallel)]
        if self.config.model is None:
            command += ["--template", str(here.with_name("chat_template.jinja"))]
        return command

    # -- a worker -----------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Wait for the model, a while. It goes on loading behind a 503 where that is not enough."""
        if self._port:  # else no bootstrap has run: nothing will come up
            self._waiting = asyncio.create_task(self._until_ready())
            await asyncio.wait([self._waiting], timeout=self.config.wait)
        if not self.ready:
            self.context.log.warning("the local model is not ready yet")

    async def _until_ready(self) -> None:
        while True:
            if await healthy(self._port):
                self.ready = True
                return
            await asyncio.sleep(PROBE_EVERY)

    @hook
    def route(self, exchange: Exchange) -> Upstream | Denial | None:
        """To the model, for the configured paths."""
        method = exchange.request.data.method.decode()
        if not isinstance(self._paths.match(exchange.host, exchange.path, method), Match):
            return None
        return self.upstream if self.ready else LOADING.denial(retry_after=2.0)

    @hook
    async def shutdown(self) -> None:
        """Stop waiting."""
        if self._waiting is not None:
            self._waiting.cancel()
            with suppress(asyncio.CancelledError):
                await self._waiting


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


async def healthy(port: int) -> bool:
    """Whether llama.cpp's server on `port` has loaded its model."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(
                    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
