"""The addons for models together: one name, two providers of two formats, keys, usage, cost."""

from __future__ import annotations

import json
from pathlib import Path

import anthropic
import openai

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing import script as scripts

CONFIG = """
[gateway]
workers = 1

[[addon]]
use = "log-access"

[[addon]]
use = "ai-formats"

[[addon]]
use = "ai-usage"

[[addon]]
use = "ai-route"
models = [{{ name = "smart", targets = ["first/gpt-4o-mini", "anthropic/claude-haiku-4-5"] }}]

[[addon]]
use = "ai-providers"
providers = [
  {{ name = "first", like = "openai", url = "{first}/v1", keys = ["sk-canary-1", "sk-canary-2"] }},
  {{ name = "anthropic", url = "{second}", keys = ["sk-canary-3"] }},
]
"""
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "Hello from the second."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 5},
}


async def test_where_all_keys_of_a_provider_are_limited_the_next_model_answers(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        slow = {"error": {"message": "slow down", "type": "requests"}}
        first.answer(*scripts.json(slow, 429, {"retry-after": "60"}))
        second.answer(*scripts.json(CLAUDE))
        config = CONFIG.format(first=first.url, second=second.url)
        async with Gateway(tmp_path, config) as gateway:
            async with openai.AsyncOpenAI(
                base_url=f"{gateway.url}/v1", api_key="x", max_retries=0
            ) as sdk:
                for _ in range(2):
                    said = await sdk.chat.completions.create(
                        model="smart", messages=[{"role": "user", "content": "Hello"}]
                    )
                    assert said.choices[0].message.content == "Hello from the second."
            async with anthropic.AsyncAnthropic(
                base_url=gateway.url, api_key="x", max_retries=0
            ) as other:
                heard = await other.messages.create(
                    model="smart", max_tokens=50, messages=[{"role": "user", "content": "Hello"}]
                )
                assert heard.content[0].text == "Hello from the second."
            assert await gateway.stop() == 0
            log = "".join(f.read_text("utf-8") for f in tmp_path.rglob("*.jsonl"))
            assert "sk-canary" not in log + gateway.logs
        keys = [request.values("authorization") for request in first.requests]
        assert sorted(keys) == [["Bearer sk-canary-1"], ["Bearer sk-canary-2"]], "each once"
        assert len(second.requests) == 3
        rows = [json.loads(line)["notes"]["ai"] for line in log.splitlines()]
        assert {(row["provider"], row["model"]) for row in rows} == {
            ("anthropic", "claude-haiku-4-5")
        }
        assert all((row["input"], row["output"]) == (3, 5) for row in rows)
        assert all(row["cost_usd"] > 0 for row in rows)
