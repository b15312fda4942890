"""A cache of models' answers as official clients meet it: streams, whole answers, two workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
import pytest_asyncio

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import Action, Received, chunk, head, json, last_chunk, sse

CONFIG = """
[gateway]
workers = 2
anonymous = true

[[addon]]
use = "cache-ai"
size = "8MiB"
scope = {{ paths = ["/v1/*"] }}

[[addon]]
use = "ai-usage"

{route}
"""
DIRECT = '[[addon]]\nuse = "route-static"\nroutes = [{{ path = "/", upstream = "{url}" }}]'
ABROAD = (
    '[[addon]]\nuse = "ai-providers"\n'
    'providers = [{{ name = "work", kind = "anthropic", url = "{url}", keys = ["k"],'
    ' models = ["m-1"] }}]'
)
ASKED: Any = {"model": "m-1", "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]}


def openai_answer(request: Received) -> tuple[Action, ...]:
    head = {"id": "c", "created": 1, "model": "m-1"}
    if not request.json().get("stream"):
        message = {"role": "assistant", "content": "Hello, you."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
        return json({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    chunks = []
    for delta, finish in (
        ({"role": "assistant", "content": "Hello, "}, None),
        ({"content": "you."}, None),
        ({}, "stop"),
    ):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        one = {**head, "object": "chat.completion.chunk", "choices": [choice]}
        chunks.append(orjson.dumps(one).decode())
    return sse(*chunks, pause=0.02)


def anthropic_answer(request: Received) -> tuple[Action, ...]:
    usage = {"input_tokens": 12, "output_tokens": 5}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m-1", "content": [],
               "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
    if not request.json().get("stream"):
        content = [{"type": "text", "text": "Hello, you."}]
        return json({**message, "content": content, "stop_reason": "end_turn"})
    block: dict[str, Any] = {"type": "text", "text": ""}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "text_delta", "text": "Hello, "}},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "text_delta", "text": "you."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "usage": usage,
         "delta": {"stop_reason": "end_turn", "stop_sequence": None}},
        {"type": "message_stop"},
    ]  # fmt: skip
    sent = [chunk(f"event: {e['type']}\ndata: {orjson.dumps(e).decode()}\n\n".encode())
            for e in events]  # fmt: skip
    fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    return (head(200, fields), *sent, last_chunk())


class Calls:
    """An official client, on a new connection for each call: any worker may take it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def whole(self, **more: Any) -> tuple[str, str, int]:
        """(text, Cache-Status, tokens of output)."""
        async with openai.AsyncOpenAI(base_url=f"{self.gateway.url}/v1", api_key="k") as client:
            raw = await client.chat.completions.with_raw_response.create(
                **ASKED, **more, stream=False
            )
            answer = raw.parse()
            assert answer.usage is not None
            text = answer.choices[0].message.content or ""
            return text, raw.headers["cache-status"], answer.usage.completion_tokens

    async def streamed(self, **more: Any) -> str:
        async with openai.AsyncOpenAI(base_url=f"{self.gateway.url}/v1", api_key="k") as client:
            stream = await client.chat.completions.create(**ASKED, **more, stream=True)
            parts = [part async for part in stream]
            assert [c.finish_reason for p in parts for c in p.choices][-1] == "stop"
            return "".join(c.delta.content or "" for p in parts for c in p.choices)


@pytest_asyncio.fixture(params=["same format", "another format"])
async def calls(
    tmp_path: Path, upstream: ScriptedUpstream, carrier: str, request: pytest.FixtureRequest
) -> AsyncIterator[Calls]:
    direct = request.param == "same format"
    if not direct and carrier == "engine":
        pytest.skip("codecs are the lane's")
    upstream.handle(openai_answer if direct else anthropic_answer)
    route = (DIRECT if direct else ABROAD).format(url=upstream.url)
    async with Gateway(tmp_path, CONFIG.format(route=route), carrier=carrier) as gateway:
        yield Calls(gateway)


async def kept(calls: Calls, count: int) -> None:
    """Wait until that many answers are in the file."""
    async with asyncio.timeout(20):
        while (await calls.gateway.counters("cache-ai")).get("kept_total", 0) < count:
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.1)  # it is committed some milliseconds after it was counted


async def test_a_stream_is_given_again_as_a_stream_and_whole_by_all_workers(
    calls: Calls, upstream: ScriptedUpstream
) -> None:
    assert await calls.streamed() == "Hello, you."
    await kept(calls, 1)
    for _ in range(6):
        assert await calls.streamed() == "Hello, you."
    async with openai.AsyncOpenAI(base_url=f"{calls.gateway.url}/v1", api_key="k") as client:
        answer = await client.chat.completions.create(**ASKED)
        assert answer.choices[0].message.content == "Hello, you."
    assert len(upstream.requests) == 1


async def test_a_whole_answer_is_given_again_until_it_is_purged(
    calls: Calls, upstream: ScriptedUpstream
) -> None:
    text, told, tokens = await calls.whole()
    assert (text, told, tokens) == ("Hello, you.", "tidegate-ai; fwd=uri-miss", 5)
    await kept(calls, 1)
    for _ in range(6):
        text, told, tokens = await calls.whole()
        assert (text, tokens) == ("Hello, you.", 5)
        assert told.startswith("tidegate-ai; hit; ttl=")
    assert await calls.streamed() == "Hello, you."
    assert len(upstream.requests) == 1
    gateway = calls.gateway
    where = {
        "TIDEGATE_CONFIG": str(gateway.file),
        "TIDEGATE_STATE": str(gateway.folder / "state"),
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tidegate.cli.main", "cache-ai", "purge", "--model", "m-1"],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | where,
    )  # fmt: skip
    assert done.stdout == "1 dropped\n", done.stderr
    for count in (2, 2, 2):
        await calls.whole()
        await kept(calls, 2)
        assert len(upstream.requests) == count


async def test_another_key_is_another_caller(calls: Calls, upstream: ScriptedUpstream) -> None:
    await calls.whole()
    await kept(calls, 1)
    async with openai.AsyncOpenAI(base_url=f"{calls.gateway.url}/v1", api_key="other") as client:
        await client.chat.completions.create(**ASKED)
    assert len(upstream.requests) == 2
