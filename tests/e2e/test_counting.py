"""Tokens are counted for every model: by its provider, else here. Official clients on a lane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anthropic
import httpx
import pytest
import uvloop
from google import genai

from tidegate.lane import Lane
from tidegate.runtime.registry import available
from tidegate.testing import Harness, ScriptedUpstream, Use
from tidegate.testing import script as scripts

HELLO: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hello there, world."}]


def pytest_asyncio_loop_factories():
    return {"uvloop": uvloop.new_event_loop}


def use(name: str, **options: object) -> Use:
    return Use(available()[name].load(), options, name=name)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        server.answer(*scripts.json({"input_tokens": 77}))
        yield server


@pytest.fixture(params=["usage first", "providers first"])
async def url(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> AsyncIterator[str]:
    """Where `claude` counts tokens, and `work` does not."""
    providers = [
        {"name": "claude", "like": "anthropic", "url": upstream.url, "keys": ["sk-1"]},
        {"name": "work", "url": upstream.url, "keys": ["sk-2"]},
    ]
    uses = [use("ai-usage"), use("ai-providers", providers=providers)]
    if request.param == "providers first":
        uses.reverse()
    async with Harness(*uses, routed=False) as harness:
        settings = harness.runtime.current.settings
        lane = Lane(harness.runtime, settings)
        server = await asyncio.get_running_loop().create_server(
            lambda: lane.protocol(settings.gateway.listen[0]), "127.0.0.1", 0
        )
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            await lane.stop()


async def test_tokens_are_counted_here_where_the_models_provider_does_not(url, upstream):
    async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as sdk:
        count = sdk.messages.with_raw_response.count_tokens
        raw = await count(model="work/gpt-4o-mini", messages=HELLO)
        assert (await raw.parse()).input_tokens == 11
        assert raw.headers["x-tidegate-counted"] == "exact"
        assert raw.request_id == raw.headers["x-request-id"]
        other = await count(model="work/llama", messages=HELLO)
        assert other.headers["x-tidegate-counted"] == "estimated"
        assert not upstream.requests

        theirs = await count(model="claude/claude-haiku-4-5", messages=HELLO)
        assert (await theirs.parse()).input_tokens == 77
        assert "x-tidegate-counted" not in theirs.headers
        assert len(upstream.requests) == 1

        with pytest.raises(anthropic.NotFoundError):
            await count(model="nobody/knows", messages=HELLO)
        with pytest.raises(anthropic.BadRequestError):
            await sdk.post("/v1/messages/count_tokens", body={"model": 7}, cast_to=object)


async def test_other_clients_are_answered_in_their_own_shape(url):
    sdk = genai.Client(api_key="x", http_options={"base_url": url}).aio
    said = await sdk.models.count_tokens(model="work/gpt-4o-mini", contents="Hello there, world.")
    assert said.total_tokens == 11
    async with httpx.AsyncClient() as client:
        body = {"model": "work/gpt-4o-mini", "input": "Hello there, world."}
        answer = await client.post(f"{url}/v1/responses/input_tokens", json=body)
    assert answer.json()["input_tokens"] == 11
