"""Cassettes with real processes: what was recorded is played byte for byte, on both carriers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tidegate.testing import Gateway, ScriptedUpstream, script

NODE = Path(__file__).parent / "node"
START = Callable[..., Awaitable[Gateway]]
SITE = os.environ.get("TIDEGATE_LOCAL_MODEL_SITE", "")
MODEL = "local-model" if SITE and Path(SITE).is_dir() else "demo-upstream"
"""The real model where it is installed."""

HEAD = '[gateway]\nlisten = ["127.0.0.1:0"]\nworkers = 1\n'
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


def config(folder: Path, action: str, rest: str, **options: object) -> str:
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    return (
        f'{HEAD}[[addon]]\nuse = "record-cassette"\naction = "{action}"\n'
        f"dir = {json.dumps(str(folder))}\n{more}{rest}"
    )


def route(url: str) -> str:
    return f'[[addon]]\nuse = "route-static"\nroutes = [{{ path = "/", upstream = "{url}" }}]\n'


async def written(folder: Path, count: int) -> list[Path]:
    """The cassettes, when so many are there."""
    for _ in range(500):
        if len(found := sorted(folder.rglob("*.cassette"))) >= count:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(found)} cassettes in {folder}, not {count}")


async def streamed(url: str, key: str) -> tuple[bytes, list[dict[str, Any]]]:
    """The bytes of a streamed tool call, and what the official SDK makes of such an answer."""
    body = {"model": "smollm2", "messages": ASKED, "tools": [TOOL], "stream": True}
    body |= {"temperature": 0, "seed": 7, "max_tokens": 80}
    if MODEL == "demo-upstream":  # it calls a tool where it must; the model, where it likes to
        body["tool_choice"] = "required"
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        stream = await client.chat.completions.create(**body)  # type: ignore[call-overload]
        chunks = [chunk.model_dump() async for chunk in stream]
        raw = await client.chat.completions.with_raw_response.create(**body)  # type: ignore[call-overload]
        return await raw.http_response.aread(), chunks


async def test_a_streamed_tool_call_comes_back_byte_for_byte(
    gateway: START, carrier: str, tmp_path: Path
) -> None:
    folder = tmp_path / "cassettes"
    model = f'[[addon]]\nuse = "{MODEL}"\n'
    recording = await gateway(config(folder, "record", model), carrier=carrier)
    raw, chunks = await streamed(recording.url, "sk-secret-canary-0123456789")
    calls = [c["choices"][0]["delta"].get("tool_calls") for c in chunks if c["choices"]]
    assert any(call and call[0]["function"]["name"] == "get_weather" for call in calls)
    files = await written(folder, 2)
    assert await recording.stop() == 0
    text = "".join(file.read_text() for file in files)
    assert "canary" not in text
    assert "events\n+" in text

    other = "engine" if carrier == "lane" else "lane"
    for played_on in (carrier, other):
        playing = await gateway(config(folder, "replay", ""), carrier=played_on)
        again, chunks_again = await streamed(playing.url, "sk-another-key-of-somebody-else")
        assert again == raw
        assert chunks_again == chunks
        assert await playing.stop() == 0
        assert "were not played" not in playing.logs


async def sdks_of_node(url: str, key: str) -> dict[str, Any]:
    """What the official Node SDKs make of a streamed tool call, and the very bytes that they got:
    OpenAI's, and with the real model Anthropic's too, which the demo does not speak."""
    real = "1" if MODEL == "local-model" else ""
    env = {**os.environ, "BASE_URL": url, "API_KEY": key, "ANTHROPIC": real}
    process = await asyncio.create_subprocess_exec(
        *("node", "tools.mjs"), cwd=NODE, env=env, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    seen: dict[str, Any] = json.loads(out)
    return seen


async def curled(url: str, body: str) -> bytes:
    """What curl gets for the call that an SDK has made."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--fail", "--noproxy", "*", "-H", "content-type: application/json"),
        *("-H", "authorization: Bearer sk-a-third-key-0123456789", "-d", "@-", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(body.encode())
    assert process.returncode == 0
    return out


async def test_the_node_sdks_get_the_same_stream_again(
    gateway: START, carrier: str, tmp_path: Path
) -> None:
    if shutil.which("node") is None or not (NODE / "node_modules/openai").exists():
        pytest.skip(f"the Node SDKs are missing: npm ci --prefix {NODE}")
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: apt-get install curl")
    folder = tmp_path / "cassettes"
    model = f'[[addon]]\nuse = "{MODEL}"\n'
    recording = await gateway(config(folder, "record", model), carrier=carrier)
    live = await sdks_of_node(recording.url, "sk-secret-canary-0123456789")
    calls = [c["choices"][0]["delta"].get("tool_calls") for c in live["openai"] if c["choices"]]
    assert any(call and call[0]["function"]["name"] == "get_weather" for call in calls)
    assert bool(live["anthropic"]) == (MODEL == "local-model")
    await written(folder, 1 + bool(live["anthropic"]))
    assert await recording.stop() == 0
    playing = await gateway(config(folder, "replay", ""), carrier=carrier)
    assert await sdks_of_node(playing.url, "sk-another-key-of-somebody-else") == live
    for one in live["raw"]:
        got = base64.b64decode(one["got"])
        assert b"data: " in got
        assert await curled(f"{playing.url}{one['path']}", one["sent"]) == got


async def test_events_keep_their_time_where_asked(
    gateway: START, carrier: str, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    folder = tmp_path / "cassettes"
    upstream.answer(*script.sse("one", "two", "three", pause=0.15))
    recording = await gateway(config(folder, "record", route(upstream.url)), carrier=carrier)
    async with httpx.AsyncClient(trust_env=False) as client:
        live = (await client.get(f"{recording.url}/events")).content
        await written(folder, 1)
        await recording.stop()
        quick = await gateway(config(folder, "replay", ""), carrier=carrier)
        slow = await gateway(config(folder, "replay", "", speed=1.0), carrier=carrier)
        times = []
        for playing in (quick, slow):
            began = time.monotonic()
            assert (await client.get(f"{playing.url}/events")).content == live
            times.append(time.monotonic() - began)
    assert times[1] >= 0.4
    assert times[1] - times[0] >= 0.2


async def test_a_miss_tells_the_nearest_cassette_and_what_differs(
    gateway: START, carrier: str, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    folder = tmp_path / "cassettes"
    upstream.handle(lambda request: script.json({"got": request.json()["n"]}))
    recording = await gateway(config(folder, "record", route(upstream.url)), carrier=carrier)
    async with httpx.AsyncClient(trust_env=False) as client:
        for number in (1, 2):
            await client.post(f"{recording.url}/things", json={"n": number, "color": "red"})
        await written(folder, 2)
        await recording.stop()
        playing = await gateway(config(folder, "replay", route(upstream.url)), carrier=carrier)
        seen = len(upstream.requests)
        played = await client.post(f"{playing.url}/things", json={"color": "red", "n": 2})
        assert played.json() == {"got": 2}
        missed = await client.post(f"{playing.url}/things", json={"n": 2, "color": "blue"})
    assert missed.status_code == 424
    assert missed.headers["x-should-retry"] == "false"
    error = missed.json()["error"]
    assert error["code"] == "cassette_miss"
    assert '-    "color": "red",' in error["message"]
    assert '+    "color": "blue",' in error["message"]
    assert len(upstream.requests) == seen
    await playing.stop()
    assert "1 of 2 cassettes were not played" in playing.logs


async def test_what_is_missing_is_recorded_once(
    gateway: START, carrier: str, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    folder = tmp_path / "cassettes"
    upstream.answers(script.body(b"first"), script.body(b"second"))
    running = await gateway(config(folder, "record-missing", route(upstream.url)), carrier=carrier)
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(3):
            assert (await client.get(f"{running.url}/x")).text == "first"
        assert len(upstream.requests) == 1
        running = await gateway(config(folder, "passthrough", route(upstream.url)), carrier=carrier)
        assert (await client.get(f"{running.url}/x")).text == "second"
    assert len(await written(folder, 1)) == 1
