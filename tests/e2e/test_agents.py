"""Agents as people run them, by every API: Claude Code's traffic, Vercel's AI SDK, LangChain.

The providers speak OpenAI's and Anthropic's formats, and send each byte of a stream by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import anthropic
import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing import script as scripts
from tidegate.testing.script import Action, Received

HERE: Final = Path(__file__).parent
NODE: Final = HERE / "node"
LANGCHAIN: Final = ("langchain-openai", "langchain-anthropic")
type Script = tuple[Action, ...]

CONFIG: Final = """
[gateway]
workers = 1

[[addon]]
use = "auth-key"

[[addon]]
use = "ai-usage"

[[addon]]
use = "ai-providers"
providers = [
  {{ name = "one", url = "{one}/v1", keys = ["sk-one"], models = ["m"] }},
  {{ name = "two", like = "anthropic", url = "{two}", keys = ["sk-two"] }},
]
"""
MODELS: Final = ("one/m", "two/claude-x")
CALL: Final = {"city": "Paris — é"}
SAID: Final = "It is sunny — ☀."
SSE: Final = [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]


def by_bytes(events: list[bytes]) -> Script:
    """A stream of which each byte is a chunk of its own."""
    raw = b"".join(events)
    pieces = (scripts.chunk(raw[n : n + 1]) for n in range(len(raw)))
    return (scripts.head(200, SSE), *pieces, scripts.last_chunk())


def openai_turn(request: Received) -> Script:
    """The provider `one`: calls the tool first, answers where there is its result."""
    asked = request.json()
    done = any(message["role"] == "tool" for message in asked["messages"])
    function = {"name": "get_weather", "arguments": json.dumps(CALL, ensure_ascii=False)}
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": function}]
    message: dict[str, Any] = {"role": "assistant", "content": SAID if done else None}
    if not done:
        message["tool_calls"] = calls
    finish = "stop" if done else "tool_calls"
    about = {"id": "c", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    if not asked.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return scripts.json(
            {**about, "object": "chat.completion", "choices": [choice], "usage": usage}
        )
    about["object"] = "chat.completion.chunk"
    choices: list[Any] = [[{"index": 0, "delta": message, "finish_reason": None}]]
    choices += [[{"index": 0, "delta": {}, "finish_reason": finish}]]
    chunks = [{**about, "choices": one} for one in choices]
    if (asked.get("stream_options") or {}).get("include_usage"):
        chunks.append({**about, "choices": [], "usage": usage})
    texts = [json.dumps(one, ensure_ascii=False) for one in chunks]
    return by_bytes([b"data: %b\n\n" % text.encode() for text in (*texts, "[DONE]")])


def anthropic_turn(request: Received) -> Script:
    """The same of the provider `two`."""
    asked = request.json()
    blocks = [b for m in asked["messages"] if isinstance(m["content"], list) for b in m["content"]]
    done = any(block["type"] == "tool_result" for block in blocks)
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": CALL}
    block = {"type": "text", "text": SAID} if done else call
    reason = "end_turn" if done else "tool_use"
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
               "content": [block], "stop_reason": reason, "stop_sequence": None,
               "usage": {"input_tokens": 5, "output_tokens": 6}}  # fmt: skip
    if not asked.get("stream"):
        return scripts.json(message)
    if done:
        opened, delta = {**block, "text": ""}, {"type": "text_delta", "text": SAID}
    else:
        text = json.dumps(CALL, ensure_ascii=False)
        opened, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": text}
    begun = {**message, "content": [], "stop_reason": None}
    end = {"stop_reason": reason, "stop_sequence": None}
    events = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": opened},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": message["usage"]},
        {"type": "message_stop"},
    ]
    return by_bytes(
        [
            b"event: %b\ndata: %b\n\n"
            % (str(event["type"]).encode(), json.dumps(event, ensure_ascii=False).encode())
            for event in events
        ]
    )


type Node = tuple[Gateway, ScriptedUpstream, ScriptedUpstream]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        one.handle(openai_turn)
        two.handle(anthropic_turn)
        config = CONFIG.format(one=one.url, two=two.url)
        async with Gateway(tmp_path, config, carrier="lane") as gateway:
            yield gateway, one, two


async def run(gateway: Gateway, *argv: str, cwd: Path = HERE) -> Any:
    """What a client prints, as JSON."""
    told = {"BASE_URL": gateway.url, "API_KEY": gateway.api_key or "", "MODELS": ",".join(MODELS)}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *argv, cwd=cwd, env={**os.environ, **told}, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(120):
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    return json.loads(out)


async def test_vercels_sdk_runs_a_tool_by_three_apis_of_two_providers(node: Node) -> None:
    if shutil.which("node") is None or not (NODE / "node_modules/ai").exists():
        pytest.skip(f"the Node SDKs are missing: npm ci --prefix {NODE}")
    told = await run(node[0], "node", "ai.mjs", cwd=NODE)
    assert [(one["api"], one["name"]) for one in told["seen"]] == [
        (api, name) for name in MODELS for api in ("chat", "responses", "messages")
    ]
    for one in told["seen"]:
        assert (one["whole"], one["text"]) == (SAID, SAID), one
        assert (one["steps"], one["calls"], one["finish"]) == (2, [CALL], "stop")
        assert (one["input"], one["output"]) == (10, 12), "of two turns"
    assert (told["error"]["call"], told["error"]["status"]) == (True, 404)


async def test_langchain_runs_a_tool_by_three_apis_of_two_providers(node: Node) -> None:
    python = os.environ.get("TIDEGATE_LANGCHAIN_PYTHON", sys.executable)
    probe = await asyncio.create_subprocess_exec(
        python, "-c", "import langchain_openai, langchain_anthropic",
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    if await probe.wait():
        pytest.skip(
            f"LangChain is missing: uv venv DIR && uv pip install -p DIR {' '.join(LANGCHAIN)}, "
            "and TIDEGATE_LANGCHAIN_PYTHON=DIR/bin/python"
        )
    told = await run(node[0], python, "langchain_agent.py")
    assert len(told) == 12, "models, APIs, whole and streamed"
    for one in told:
        assert one == {
            "text": SAID,
            "calls": [["get_weather", CALL]],
            "used": [[5, 6], [5, 6]],
        }


def claude_code(model: str) -> dict[str, Any]:
    """A request with all that Claude Code puts into its own."""
    cache = {"type": "ephemeral"}
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"name": "get_weather", "description": "Weather.", "input_schema": schema}
    return {
        "model": model,
        "max_tokens": 32000,
        "system": [{"type": "text", "text": "You are an agent.", "cache_control": cache}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<system-reminder>Be brief.</system-reminder>"},
                {"type": "text", "text": "The weather?", "cache_control": cache},
            ]},
        ],
        "tools": [{**tool, "cache_control": cache}],
        "metadata": {"user_id": "user_1_account__session_2"},
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "extra_query": {"beta": "true"},
        "betas": ["interleaved-thinking-2025-05-14", "claude-code-20250219"],
    }  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
async def test_claude_codes_traffic(node: Node, model: str) -> None:
    gateway, one, two = node
    asked = claude_code(model)
    async with anthropic.AsyncAnthropic(
        base_url=gateway.url, auth_token=gateway.api_key, api_key=None, max_retries=0
    ) as sdk:
        async with sdk.beta.messages.stream(**asked) as stream:
            first = await stream.get_final_message()
        assert first.stop_reason == "tool_use"
        assert (first.content[-1].name, first.content[-1].input) == ("get_weather", CALL)  # type: ignore[union-attr]
        result = {"type": "tool_result", "tool_use_id": first.content[-1].id, "content": "sunny"}  # type: ignore[union-attr]
        asked["messages"] += [
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]
        async with sdk.beta.messages.stream(**asked) as stream:
            second = await stream.get_final_message()
        assert second.content[0].text == SAID  # type: ignore[union-attr]
        assert (second.usage.input_tokens, second.usage.output_tokens) == (5, 6)
    if model.startswith("two"):
        sent = two.requests[0]
        assert sent.target == "/v1/messages?beta=true"
        assert sent.values("anthropic-beta") == [",".join(asked["betas"])]
        assert sent.values("x-api-key") == ["sk-two"]
        for field in ("system", "tools", "thinking", "metadata"):
            assert sent.json()[field] == asked[field]
        assert sent.json()["messages"] == asked["messages"][:1]
    else:
        sent = one.requests[0]
        assert sent.target == "/v1/chat/completions"
        assert sent.values("anthropic-beta") == sent.values("anthropic-version") == []
        body = sent.json()
        assert body["messages"][0] == {"role": "system", "content": "You are an agent."}
        assert body["tools"][0]["function"]["name"] == "get_weather"
        assert body["reasoning_effort"] == "high"
        assert body["stream_options"] == {"include_usage": True}
    assert sent.values("authorization") == (["Bearer sk-one"] if model.startswith("one") else [])
