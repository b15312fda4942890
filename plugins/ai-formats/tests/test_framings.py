"""Streams that are not server-sent events on both sides, on the lane: piece by piece, as they come.

Each upstream holds back what follows until the caller has seen what came.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx
import openai
import pytest
import uvloop
from tidegate_ai_formats import get_format
from tidegate_ai_formats.framing import CONTENT_TYPES, decoder, encoder

from tidegate.api import AddonConfig, Exchange, Plugin, SseEvent, Upstream, hook, upstream_from_url
from tidegate.lane import Lane
from tidegate.testing import Harness, ScriptedUpstream, Use
from tidegate.testing.script import chunk, head, last_chunk, reset, sleep, sse
from tidegate.testing.script import json as json_of
from tidegate.testing.streams import check, check_bytes


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


@asynccontextmanager
async def lane(upstream, client: str, provider: str, *plugins: Any):
    """The base URL of a lane for callers of `client`, whose upstream speaks `provider`."""
    codec = get_format(client).translation(get_format(provider))
    route = Use(To, {"upstream": upstream_from_url(upstream.url, codec=codec)})
    async with Harness(*plugins, route) as harness:
        settings = harness.runtime.current.settings
        running = Lane(harness.runtime, settings)
        listener = settings.gateway.listen[0]
        server = await asyncio.get_running_loop().create_server(
            lambda: running.protocol(listener), "127.0.0.1", 0
        )
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            await running.stop()


def chunk_of(delta: Any, finish: str | None = None) -> SseEvent:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return SseEvent(json.dumps({**head, "choices": [choice]}))


AWS = [
    SseEvent(json.dumps(data), name)
    for name, data in [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hé"}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "llo"}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}}),
    ]
]
LINES = [
    SseEvent(json.dumps({"model": "m", "message": {"role": "assistant", "content": text}, **rest}))
    for text, rest in [
        ("Hé", {"done": False}),
        ("llo", {"done": False}),
        ("", {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}),
    ]
]
CHUNKS = [
    chunk_of({"role": "assistant", "content": "Hé"}),
    chunk_of({"content": "llo"}),
    chunk_of({}, "stop"),
    SseEvent("[DONE]"),
]
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


class Held:
    """An upstream's stream, of which what follows "Hé" waits for `go`."""

    def __init__(self, framing: str, events: list[SseEvent], *end: Any) -> None:
        wire = encoder(framing)
        pieces = [wire.feed(event) for event in events]
        first = next(n for n, event in enumerate(events) if "H\\u00e9" in event.data) + 1
        self.go = asyncio.Event()
        kind = {"content-type": CONTENT_TYPES[framing], "transfer-encoding": "chunked"}
        rest = b"".join(pieces[first:]) + wire.end()
        self.script = (
            head(200, kind),
            chunk(b"".join(pieces[:first])),
            self.wait,
            *(end or (chunk(rest), last_chunk())),
        )

    async def wait(self, _: Any) -> None:
        await self.go.wait()


async def read(url: str, body: Any, held: Held) -> tuple[str, bytes, bool]:
    """(content type, bytes, whether they were cut) of a stream."""
    data = b""
    async with httpx.AsyncClient(timeout=20) as http:
        request = http.build_request("POST", url, json=body)
        answer = await http.send(request, stream=True)
        try:
            async for piece in answer.aiter_raw():
                data += piece
                if b"H" in data:
                    held.go.set()
        except httpx.RemoteProtocolError:
            return answer.headers["content-type"], data, True
        finally:
            await answer.aclose()
    return answer.headers["content-type"], data, False


@pytest.mark.parametrize(
    ("provider", "framing", "events"),
    [("bedrock-converse", "aws", AWS), ("ollama-chat", "ndjson", LINES)],
)
async def test_the_official_client_sees_each_piece_as_it_comes(provider, framing, events):
    held = Held(framing, events)
    async with ScriptedUpstream() as upstream, lane(upstream, "openai-chat", provider) as url:
        upstream.answer(*held.script)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as sdk:
            options = {"stream_options": {"include_usage": True}}
            stream = await sdk.chat.completions.create(**ASKED, **options)
            text, usage = "", None
            async with asyncio.timeout(20):
                async for one in stream:
                    usage = one.usage or usage
                    for choice in one.choices:
                        text += choice.delta.content or ""
                    if text == "Hé":
                        held.go.set()
        assert text == "Héllo"
        assert (usage.prompt_tokens, usage.completion_tokens) == (3, 2)


@pytest.mark.parametrize(
    ("client", "path", "body"),
    [
        ("ollama-chat", "/api/chat", ASKED),
        ("gemini", "/v1beta/models/m:streamGenerateContent", GEMINI),
        ("gemini", "/v1beta/models/m:streamGenerateContent?alt=sse", GEMINI),
        ("bedrock-converse", "/model/m/converse-stream",
         {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}),
    ],
)  # fmt: skip
async def test_callers_get_their_own_framing_as_it_comes(client, path, body):
    held = Held("sse", CHUNKS)
    async with ScriptedUpstream() as upstream, lane(upstream, client, "openai-chat") as url:
        upstream.answer(*held.script)
        kind, data, cut = await read(url + path, body, held)
        assert not cut
        framing = next(name for name, known in CONTENT_TYPES.items() if kind == known)
        wire = decoder(framing)
        check(client, wire.feed(data) + wire.end())


async def test_lines_pass_to_callers_of_the_same_format_as_they_come():
    held = Held("ndjson", LINES)
    async with ScriptedUpstream() as upstream, lane(upstream, "ollama-chat", "ollama-chat") as url:
        upstream.answer(*held.script)
        _, data, _ = await read(f"{url}/api/chat", ASKED, held)
        assert data == b"".join(event.data.encode() + b"\n" for event in LINES)


@pytest.mark.parametrize(
    ("client", "path", "body"),
    [
        ("ollama-chat", "/api/chat", ASKED),
        ("gemini", "/v1beta/models/m:streamGenerateContent", GEMINI),
        ("openai-chat", "/v1/chat/completions", ASKED),
        ("openai-responses", "/v1/responses", {"model": "m", "input": "Hi", "stream": True}),
        ("anthropic-messages", "/v1/messages", {**ASKED, "max_tokens": 9}),
    ],
)
async def test_a_connection_that_breaks_ends_the_stream_with_an_error_of_the_callers_format(
    client, path, body
):
    held = Held("aws", AWS, sleep(0.05), reset())
    held.go.set()
    async with ScriptedUpstream() as upstream, lane(upstream, client, "bedrock-converse") as url:
        upstream.answer(*held.script)
        _, data, cut = await read(url + path, body, held)
    assert cut
    check_bytes(client, data)
    assert b"was cut" in data
    assert "Hé" in data.decode() or "H\\u00e9" in data.decode()


async def test_a_whole_answer_of_a_provider_that_does_not_stream_comes_as_a_stream():
    whole = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "tool_calls": [
                        {
                            "id": "t",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a": 1}'},
                        }
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    formats = "anthropic-messages", "openai-chat"
    async with ScriptedUpstream() as upstream, lane(upstream, *formats) as url:
        upstream.answer(*json_of(whole))
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as sdk:
            asked = {"model": "m", "messages": ASKED["messages"], "max_tokens": 9}
            async with sdk.messages.stream(**asked) as stream:
                message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.content[1].input == {"a": 1}
    assert (message.stop_reason, message.usage.input_tokens) == ("tool_use", 3)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [(429, anthropic.RateLimitError), (None, anthropic.InternalServerError)],
)
async def test_an_error_in_place_of_an_answer_is_one_though_the_status_says_200(code, wanted):
    formats = "anthropic-messages", "openai-chat"
    async with ScriptedUpstream() as upstream, lane(upstream, *formats) as url:
        upstream.answer(*json_of({"error": {"message": "Broken.", "code": code}}))
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as sdk:
            with pytest.raises(wanted, match="Broken"):
                await sdk.messages.create(model="m", messages=ASKED["messages"], max_tokens=9)


async def test_event_hooks_see_what_the_caller_sees():
    class Shout(Plugin):
        @hook
        def transform_event(self, exchange: Exchange, event: Any) -> None:
            event.data = event.data.replace("llo", "LLO")

    held = Held("aws", AWS)
    held.go.set()
    formats = "openai-chat", "bedrock-converse"
    async with ScriptedUpstream() as upstream, lane(upstream, *formats, Use(Shout, {})) as url:
        upstream.answer(*held.script)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as sdk:
            stream = await sdk.chat.completions.create(**ASKED)
            text = "".join([one.choices[0].delta.content or "" async for one in stream])
        assert text == "HéLLO"


async def test_a_stream_of_events_is_read_along_where_it_passes():
    async with ScriptedUpstream() as upstream, lane(upstream, "openai-chat", "openai-chat") as url:
        upstream.answer(*sse(*[event.data for event in CHUNKS[:3]]))
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{url}/v1/chat/completions", json=ASKED)
        assert answer.content == b"".join(event.encode() for event in CHUNKS)
