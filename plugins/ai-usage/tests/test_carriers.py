"""Real processes, real sockets, official clients: both carriers say the same."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing import script as scripts

ASKED: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello."}]}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}
CLAUDE = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-3-5-haiku-20241022",
            "content": [],
            "usage": {"input_tokens": 7, "cache_read_input_tokens": 100, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
]
CONFIG = """
[[addon]]
use = "ai-usage"
headers = {headers}
count_prompts = {prompts}
hosts = {{ "127.0.0.1" = "{provider}" }}

[[addon]]
use = "log-access"
every = "10ms"

[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{url}" }}]
"""


@pytest.fixture(params=["engine", "lane"])
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def running(folder: Path, carrier: str, provider="openai", headers=True, prompts=True):
    async with ScriptedUpstream() as upstream:
        config = CONFIG.format(
            url=upstream.url,
            provider=provider,
            headers=str(headers).lower(),
            prompts=str(prompts).lower(),
        )
        async with Gateway(folder, config, carrier=carrier) as gateway:
            yield gateway, upstream


async def note(gateway: Gateway) -> dict[str, Any]:
    """What the access log says of the only exchange."""
    file = gateway.folder / "state/addons/log-access/access.jsonl"
    async with asyncio.timeout(30):
        while not (file.exists() and file.read_bytes().endswith(b"\n")):
            await asyncio.sleep(0.02)
    (line,) = file.read_text().splitlines()
    found: dict[str, Any] = json.loads(line)["notes"]["ai"]
    return found


def chunk(text: str) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1,
                       "model": "gpt-4o", "choices": [choice]})  # fmt: skip


async def test_openais_client_is_told_what_its_call_cost(tmp_path, carrier):
    async with running(tmp_path, carrier) as (gateway, upstream):
        upstream.answer(*scripts.json(CHAT))
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k") as client:
            raw = await client.chat.completions.with_raw_response.create(**ASKED)
        assert raw.parse().choices[0].message.content == "Hello there."
        assert float(raw.headers["x-tidegate-cost"]) == pytest.approx(0.0035)
        assert raw.headers["x-tidegate-tokens"] == "input=1000, output=100, cached=0"
        said = await note(gateway)
        assert (said["provider"], said["input"], said["output"]) == ("openai", 1000, 100)
        assert (await gateway.counters("ai-usage"))["cost_microdollars_total"] == 3500


async def test_a_client_that_leaves_has_used_what_crossed_the_wire(tmp_path, carrier):
    async with running(tmp_path, carrier) as (gateway, upstream):
        head = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        events = [scripts.chunk(f"data: {chunk(t)}\n\n".encode()) for t in ("Hello", " there.")]
        upstream.answer(scripts.head(200, head), *events, scripts.silence())
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k") as client:
            stream = await client.chat.completions.create(**ASKED, stream=True)
            text = ""
            async for one in stream:
                text += one.choices[0].delta.content or ""
                if text == "Hello there.":
                    break
            await stream.close()
        said = await note(gateway)
        assert (said["input"], said["output"], said["finish"]) == (9, 4, None)
        assert (said["estimated"], said["streamed"]) == (False, True)
        assert said["cost_usd"] == pytest.approx(9 * 2.5e-6 + 4 * 10e-6)


async def test_an_upstream_that_breaks_off_has_used_what_crossed_the_wire(tmp_path, carrier):
    async with running(tmp_path, carrier) as (gateway, upstream):
        head = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        event = scripts.chunk(f"data: {chunk('Hello there.')}\n\n".encode())
        upstream.answer(scripts.head(200, head), event, scripts.sleep(0.2), scripts.reset())
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.HTTPError):  # noqa: PT012, the error is somewhere in here
                async with client.stream(
                    "POST", f"{gateway.url}/v1/chat/completions", json=ASKED
                ) as answer:
                    async for _ in answer.aiter_bytes():
                        pass
                raise httpx.ReadError("the stream ended with an error event")
        said = await note(gateway)
        assert (said["input"], said["output"], said["finish"]) == (9, 4, None)


async def test_anthropics_client_streams_and_its_cached_tokens_are_priced(tmp_path, carrier):
    async with running(tmp_path, carrier, "anthropic", False, False) as (gateway, upstream):
        events = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in CLAUDE)
        upstream.answer(*scripts.chunked(events, headers={"content-type": "text/event-stream"}))
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="k") as client:
            asked = {**ASKED, "model": "claude-3-5-haiku-latest", "max_tokens": 50}
            async with client.messages.stream(**asked) as stream:
                answer = await stream.get_final_message()
        assert answer.usage.output_tokens == 9
        said = await note(gateway)
        assert (said["input"], said["cache_read"], said["output"]) == (107, 100, 9)
        assert said["cost_usd"] == pytest.approx(7 * 0.8e-6 + 100 * 0.08e-6 + 9 * 4e-6)
        assert said["ttft_ms"] > 0


async def test_an_encoded_answer_passes_as_it_is_and_is_read(tmp_path, carrier):
    async with running(tmp_path, carrier, headers=False, prompts=False) as (gateway, upstream):
        body = gzip.compress(json.dumps(CHAT).encode())
        fields = {"content-type": "application/json", "content-encoding": "gzip"}
        upstream.answer(*scripts.body(body, headers=fields))
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{gateway.url}/v1/chat/completions", json=ASKED)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.json() == CHAT
        said = await note(gateway)
        assert (said["input"], said["output"], said["cost_usd"]) == (1000, 100, 0.0035)


async def test_without_the_request_a_prompt_is_estimated_from_its_length(tmp_path, carrier):
    async with running(tmp_path, carrier, headers=False, prompts=False) as (gateway, upstream):
        upstream.answer(*scripts.sse(chunk("Hello there.")))
        body = {**ASKED, "messages": [{"role": "user", "content": "word " * 400}]}
        async with httpx.AsyncClient() as client:
            await client.post(f"{gateway.url}/v1/chat/completions", json=body)
        said = await note(gateway)
        assert said["estimated"]
        assert 300 < said["input"] < 600


async def test_a_drain_that_ends_a_stream_leaves_its_figures_in_the_log(tmp_path, carrier):
    async with ScriptedUpstream() as upstream:
        config = CONFIG.format(url=upstream.url, provider="openai", headers="false", prompts="true")
        config = f'[gateway]\ndeadlines = {{ drain = "1s" }}\n{config}'
        async with Gateway(tmp_path, config, carrier=carrier) as gateway:
            head = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
            event = scripts.chunk(f"data: {chunk('Hello there.')}\n\n".encode())
            upstream.answer(scripts.head(200, head), event, scripts.silence())
            async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k") as client:
                stream = await client.chat.completions.create(**ASKED, stream=True)
                one = await anext(aiter(stream))
                assert one.choices[0].delta.content == "Hello there."
                await gateway.stop()
            said = await note(gateway)
            assert (said["input"], said["output"], said["finish"]) == (9, 4, None)
