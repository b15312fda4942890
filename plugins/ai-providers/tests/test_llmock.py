"""Official clients through the gateway, to providers that nobody here wrote (llmock).

Each client speaks its own format, each provider its own: the gateway is all there is between.
"""

from __future__ import annotations

from typing import Any

import anthropic
import cohere
import openai
import pytest
from google import genai
from mistralai.client import Mistral

PROVIDERS = {
    "openai": {"name": "openai"},
    "anthropic": {"name": "anthropic"},
    "gemini": {"name": "gemini"},
    "cohere": {"name": "cohere"},
    "mistral": {"name": "mistral"},
    "groq": {"name": "groq"},
    "together": {"name": "together"},
    "perplexity": {"name": "perplexity"},
    "xai": {"name": "xai"},
}
WORKS = sorted(PROVIDERS)
TELL_UNASKED = ("mistral", "perplexity")
"""Providers that say usage in streams without being asked, and take no `stream_options`.

llmock waits to be asked all the same.
"""
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def provider(llmock, name: str) -> dict[str, Any]:
    """The provider, at llmock's address for it."""
    url = llmock.base_url(name).rstrip("/")
    if name == "gemini":
        url += "/v1beta"
    return {**PROVIDERS[name], "url": url, "keys": ["sk-llmock"]}


def aliases(name: str) -> dict[str, str]:
    return {"m": f"{name}/a-model"}


@pytest.mark.parametrize("name", WORKS)
async def test_the_client_of_openai(lane, llmock, name):
    llmock.reply("Tides come and go.", times=None)
    async with (
        lane(provider(llmock, name), aliases=aliases(name)) as node,
        openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0) as sdk,
    ):
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        whole = await sdk.chat.completions.create(**asked)
        assert whole.choices[0].message.content == "Tides come and go."
        assert whole.choices[0].finish_reason in ("stop", "eos")
        assert whole.usage
        assert whole.usage.completion_tokens > 0
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = [c async for c in await sdk.chat.completions.create(**asked, **options)]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Tides come and go."
        if name not in TELL_UNASKED:
            assert chunks[-1].usage
            assert chunks[-1].usage.completion_tokens > 0
    models = {request.model for request in llmock.requests}
    assert models == {"a-model"}


@pytest.mark.parametrize("name", WORKS)
async def test_tools_of_the_client_of_openai(lane, llmock, name):
    llmock.call_tool("weather", {"city": "Paris"})
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    async with (
        lane(provider(llmock, name), aliases=aliases(name)) as node,
        openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0) as sdk,
    ):
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "Weather?"}]}
        answer = await sdk.chat.completions.create(**asked, tools=[tool])
        (call,) = answer.choices[0].message.tool_calls or ()
        assert (call.function.name, call.function.arguments.replace(" ", "")) == (
            "weather",
            '{"city":"Paris"}',
        )
        assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("name", WORKS)
async def test_the_client_of_anthropic(lane, llmock, name):
    llmock.reply("Tides come and go.", times=None)
    async with (
        lane(provider(llmock, name), aliases=aliases(name)) as node,
        anthropic.AsyncAnthropic(base_url=node.url, api_key="x", max_retries=0) as sdk,
    ):
        asked: Any = {
            "model": "m",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "Hello"}],
        }
        whole = await sdk.messages.create(**asked)
        assert whole.content[0].text == "Tides come and go."
        assert whole.stop_reason == "end_turn"
        async with sdk.messages.stream(**asked) as stream:
            assert await stream.get_final_text() == "Tides come and go."


@pytest.mark.parametrize("name", WORKS)
async def test_the_client_of_gemini(lane, llmock, name):
    llmock.reply("Tides come and go.", times=None)
    async with lane(provider(llmock, name), aliases=aliases(name)) as node:
        sdk = genai.Client(api_key="x", http_options={"base_url": node.url}).aio
        whole = await sdk.models.generate_content(model="m", contents="Hello")
        assert whole.text == "Tides come and go."
        text = ""
        async for chunk in await sdk.models.generate_content_stream(model="m", contents="Hello"):
            text += chunk.text or ""
        assert text == "Tides come and go."
        await sdk.aclose()


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "cohere"])
async def test_the_clients_of_cohere_and_mistral(lane, llmock, name):
    llmock.reply("Tides come and go.", times=None)
    hello: Any = [{"role": "user", "content": "Hello"}]
    async with lane(provider(llmock, name), aliases=aliases(name)) as node:
        async with cohere.AsyncClientV2(api_key="x", base_url=node.url) as sdk:
            answer = await sdk.chat(model="m", messages=hello)
            assert answer.message.content[0].text == "Tides come and go."
        async with Mistral(api_key="x", server_url=node.url) as other:
            said = await other.chat.complete_async(model="m", messages=hello)
            assert said.choices[0].message.content == "Tides come and go."


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (401, openai.InternalServerError),
        (403, openai.PermissionDeniedError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "cohere", "mistral"])
async def test_errors_of_providers_are_the_clients_own(lane, llmock, name, status, wanted):
    llmock.fail(status)
    async with (
        lane(provider(llmock, name), aliases=aliases(name)) as node,
        openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0) as sdk,
    ):
        with pytest.raises(wanted):
            await sdk.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hello"}]
            )


async def test_a_key_that_is_over_its_limit_is_not_used_until_its_time_has_come(lane, llmock):
    llmock.rate_limit(times=1, retry_after=60)
    llmock.reply("Tides come and go.", times=None)
    two = {**provider(llmock, "openai"), "keys": ["sk-one", "sk-two"]}
    async with (
        lane(two, aliases=aliases("openai")) as node,
        openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0) as sdk,
    ):
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        for _ in range(3):
            answer = await sdk.chat.completions.create(**asked)
            assert answer.choices[0].message.content == "Tides come and go."
    assert [request.status for request in llmock.requests] == [429, 200, 200, 200]


async def test_embeddings_pass(lane, llmock):
    async with (
        lane(provider(llmock, "openai")) as node,
        openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0) as sdk,
    ):
        answer = await sdk.embeddings.create(model="openai/text-embedding-3-small", input="x")
        assert len(answer.data[0].embedding) > 8
    assert llmock.requests[0].model == "text-embedding-3-small"
