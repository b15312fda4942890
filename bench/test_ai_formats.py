"""Translation: targets ≤ 30 µs per whole answer of 1 KiB, ≤ 8 µs per streamed chunk.

uv run pytest bench/test_ai_formats.py -n 0 --benchmark-enable --benchmark-columns=min,median
"""

from __future__ import annotations

import orjson
import pytest
from tidegate_ai_formats import Losses, StreamTranslator, Translation, get_format
from tidegate_ai_formats.framing import encoder

from tidegate.api import SseEvent
from tidegate.testing.exchanges import make_answer, make_exchange

TEXT = "The quick brown fox jumps over the lazy dog. " * 12

CHAT = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-4.1-2025-04-14",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": TEXT,
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_0392822090",
}
MESSAGE = {
    "id": "msg_018wcZd3HjaUCp6vtfWURYTU",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5-20251001",
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 13,
        "output_tokens": 12,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
    },
}
CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "gpt-4.1",
    "service_tier": "default",
    "system_fingerprint": "fp_0392822090",
    "choices": [
        {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}
    ],
}
START = {**MESSAGE, "content": [], "stop_reason": None}
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}

WHOLE = {
    "openai-chat": CHAT,
    "anthropic-messages": MESSAGE,
}
STREAMS = {
    "openai-chat": ([{**CHUNK, "choices": [{"index": 0, "delta": {"role": "assistant"}}]}], CHUNK),
    "anthropic-messages": (
        [
            {"type": "message_start", "message": START},
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            },
        ],
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": " word"},
        },
    ),
}
TARGETS = ["openai-chat", "anthropic-messages", "gemini", "openai-responses"]


def started(client: str, provider: str, *, stream: bool):
    codec = Translation(get_format(client), get_format(provider))
    body = {**ASKED, "stream": stream}
    path = "/v1/chat/completions"
    if client == "gemini":
        body = {"contents": [{"parts": [{"text": "Hello"}]}]}
        path = (
            f"/v1beta/models/m:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"
        )
    elif client == "openai-responses":
        body = {"model": "m", "input": "Hello", "stream": stream}
    exchange = make_exchange("POST", f"http://api.test{path}", body=orjson.dumps(body))
    codec.encode(exchange, exchange.request)
    return codec, exchange


@pytest.mark.parametrize("client", TARGETS)
@pytest.mark.parametrize("provider", list(WHOLE))
def test_whole_answer(benchmark, provider, client):
    content = orjson.dumps(WHOLE[provider])
    assert 900 < len(content) < 1300

    def setup():
        codec, exchange = started(client, provider, stream=False)
        return (codec, exchange, make_answer(200, content)), {}

    benchmark.pedantic(
        lambda codec, exchange, response: codec.decode(exchange, response),
        setup=setup,
        rounds=3000,
        warmup_rounds=100,
    )


@pytest.mark.parametrize("client", TARGETS)
@pytest.mark.parametrize("provider", list(STREAMS))
def test_chunk_of_a_stream(benchmark, provider, client):
    codec, exchange = started(client, provider, stream=True)
    before, chunk = STREAMS[provider]
    for data in before:
        codec.decode_event(exchange, SseEvent(orjson.dumps(data).decode()))
    event = SseEvent(orjson.dumps(chunk).decode())
    assert benchmark(codec.decode_event, exchange, event)


FRAMED = {
    "bedrock-converse": (
        [SseEvent('{"role":"assistant"}', "messageStart")],
        SseEvent(
            '{"contentBlockIndex":0,"delta":{"text":" word"},"p":"abcdef"}', "contentBlockDelta"
        ),
    ),
    "ollama-chat": (
        [],
        SseEvent(
            '{"model":"m","created_at":"2026-01-01T00:00:00.123456789Z",'
            '"message":{"role":"assistant","content":" word"},"done":false}'
        ),
    ),
}


@pytest.mark.parametrize("client", ["openai-chat", "anthropic-messages"])
@pytest.mark.parametrize("provider", list(FRAMED))
def test_chunk_of_a_stream_in_bytes(benchmark, provider, client):
    """Streams that are not server-sent events: framing both ways is part of the cost."""
    source, target = get_format(provider), get_format(client)
    stream = StreamTranslator(target, source, Losses(client))
    wire = encoder(source.framing)
    before, event = FRAMED[provider]
    stream.feed(b"".join(map(wire.feed, [*before, event])))
    assert benchmark(stream.feed, wire.feed(event))
