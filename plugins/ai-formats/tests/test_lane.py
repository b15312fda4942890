"""OpenAI's own client on the lane, with an upstream that speaks Anthropic Messages."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import uvloop
from tidegate_ai_formats import AiFormats, get_format

from tidegate.api import AddonConfig, Exchange, Plugin, Upstream, hook, upstream_from_url
from tidegate.lane import Lane
from tidegate.testing import Harness, ScriptedUpstream, Use
from tidegate.testing import script as scripts


def pytest_asyncio_loop_factories():
    """The lane runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


class To(Plugin):
    """Routes everything to `upstream`."""

    class Config(AddonConfig):
        upstream: Any = None

    @hook
    def route(self, exchange: Exchange) -> Upstream | None:
        return self.config.upstream


EVENTS = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [],
            "usage": {"input_tokens": 7, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hé"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"q": 1}'},
    },
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 5},
    },
    {"type": "message_stop"},
]
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@asynccontextmanager
async def client(upstream):
    """The official client of a lane whose upstream is `upstream`."""
    codec = get_format("openai-chat").translation(get_format("anthropic-messages"))
    route = Use(To, {"upstream": upstream_from_url(upstream.url, codec=codec)})
    async with Harness(route, Use(AiFormats, {})) as harness:
        settings = harness.runtime.current.settings
        lane = Lane(harness.runtime, settings)
        listener = settings.gateway.listen[0]
        server = await asyncio.get_running_loop().create_server(
            lambda: lane.protocol(listener), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        sdk = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0)
        try:
            yield sdk
        finally:
            await sdk.close()
            server.close()
            await lane.stop()


async def test_the_official_client_streams_from_another_provider():
    async with ScriptedUpstream() as upstream, client(upstream) as sdk:
        upstream.answer(*scripts.sse(*map(json.dumps, EVENTS), done=False))
        text, arguments, finish, usage = "", "", None, None
        options = {"stream": True, "stream_options": {"include_usage": True}}
        async for chunk in await sdk.chat.completions.create(**ASKED, **options):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or ():
                    arguments += call.function.arguments
        assert (text, arguments, finish) == ("Héllo", '{"q": 1}', "tool_calls")
        assert (usage.prompt_tokens, usage.completion_tokens) == (7, 5)
        sent = upstream.requests[0]
        assert sent.json()["max_tokens"]
        assert sent.json()["stream"] is True


async def test_a_cut_stream_is_an_error_of_the_official_client():
    async with ScriptedUpstream() as upstream, client(upstream) as sdk:
        upstream.answer(*scripts.sse(*map(json.dumps, EVENTS[:3]), done=False))
        stream = await sdk.chat.completions.create(**ASKED, stream=True)
        with pytest.raises(openai.APIError, match="ended before its end"):
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    ("status", "kind", "wanted"),
    [
        (401, "authentication_error", openai.AuthenticationError),
        (403, "permission_error", openai.PermissionDeniedError),
        (404, "not_found_error", openai.NotFoundError),
        (429, "rate_limit_error", openai.RateLimitError),
        (400, "invalid_request_error", openai.BadRequestError),
        (529, "overloaded_error", openai.InternalServerError),
    ],
)
async def test_errors_are_the_official_clients_own(status, kind, wanted):
    async with ScriptedUpstream() as upstream, client(upstream) as sdk:
        body = {"type": "error", "error": {"type": kind, "message": "No."}}
        upstream.answer(*scripts.json(body, status))
        with pytest.raises(wanted, match="No"):
            await sdk.chat.completions.create(**ASKED)


async def test_a_whole_answer_tells_what_was_lost():
    answer = {**EVENTS[0]["message"], "content": [{"type": "text", "text": "Hello"}]}
    answer["stop_reason"] = "end_turn"
    async with ScriptedUpstream() as upstream, client(upstream) as sdk:
        upstream.answer(*scripts.json(answer))
        raw = await sdk.chat.completions.with_raw_response.create(**ASKED, seed=7)
        assert raw.parse().choices[0].message.content == "Hello"
        assert "seed" in raw.headers["x-tidegate-warnings"]


async def test_a_stream_tells_in_its_head_what_the_request_lost():
    async with ScriptedUpstream() as upstream, client(upstream) as sdk:
        upstream.answer(*scripts.sse(*map(json.dumps, EVENTS), done=False))
        headers = {"openai-beta": "assistants=v2", "x-trace": "1"}
        stream = await sdk.chat.completions.create(
            **ASKED, n=2, seed=7, stream=True, extra_headers=headers
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        said = stream.response.headers.get_list("x-tidegate-warnings")
        assert len(said) == 1
        assert "n: " in said[0]
        assert "seed: " in said[0]
        sent = upstream.requests[0]
        assert (sent.values("openai-beta"), sent.values("x-trace")) == ([], ["1"])
