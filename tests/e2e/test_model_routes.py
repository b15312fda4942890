"""Virtual models and prompts over real providers' addons, as a node runs them together."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing import script as scripts

CONFIG = """
[gateway]
workers = 1

[[addon]]
use = "auth-key"

[[addon]]
use = "ai-prompts"
scope = {{ paths = ["/prompts/*"] }}

[[addon.prompts]]
name = "greet"
model = "smart"
user = "Greet {{{{ who }}}}."
variables.who = {{ type = "string" }}

[[addon]]
use = "ai-usage"
headers = true
prices = [
  {{ model = "big", input = 2, output = 10 }},
  {{ model = "claude-x", input = 1, output = 5 }},
]

[[addon]]
use = "log-access"

[[addon]]
use = "ai-route"

[[addon.models]]
name = "smart"
targets = ["one/big"]
fallback = {{ to = ["two/claude-x"] }}

[[addon]]
use = "ai-providers"
providers = [
  {{ name = "one", url = "{one}/v1", keys = ["first", "second"], models = ["big"] }},
  {{ name = "two", like = "anthropic", url = "{two}", keys = ["third"], models = ["claude-x"] }},
]
"""
CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "big",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "one"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "two"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "tw"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "o"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def node(tmp_path):
    """(gateway, the upstream that speaks OpenAI's API, the one that speaks Anthropic's)."""
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        one.answer(*scripts.json(CHAT))
        two.answer(*scripts.json(MESSAGE))
        config = CONFIG.format(one=one.url, two=two.url)
        async with Gateway(tmp_path, config, carrier="lane") as gateway:
            yield gateway, one, two


def sdk(gateway):
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.api_key, max_retries=0)


async def line_of(gateway, **wanted):
    """The line of the access log whose notes say this."""
    folder = gateway.folder / "state"
    async with asyncio.timeout(20):
        while True:
            for file in folder.rglob("*.jsonl"):
                for text in file.read_text().splitlines():
                    line = json.loads(text)
                    if wanted.items() <= line.get("notes", {}).items():
                        return line
            await asyncio.sleep(0.1)


async def test_keys_first_then_another_provider(node):
    gateway, one, two = node
    busy = scripts.json({"error": {"message": "slow down"}}, 429)
    async with sdk(gateway) as client:
        one.answers(busy, scripts.json(CHAT))
        raw = await client.chat.completions.with_raw_response.create(model="smart", messages=HI)
        assert raw.parse().choices[0].message.content == "one"
        assert raw.headers["x-tidegate-model"] == "one/big"
        keys = [request.values("authorization")[0] for request in one.requests]
        assert sorted(keys) == ["Bearer first", "Bearer second"]

        one.answer(*scripts.json({"error": {"message": "down"}}, 500))
        raw = await client.chat.completions.with_raw_response.create(model="smart", messages=HI)
        assert raw.parse().choices[0].message.content == "two"
        assert raw.headers["x-tidegate-model"] == "two/claude-x"
        assert float(raw.headers["x-tidegate-cost"]) == pytest.approx(22e-6)
        assert two.requests[0].values("x-api-key") == ["third"]
        assert two.requests[0].json()["model"] == "claude-x"


async def test_a_stream_falls_back_to_a_provider_of_another_format(node):
    gateway, one, two = node
    one.answer(*scripts.json({"error": {"message": "down"}}, 503))
    two.answer(*scripts.sse(*map(json.dumps, EVENTS), done=False))
    async with sdk(gateway) as client:
        text = ""
        stream = await client.chat.completions.create(
            model="smart", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage
    assert text == "two"
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)


async def test_a_key_that_rests_leaves_the_call_to_the_next_model(node):
    gateway, one, _ = node
    busy = scripts.json({"error": {"message": "slow down"}}, 429, {"retry-after": "60"})
    one.answer(*busy)
    async with sdk(gateway) as client:
        for _ in range(3):
            done = await client.chat.completions.create(model="smart", messages=HI)
            assert done.choices[0].message.content == "two"
    assert len(one.requests) == 2, "each key was tried once, then rests"


async def test_lists_of_models_show_virtual_ones(node):
    gateway, _, _ = node
    async with sdk(gateway) as client:
        names = [model.id async for model in await client.models.list()]
        assert names[0] == "smart"
        assert {"one/big", "two/claude-x"} <= set(names)
        assert (await client.models.retrieve("smart")).id == "smart"


async def test_a_prompt_is_routed_counted_and_logged_as_what_it_is(node):
    gateway, one, _ = node
    headers = {"authorization": f"Bearer {gateway.api_key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as client:
        answer = await client.post("/prompts/greet", json={"who": "Ada"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["output"] == "one"
        assert answer.headers["x-tidegate-model"] == "one/big"
        assert float(answer.headers["x-tidegate-cost"]) == pytest.approx(60e-6)
        one.answer(*scripts.json({"error": {"message": "temperature"}}, 400))
        failed = await client.post("/prompts/greet", json={"who": "Ada"})
        assert failed.status_code == 400
        assert failed.json()["error"]["code"] == "model_error"
    line = await line_of(gateway, prompt="greet/v1")
    assert line["path"] == "/prompts/greet"
    assert line["notes"]["ai"]["model"] == "big"
    assert line["notes"]["ai_route"]["asked"] == ["one/big"]
    assert one.requests[0].target == "/v1/chat/completions"


async def test_with_nothing_left_to_ask_the_caller_gets_503(node):
    gateway, one, two = node
    one.answer(*scripts.json({"error": {"message": "no"}}, 401))
    two.answer(*scripts.json({"type": "error", "error": {"type": "x", "message": "no"}}, 401))
    async with sdk(gateway) as client:
        with pytest.raises(openai.APIStatusError):
            await client.chat.completions.create(model="smart", messages=HI)
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="smart", messages=HI)
    assert caught.value.status_code == 503
    assert len(one.requests) == 2
