"""What accounting costs on the loop: targets 5 µs for a price, 0.5 µs for a chunk of a stream.

uv run pytest bench/test_ai_usage.py -n 0 --benchmark-enable --benchmark-columns=min,median
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tidegate_ai_usage import AiUsage, AiUsageConfig
from tidegate_ai_usage.figures import Usage
from tidegate_ai_usage.prices import Prices
from tidegate_ai_usage.reader import Reader
from tidegate_ai_usage.tokens import tokenizer_for

from tidegate.api import AddonContext, Attempt, upstream_from_url
from tidegate.testing import make_answer, make_exchange

OPENAI = upstream_from_url("https://api.openai.com")
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 120},
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
).encode()
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}\n\n'
)
LAST = (
    b'data: {"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":200}}\n\n'
)


@pytest.fixture
def addon(tmp_path: Path) -> AiUsage:
    made = AiUsage(AiUsageConfig(), AddonContext("ai-usage", tmp_path))
    made.prices.load()
    return made


def test_price(benchmark):
    prices, usage = Prices(), Usage(1000, 100, 400)
    assert benchmark(prices.cost, "openai", "gpt-4o", usage, 1_795_000_000.0) == 3_000_000_000_000


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/orders"])
def test_recognise(benchmark, addon, path):
    exchange = make_exchange("POST", f"http://api.test{path}")

    def run():
        exchange.endings.clear()
        addon.transform_request(exchange)

    benchmark(run)


def test_whole_call_of_1_kib(benchmark, addon):
    """All hooks of a whole answer: recognised, watched, settled, priced, noted."""

    def run():
        exchange = make_exchange("POST", "http://api.test/v1/chat/completions")
        exchange.upstream, exchange.attempts = OPENAI, [Attempt(OPENAI, 1.0, status=200)]
        exchange.response = make_answer(200, b"", {"content-type": "application/json"})
        return (exchange,), {}

    def call(exchange):
        addon.transform_request(exchange)
        sink = addon.cache_store(exchange)
        sink.write(ANSWER)
        sink.close(complete=True, trailers=None)
        exchange.outcome = "answered"
        exchange.endings[0](exchange)
        assert exchange.notes["ai"]["input"] == 1000

    benchmark.pedantic(call, setup=run, rounds=2000)


def test_chunk_of_a_stream(benchmark):
    """The loop's part, 200 chunks; batches are looked at as they fill."""

    def call(reader):
        for _ in range(200):
            reader.write(CHUNK)

    benchmark.pedantic(call, setup=lambda: ((Reader("text/event-stream"),), {}), rounds=200)


@pytest.mark.parametrize("said", [True, False])
def test_end_of_a_stream_of_200_chunks(benchmark, said):
    """Where the provider says its usage few events are parsed, else all for their words."""

    def full():
        reader = Reader("text/event-stream")
        for _ in range(200):
            reader.write(CHUNK)
        reader.write(LAST if said else b"data: [DONE]\n\n")
        reader.close(complete=True, trailers=None)
        return (reader,), {}

    benchmark.pedantic(lambda reader: reader.settle(), setup=full, rounds=200)


def test_count_of_1_kib(benchmark):
    assert benchmark(tokenizer_for("gpt-4o").text, "The quick brown fox jumps. " * 38) > 100
