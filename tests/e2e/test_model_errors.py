"""Errors of the gateway on the paths of model APIs: official clients raise their own exceptions."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import chunk, reset, sleep, sse

NODE = Path(__file__).parent / "node"
START = Callable[..., Awaitable[Gateway]]
HI = [{"role": "user", "content": "Hi"}]
KEY = "a-key-of-the-test"
CONFIG = """
[gateway]
workers = 1

[[addon]]
use = "auth-key"
form = "any"
keys = [{ name = "dev", key = "%s" }]

[[addon]]
use = "limit-rate"
rate = "9/h"
per = "gateway"

[[addon]]
use = "route-static"
routes = [{ path = "/v1/", upstream = "%s" }]
"""
CHUNK = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}
    ],
}
BEGIN = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}


@pytest.fixture
async def running(gateway: START, upstream: ScriptedUpstream, carrier: str) -> Gateway:
    return await gateway(CONFIG % (KEY, upstream.url), carrier=carrier)


def ask_openai(gateway: Gateway, key: str = KEY, path: str = "/v1", tries: int = 1) -> Any:
    client = openai.AsyncOpenAI(
        base_url=gateway.url + path, api_key=key, max_retries=tries - 1, timeout=60.0
    )
    return client.chat.completions.create


def ask_anthropic(gateway: Gateway, key: str = KEY, tries: int = 1) -> Any:
    client = anthropic.AsyncAnthropic(
        base_url=gateway.url, auth_token=key, max_retries=tries - 1, timeout=60.0
    )
    return client.messages.create


async def test_a_key_that_is_not_known(running: Gateway) -> None:
    with pytest.raises(openai.AuthenticationError) as denied:
        await ask_openai(running, "wrong")(model="m", messages=HI)
    assert denied.value.code == "invalid_api_key"
    assert denied.value.type == "invalid_request_error"
    with pytest.raises(anthropic.AuthenticationError) as refused:
        await ask_anthropic(running, "wrong")(model="m", messages=HI, max_tokens=9)
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "authentication_error"
    assert body["error"]["code"] == "invalid_api_key"
    assert body["request_id"] == refused.value.response.headers["x-request-id"]


async def test_too_many_requests(running: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.answer(*sse("[DONE]"))
    streams = []

    async def until_denied() -> None:
        for _ in range(20):  # one that is dropped open may take its successor's events with it
            streams.append(await ask_openai(running)(model="m", messages=HI, stream=True))

    with pytest.raises(openai.RateLimitError) as denied:
        await until_denied()
    assert denied.value.code == "rate_limited"
    assert int(denied.value.response.headers["retry-after"]) >= 1
    with pytest.raises(anthropic.RateLimitError):
        await ask_anthropic(running)(model="m", messages=HI, max_tokens=9)


async def test_nothing_behind_a_path(running: Gateway) -> None:
    with pytest.raises(openai.NotFoundError) as missed:
        await ask_openai(running, path="/openai/v1")(model="m", messages=HI)
    assert missed.value.code == "no_route"


async def test_an_upstream_that_breaks_down(running: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.answer(reset())
    with pytest.raises(openai.InternalServerError) as failed:
        await ask_openai(running)(model="m", messages=HI)
    assert failed.value.status_code == 502
    with pytest.raises(anthropic.InternalServerError) as broken:
        await ask_anthropic(running)(model="m", messages=HI, max_tokens=9)
    body: Any = broken.value.body
    assert body["error"]["type"] == "api_error"


async def test_a_stream_that_is_cut_ends_with_an_error_of_its_own_format(
    running: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*sse(json.dumps(CHUNK), done=False)[:-1], sleep(0.1), reset())
    stream = await ask_openai(running, tries=3)(model="m", messages=HI, stream=True)
    with pytest.raises(openai.APIError, match="cut") as failed:
        _ = [chunk async for chunk in stream]
    assert failed.value.code == "upstream_protocol_error"
    event = chunk(b"event: message_start\ndata: %b\n\n" % json.dumps(BEGIN).encode())
    upstream.answer(*sse(done=False)[:-1], event, sleep(0.1), reset())
    stream = await ask_anthropic(running, tries=3)(
        model="m", messages=HI, max_tokens=9, stream=True
    )
    with pytest.raises(anthropic.APIStatusError) as broken:
        _ = [event async for event in stream]
    body: Any = broken.value.body
    assert body["error"]["type"] == "api_error"


async def test_the_node_clients(running: Gateway, upstream: ScriptedUpstream) -> None:
    if shutil.which("node") is None or not (NODE / "node_modules/@anthropic-ai").exists():
        pytest.skip(f"the Node SDKs are missing: npm ci --prefix {NODE}")
    upstream.answer(*sse(json.dumps(CHUNK), done=False)[:-1], sleep(0.1), reset())
    env = {**os.environ, "URL": running.url, "API_KEY": KEY}
    run = await asyncio.to_thread(
        subprocess.run, ["node", "errors.mjs"], cwd=NODE, env=env, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "openai": "invalid_api_key",
        "anthropic": "authentication_error",
        "cut": "upstream_protocol_error",
    }


async def test_other_paths_keep_the_envelope(running: Gateway) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{running.url}/v1/orders")
    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"code", "message", "request_id"}
