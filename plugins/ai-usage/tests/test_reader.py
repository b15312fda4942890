"""What a `Reader` gets out of answers in the shapes of all providers, however they are framed."""

from __future__ import annotations

import base64
import json
import zlib
from decimal import Decimal

import brotli
import pytest
import zstandard
from tidegate_ai_usage import reader as reading
from tidegate_ai_usage.figures import Usage
from tidegate_ai_usage.reader import Reader

WHOLE = {
    "chat": (
        {
            "model": "gpt-4o",
            "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 1},
            },
        },
        Usage(10, 5, 4, reasoning=2, audio_input=1, audio_output=1),
    ),
    "thought beside the completion": (
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 18,
                "completion_tokens_details": {"reasoning_tokens": 3},
            }
        },
        Usage(10, 8, reasoning=3),
    ),
    "DeepSeek's cache": (
        {"usage": {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}},
        Usage(9, 1, 8),
    ),
    "a cost of the provider's own": (
        {"usage": {"prompt_tokens": 9, "completion_tokens": 1, "cost": 0.00012}},
        Usage(9, 1, cost=Decimal("0.00012")),
    ),
    "responses": (
        {
            "status": "completed",
            "usage": {
                "input_tokens": 10,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 2},
                "total_tokens": 15,
            },
        },
        Usage(10, 5, 4, reasoning=2),
    ),
    "messages": (
        {
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 3,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 50,
                "cache_creation": {"ephemeral_1h_input_tokens": 20},
                "output_tokens": 5,
                "service_tier": "batch",
                "server_tool_use": {"web_search_requests": 2},
            },
        },
        Usage(153, 5, 100, 50, 20, searches=2, tier="batch"),
    ),
    "generateContent": (
        {
            "usageMetadata": {
                "promptTokenCount": 10,
                "toolUsePromptTokenCount": 2,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
                "cachedContentTokenCount": 4,
                "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 6}],
            }
        },
        Usage(12, 12, 4, reasoning=7, audio_input=6),
    ),
    "converse": (
        {"usage": {"inputTokens": 3, "outputTokens": 5, "cacheReadInputTokens": 10}},
        Usage(13, 5, 10),
    ),
    "cohere": (
        {
            "usage": {
                "billed_units": {"input_tokens": 3, "output_tokens": 5},
                "tokens": {"input_tokens": 500.0, "output_tokens": 7.0},
            }
        },
        Usage(500, 7, billed=(3, 5)),
    ),
    "ollama": ({"done": True, "prompt_eval_count": 10, "eval_count": 5}, Usage(10, 5)),
    "embeddings": ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8)),
    "Titan's embeddings": ({"embedding": [0.1], "inputTextTokenCount": 6}, Usage(6)),
    "Vertex's embeddings": (
        {"predictions": [{"embeddings": {"statistics": {"token_count": 4}}}]},
        Usage(4),
    ),
    "nonsense": ({"usage": {"prompt_tokens": "many", "completion_tokens": -3}}, Usage()),
}


def read(body: bytes, content_type="application/json", coding="", *, step=0, complete=True):
    found = Reader(content_type, coding)
    for at in range(0, len(body), step or len(body) or 1):
        found.write(body[at : at + step] if step else body)
    found.close(complete=complete, trailers=None)
    found.settle()
    return found


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_says_what_it_used(name):
    body, wanted = WHOLE[name]
    found = read(json.dumps(body, indent=1).encode())
    assert found.usage == wanted
    assert not found.streamed


@pytest.mark.parametrize("text", [b"", b"[1, 2]", b"null", b'{"usage": null}', b"<html>", b"{"])
def test_what_is_no_answer_of_a_model_says_nothing(text):
    found = read(text)
    assert found.usage is None
    assert not found.alike


def sse(*events, names=False):
    lines = []
    for event in events:
        if names:
            lines.append(f"event: {event['type']}\r\n")
        lines.append(f"data: {json.dumps(event)}\r\n\r\n")
    return "".join(lines).encode()


def aws(*events):
    out = b""
    for event in events:
        payload = json.dumps(event).encode()
        sizes = (16 + len(payload)).to_bytes(4) + (0).to_bytes(4)
        message = sizes + zlib.crc32(sizes).to_bytes(4) + payload
        out += message + zlib.crc32(message).to_bytes(4)
    return out


CHAT = [
    {"model": "gpt-4o", "choices": [{"delta": {"content": "Hé"}, "finish_reason": None}]},
    {"model": "gpt-4o", "choices": [{"delta": {"content": "llo"}, "finish_reason": None}]},
    {"model": "gpt-4o", "choices": [{"delta": {}, "finish_reason": "stop"}]},
    {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
]
CLAUDE = [
    {
        "type": "message_start",
        "message": {"model": "claude-x", "usage": {"input_tokens": 7, "output_tokens": 1}},
    },
    {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hé"}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "llo"}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
]
GEMINI = [
    {
        "modelVersion": "gemini-x",
        "candidates": [{"content": {"parts": [{"text": "Hé"}]}}],
        "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7},
    },
    {
        "modelVersion": "gemini-x",
        "candidates": [{"content": {"parts": [{"text": "llo"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2},
    },
]
OLLAMA = [
    {"model": "llama", "message": {"content": "Hé"}, "done": False},
    {"model": "llama", "message": {"content": "llo"}, "done": False},
    {
        "model": "llama",
        "message": {"content": ""},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 7,
        "eval_count": 2,
    },
]
CONVERSE = [
    {"contentBlockIndex": 0, "delta": {"text": "Hé"}},
    {"contentBlockIndex": 0, "delta": {"text": "llo"}},
    {"stopReason": "end_turn"},
    {"metrics": {"latencyMs": 1}, "usage": {"inputTokens": 7, "outputTokens": 2}},
]
RESPONSES = [
    {"type": "response.created", "response": {"model": "gpt-5", "usage": None}},
    {"type": "response.output_text.delta", "delta": "Hé"},
    {"type": "response.output_text.delta", "delta": "llo"},
    {"type": "response.output_text.done", "text": "Héllo"},
    {
        "type": "response.completed",
        "response": {
            "status": "completed",
            "model": "gpt-5",
            "output": [{"content": [{"text": "Héllo"}]}],
            "usage": {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
        },
    },
]
INVOKE = [{"bytes": base64.b64encode(json.dumps(e).encode()).decode()} for e in CLAUDE]
EVENTS = "text/event-stream"
STREAMS = {
    "chat": (sse(*CHAT) + b"data: [DONE]\n\n", EVENTS, "gpt-4o", "stop"),
    "messages": (sse(*CLAUDE, names=True), EVENTS, "claude-x", "end_turn"),
    "gemini": (sse(*GEMINI), EVENTS, "gemini-x", "STOP"),
    "gemini's array": (json.dumps(GEMINI).encode(), "application/json", "gemini-x", "STOP"),
    "responses": (sse(*RESPONSES, names=True), EVENTS, "gpt-5", "completed"),
    "ollama": (
        b"".join(json.dumps(e).encode() + b"\n" for e in OLLAMA),
        "application/x-ndjson",
        "llama",
        "stop",
    ),
    "converse": (aws(*CONVERSE), "application/vnd.amazon.eventstream", "", "end_turn"),
    "invoke": (aws(*INVOKE), "application/vnd.amazon.eventstream", "claude-x", "end_turn"),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_says_what_it_used_however_its_bytes_are_cut(name, monkeypatch):
    body, content_type, model, finish = STREAMS[name]
    for batch, step in ((1 << 16, 0), (1 << 16, 1), (0, 1), (7, 3)):
        monkeypatch.setattr(reading, "BATCH", batch)
        found = read(body, content_type, step=step)
        assert (found.usage.input, found.usage.output) == (7, 2)
        assert (found.model, found.finish, found.streamed, found.final) == (
            model,
            finish,
            True,
            True,
        )


@pytest.mark.parametrize("name", STREAMS)
def test_of_a_cut_stream_the_words_are_kept(name):
    body, content_type, _, _ = STREAMS[name]
    cut = body.index(b"llo") if name != "invoke" else len(aws(*INVOKE[:3]))
    found = read(body[:cut], content_type, complete=False)
    assert "".join(found.words) == "Hé"
    assert not found.final
    ended = read(body, content_type, complete=False)
    assert "".join(ended.words) == "Héllo"
    assert ended.final


CODINGS = {
    "gzip": lambda data: zlib.compress(data, wbits=31),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", ["chat", "invoke"])
def test_an_encoded_stream_is_decoded(coding, name):
    body, content_type, _, _ = STREAMS[name]
    coded = CODINGS[coding](body)
    for step in (0, 1, 5):
        found = read(coded, content_type, coding, step=step)
        assert (found.usage.input, found.usage.output) == (7, 2)


@pytest.mark.parametrize("coding", ["gzip", "unheard-of"])
def test_an_answer_that_can_not_be_decoded_says_nothing(coding):
    assert read(b"\x00\x01garbage" * 100, coding=coding, step=10).usage is None


def test_the_end_of_a_long_answer_is_enough(monkeypatch):
    monkeypatch.setattr(reading, "WHOLE", 4096)
    monkeypatch.setattr(reading, "BATCH", 1000)
    usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    image = {"data": [{"b64_json": "A" * 20_000, "note": '"usage": {"input_tokens": 1}'}]}
    found = read(json.dumps({**image, "usage": usage}).encode(), step=700)
    assert (found.usage.input, found.usage.output) == (7, 2)
    assert sum(map(len, found._pieces)) + len(found._rest) == 0


def test_memory_is_bounded_for_a_stream_that_never_ends(monkeypatch):
    monkeypatch.setattr(reading, "WORDS", 1000)
    found = Reader(EVENTS)
    event = sse({"choices": [{"delta": {"content": "x" * 100}}]})
    for _ in range(5000):
        found.write(event)
    found.close(complete=False, trailers=None)
    found.settle()
    assert sum(map(len, found.words)) <= 1000
    assert sum(map(len, found.words)) + found.more == 500_000
