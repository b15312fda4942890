"""Calls that are translated on the way: they used what the provider said, or what crossed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing import script as scripts

CONFIG = """
[[addon]]
use = "ai-usage"
headers = true

[[addon]]
use = "log-access"
every = "10ms"

[[addon]]
use = "ai-providers"
providers = [
  {{ name = "anthropic", url = "{url}", keys = ["sk-test"], models = ["claude-3-5-haiku-latest"] }},
]
"""
START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-3-5-haiku-20241022",
        "content": [],
        "stop_reason": None,
        "usage": {
            "input_tokens": 20,
            "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 500,
            "output_tokens": 1,
        },
    },
}
TEXT = "The quick brown fox jumps over the lazy dog."
BODY = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
]
END = [
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 11},
    },
    {"type": "message_stop"},
]
INPUT = 20 * 0.8e-6 + 1000 * 0.08e-6 + 500 * 1e-6
ASKED: dict[str, Any] = {
    "model": "anthropic/claude-3-5-haiku-latest",
    "messages": [{"role": "user", "content": "Say it."}],
}


def client(gateway: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k", max_retries=0)


async def note(gateway: Gateway) -> dict[str, Any]:
    """What the access log says of the only exchange."""
    file = gateway.folder / "state/addons/log-access/access.jsonl"
    async with asyncio.timeout(30):
        while not (file.exists() and file.read_bytes().endswith(b"\n")):
            await asyncio.sleep(0.02)
    (line,) = file.read_text().splitlines()
    found: dict[str, Any] = json.loads(line)["notes"]["ai"]
    return found


async def test_a_whole_answer(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        answer = {**START["message"], "stop_reason": "end_turn"}  # type: ignore[dict-item]
        answer["content"] = [{"type": "text", "text": TEXT}]
        upstream.answer(*scripts.json(answer))
        async with Gateway(tmp_path, CONFIG.format(url=upstream.url)) as gateway:
            async with client(gateway) as sdk:
                raw = await sdk.chat.completions.with_raw_response.create(**ASKED)
            assert raw.headers["x-tidegate-tokens"] == "input=1520, output=1, cached=1000"
            assert float(raw.headers["x-tidegate-cost"]) == pytest.approx(INPUT + 4e-6)
            said = await note(gateway)
            assert (said["provider"], said["model"]) == ("anthropic", "claude-3-5-haiku-latest")
            assert (said["cache_read"], said["cache_write"]) == (1000, 500)


async def test_a_stream(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(*scripts.sse(*map(json.dumps, [START, *BODY, *END]), done=False))
        async with Gateway(tmp_path, CONFIG.format(url=upstream.url)) as gateway:
            async with client(gateway) as sdk:
                stream = await sdk.chat.completions.create(**ASKED, stream=True)
                text = "".join([c.choices[0].delta.content or "" async for c in stream])
            assert text == TEXT
            said = await note(gateway)
            assert (said["input"], said["output"], said["finish"]) == (1520, 11, "stop")
            assert said["cost_usd"] == pytest.approx(INPUT + 11 * 4e-6)
            assert not said["estimated"]


async def test_a_stream_that_its_provider_did_not_finish(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(*scripts.sse(*map(json.dumps, [START, *BODY]), done=False))
        async with Gateway(tmp_path, CONFIG.format(url=upstream.url)) as gateway:
            async with client(gateway) as sdk:
                stream = await sdk.chat.completions.create(**ASKED, stream=True)
                with pytest.raises(openai.APIError):
                    async for _ in stream:
                        pass
            said = await note(gateway)
            assert (said["input"], said["finish"]) == (1520, None)
            assert 10 <= said["output"] <= 16


async def test_a_stream_whose_caller_leaves(tmp_path: Path) -> None:
    head = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    events = [scripts.chunk(f"data: {json.dumps(e)}\n\n".encode()) for e in (START, *BODY)]
    async with ScriptedUpstream() as upstream:
        upstream.answer(scripts.head(200, head), *events, scripts.silence())
        async with Gateway(tmp_path, CONFIG.format(url=upstream.url)) as gateway:
            async with client(gateway) as sdk:
                stream = await sdk.chat.completions.create(**ASKED, stream=True)
                async for chunk in stream:
                    if chunk.choices[0].delta.content:
                        break
                await stream.close()
            said = await note(gateway)
            assert (said["input"], said["cache_read"], said["finish"]) == (1520, 1000, None)
            assert 10 <= said["output"] <= 16  # the provider would have said 11 or so
            assert said["cost_usd"] == pytest.approx(INPUT + said["output"] * 4e-6)
