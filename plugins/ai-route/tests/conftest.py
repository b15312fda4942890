"""A lane with virtual models on real sockets, and an addon that knows providers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import uvloop

from tidegate.api import AddonConfig, Exchange, Plugin, Upstream, hook, upstream_from_url
from tidegate.api.formats import AiCall, find_format
from tidegate.api.models import MODELS, Model
from tidegate.api.upstream import Timeouts
from tidegate.lane import Lane
from tidegate.runtime.registry import available
from tidegate.testing import Harness, Use


def pytest_asyncio_loop_factories():
    """The lane runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


class Providers(Plugin):
    """Knows models: `models` maps ids to a URL, or to a table of URL and what is known."""

    class Config(AddonConfig):
        models: dict[str, Any]
        policy: str = "drop-and-warn"

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self._models: dict[str, Model] = {}
        self._urls: dict[str, str] = {}
        self._upstreams: dict[tuple[str, str], Upstream] = {}
        for id, known in config.models.items():
            table = {"url": known} if isinstance(known, str) else dict(known)
            provider, _, name = id.partition("/")
            self._urls[id] = table.pop("url")
            table.setdefault("format", "openai-chat")
            if "capabilities" in table:
                table["capabilities"] = frozenset(table["capabilities"])
            self._models[id] = Model(provider, name, **table)

    def find(self, name: str, kind: str = "chat") -> Model | None:
        return self._models.get(name)

    def all(self) -> Sequence[Model]:
        return list(self._models.values())

    def upstream(self, model: Model, call: AiCall) -> Upstream:
        key = model.id, call.format
        if key not in self._upstreams:
            codec = find_format(call.format).translation(
                find_format(model.format), model=model.name, policy=self.config.policy
            )
            self._upstreams[key] = upstream_from_url(
                self._urls[model.id],
                name=model.id,
                codec=codec,
                timeouts=Timeouts(connect=2.0, first_byte=1.0, idle=5.0),
            )
        return self._upstreams[key]

    @hook
    def authorize(self, exchange: Exchange) -> None:
        exchange.stash[MODELS] = self


@dataclass
class Running:
    """A lane with virtual models, and a client of it."""

    harness: Harness
    sdk: openai.AsyncOpenAI
    url: str

    async def ask(self, text: str = "Hi", model: str = "smart", **options: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return await self.sdk.chat.completions.create(model=model, messages=messages, **options)

    def counters(self) -> dict[str, int]:
        return self.harness.counters("ai-route")


def route_use(models: list[dict[str, Any]], **options: Any) -> Use:
    """The addon."""
    return Use(available()["ai-route"].load(), {"models": models, **options}, name="ai-route")


class Setup:
    """What the tests put together."""

    Providers = Providers
    route_use = staticmethod(route_use)

    @staticmethod
    @asynccontextmanager
    async def running(
        models: list[dict[str, Any]],
        known: dict[str, Any],
        *others: Use,
        policy: str = "drop-and-warn",
    ) -> AsyncIterator[Running]:
        """A lane whose `known` models stand behind the virtual `models`."""
        providers = Use(Providers, {"models": known, "policy": policy})
        async with Harness(*others, route_use(models), providers, routed=False) as harness:
            settings = harness.runtime.current.settings
            lane = Lane(harness.runtime, settings)
            listener = settings.gateway.listen[0]
            server = await asyncio.get_running_loop().create_server(
                lambda: lane.protocol(listener), "127.0.0.1", 0
            )
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
            try:
                yield Running(harness, sdk, url)
            finally:
                await sdk.close()
                server.close()
                await lane.stop()


@pytest.fixture(scope="session")
def setup() -> type[Setup]:
    return Setup
