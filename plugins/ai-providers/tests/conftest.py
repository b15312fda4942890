"""A lane with providers behind it, and answers as providers give them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvloop
from tidegate_ai_providers import AiProviders
from tidegate_ai_providers.known import known

from tidegate.lane import Lane
from tidegate.testing import Harness, Use


def pytest_asyncio_loop_factories():
    """The lane runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has in the environment changes no test."""
    for variable in (*os.environ, *(row.env for row in known().values())):
        if variable.startswith(("AWS_", "GOOGLE_")) or variable.endswith(("_API_KEY", "_TOKEN")):
            monkeypatch.delenv(variable, raising=False)


class Node:
    """A lane on a port, and the addon behind it."""

    def __init__(self, url: str, harness: Harness) -> None:
        self.url = url
        self.harness = harness

    @property
    def addon(self) -> Any:
        return self.harness.plugin("ai-providers")

    @property
    def counters(self) -> dict[str, int]:
        return self.harness.counters("ai-providers")


type Start = Callable[..., AbstractAsyncContextManager[Node]]


@pytest.fixture
def lane() -> Start:
    """`async with lane({"name": …}, …, aliases={…}) as node`: a gateway with these providers."""

    @asynccontextmanager
    async def start(*providers: Any, others: tuple[Use, ...] = (), **options: Any):
        use = Use(AiProviders, {"providers": list(providers), **options}, name="ai-providers")
        async with Harness(*others, use, routed=False) as harness, serving(harness) as url:
            yield Node(url, harness)

    return start


@asynccontextmanager
async def serving(harness: Harness) -> AsyncIterator[str]:
    """A lane in front of a harness's addons."""
    settings = harness.runtime.current.settings
    lane = Lane(harness.runtime, settings)
    listener = settings.gateway.listen[0]
    server = await asyncio.get_running_loop().create_server(
        lambda: lane.protocol(listener), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await lane.stop()
