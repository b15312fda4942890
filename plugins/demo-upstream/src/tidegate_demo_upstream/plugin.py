"""The addon: serves the demo model on loopback, and routes there."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Duration,
    Exchange,
    Plugin,
    Upstream,
    hook,
    upstream_from_url,
)
from tidegate.api.match import Match, RouteEntry, RouteTable

from . import openai_format
from .server import Server

LOOPBACK: Final = "127.0.0.1"


class DemoUpstreamConfig(AddonConfig):
    """The options. `pace` is the time between two words of a stream; `port` 0 is a free one."""

    paths: tuple[str, ...] = ("/v1/*",)
    pace: Duration = 0.015
    port: int = Field(default=0, ge=0, le=65535)
    force: bool = False


class DemoUpstream(Plugin[DemoUpstreamConfig]):
    """A small model that needs no model: speaks the OpenAI chat format on loopback."""

    Config = DemoUpstreamConfig

    def __init__(self, config: DemoUpstreamConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self.server = Server(
            lambda request: openai_format.answer(request, config.pace), openai_format.error
        )
        self._paths = RouteTable([RouteEntry(True, path=path) for path in config.paths])
        self.upstream: Upstream | None = None

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Open the server. Not in production: its answers are not a model's."""
        if self.context.environment == "production" and not self.config.force:
            raise RuntimeError(
                "the demo upstream is not for production: take this addon out of the deployment, "
                "or set force = true"
            )
        await self.server.start(LOOPBACK, self.config.port)
        url = f"http://{LOOPBACK}:{self.server.port}"
        self.upstream = upstream_from_url(url, name=self.context.name)

    @hook
    def route(self, exchange: Exchange) -> Upstream | None:
        """To the demo model, for the configured paths."""
        found = self._paths.match(
            exchange.host, exchange.path, exchange.request.data.method.decode()
        )
        return self.upstream if isinstance(found, Match) else None

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Which paths it serves."""
        return f"serves {', '.join(self.config.paths)}"

    @hook
    async def shutdown(self) -> None:
        """Close the server, cut what it still says."""
        await self.server.close()
