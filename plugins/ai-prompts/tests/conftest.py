"""A lane with prompts on real sockets, in front of an upstream that speaks OpenAI's chat API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from tidegate.api import AddonConfig, Exchange, Plugin, Upstream, hook
from tidegate.lane import Lane
from tidegate.runtime.registry import available
from tidegate.testing import Harness, ScriptedUpstream, Use
from tidegate.testing import script as scripts


def pytest_asyncio_loop_factories():
    """The lane runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


class To(Plugin):
    """Routes chat calls to `upstream`."""

    class Config(AddonConfig):
        upstream: Any = None

    @hook
    def route(self, exchange: Exchange) -> Upstream | None:
        return self.config.upstream if exchange.path == "/v1/chat/completions" else None


@dataclass
class Running:
    """A lane with prompts, and a client of it."""

    harness: Harness
    http: httpx.AsyncClient

    def counters(self) -> dict[str, int]:
        return self.harness.counters("ai-prompts")


class Kit:
    """What the tests put together."""

    @staticmethod
    def answer(text: str, finish: str = "stop", **message: Any) -> tuple[Any, ...]:
        """A whole answer in OpenAI's shape."""
        said = {"role": "assistant", "content": text, **message}
        choice = {"index": 0, "message": said, "finish_reason": finish}
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        return scripts.json(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "real-model",
             "choices": [choice], "usage": usage}
        )  # fmt: skip

    @staticmethod
    @asynccontextmanager
    async def running(
        upstream: ScriptedUpstream, options: dict[str, Any]
    ) -> AsyncIterator[Running]:
        from tidegate.api import upstream_from_url

        prompts = Use(available()["ai-prompts"].load(), options, name="ai-prompts")
        route = Use(To, {"upstream": upstream_from_url(upstream.url)})
        async with Harness(prompts, route, routed=False) as harness:
            settings = harness.runtime.current.settings
            lane = Lane(harness.runtime, settings)
            listener = settings.gateway.listen[0]
            server = await asyncio.get_running_loop().create_server(
                lambda: lane.protocol(listener), "127.0.0.1", 0
            )
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            try:
                async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                    yield Running(harness, client)
            finally:
                server.close()
                await lane.stop()

    @staticmethod
    def write(folder: Path, name: str, text: str) -> Path:
        folder.mkdir(exist_ok=True)
        file = folder / f"{name}.toml"
        file.write_text(text, encoding="utf-8")
        return file


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit
