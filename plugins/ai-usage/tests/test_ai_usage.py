"""The addon on exchanges: what is noted, counted, told and settled."""

from __future__ import annotations

import gzip
import json

import pytest
from tidegate_ai_usage import AiUsage

from tidegate.api import Principal, upstream_from_url
from tidegate.api.formats import AI_SPENT
from tidegate.testing import Cut, Harness, Use, make_answer, make_exchange
from tidegate.testing.contracts import PluginContract, TransformContract

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
OPENAI = upstream_from_url("https://api.openai.com")
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there."},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400},
    },
}
ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello."}]}


class TestContract(PluginContract, TransformContract):
    name = "ai-usage"

    def good_exchange(self):
        return make_exchange("POST", "http://api.test/v1/chat/completions", body=ASKED)

    def answer(self):
        return make_answer(200, json.dumps(CHAT), JSON)


class TestContractWithHeaders(TestContract):
    def options(self):
        return {"headers": True, "count_prompts": True}


def call(path: str = "/v1/chat/completions", body=ASKED, **options):
    return make_exchange("POST", f"http://api.test{path}", body=body, **options)


def harness(answer, upstream=OPENAI, **options):
    return Harness(Use(AiUsage, options), answer=answer, route=upstream)


async def note(answer, exchange=None, **options):
    async with harness(answer, **options) as running:
        done = await running.send(exchange or call())
        await running.runtime.flush()
        return done.notes.get("ai"), done, running.counters()


async def test_a_whole_answer_is_noted_priced_and_counted():
    said, done, counters = await note(make_answer(200, json.dumps(CHAT), JSON))
    assert said["provider"] == "openai"
    assert said["model"] == "gpt-4o-2024-08-06"
    assert (said["input"], said["output"], said["cache_read"]) == (1000, 100, 400)
    # 600 at 2.50, 400 at 1.25, 100 at 10.00 dollars per million
    assert said["cost_usd"] == pytest.approx(0.003)
    assert (said["finish"], said["estimated"], said["streamed"]) == ("stop", False, False)
    spent = done.stash[AI_SPENT]
    assert str(spent.cost.normalize()) == "0.003"
    assert spent.usage.input == 1000
    assert counters["calls_total"] == 1
    assert counters["input_tokens_total:openai/gpt-4o-2024-08-06"] == 1000
    assert counters["cost_microdollars_total"] == 3000


async def test_an_encoded_answer_is_read_as_well():
    body = gzip.compress(json.dumps(CHAT).encode())
    said, _, _ = await note(make_answer(200, body, {**JSON, "content-encoding": "gzip"}))
    assert (said["input"], said["output"]) == (1000, 100)
