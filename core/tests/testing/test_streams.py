"""The grammars of model APIs' streams: what is a stream passes, each fault is found."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

import pytest

from tidegate.api import SseEvent
from tidegate.testing.streams import GrammarError, check, check_bytes, events_of


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice], **more}


USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
START = {
    "type": "message_start",
    "message": {"role": "assistant", "content": [], "usage": {"input_tokens": 1}},
}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
STOP = {"type": "content_block_stop", "index": 0}
DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 1},
}
END = {"type": "message_stop"}
PLAN: list[Any] = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("messageStop", {"stopReason": "end_turn"}),
    ("metadata", {"usage": {"totalTokens": 2}}),
]


def candidate(text: str, finish: str | None = None) -> dict[str, Any]:
    one: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish:
        one["finishReason"] = finish
    return {"candidates": [one]}


STREAMS: dict[str, list[Any]] = {
    "openai-chat": [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hi"}),
        chunk({}, "stop"),
        {**chunk(), "choices": [], "usage": USAGE},
        "[DONE]",
    ],
    "anthropic-messages": [START, {"type": "ping"}, BLOCK, TEXT, STOP, DELTA, END],
    "gemini": [candidate("Hi"), candidate("!", "STOP")],
    "ollama-chat": [
        {"message": {"role": "assistant", "content": "Hi"}, "done": False},
        {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"},
    ],
    "bedrock-converse": PLAN,
    "cohere-chat": [
        {"type": "message-start", "id": "i", "delta": {}},
        {"type": "content-start", "index": 0, "delta": {}},
        {"type": "content-delta", "index": 0, "delta": {}},
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
    ],
    "openai-responses": [
        {"type": "response.created", "response": {}, "sequence_number": 0},
        {"type": "response.output_item.added", "output_index": 0, "sequence_number": 1,
         "item": {"type": "function_call", "id": "f"}},
        {"type": "response.function_call_arguments.delta", "item_id": "f", "delta": "{}",
         "sequence_number": 2},
        {"type": "response.function_call_arguments.done", "item_id": "f", "arguments": "{}",
         "sequence_number": 3},
        {"type": "response.output_item.done", "item": {"id": "f"}, "sequence_number": 4},
        {"type": "response.completed", "sequence_number": 5,
         "response": {"status": "completed", "output": [{}]}},
    ],
}  # fmt: skip


def events(name: str, items: list[Any]) -> list[SseEvent]:
    """The events of a stream that is written as values."""
    out = []
    for item in items:
        if name == "bedrock-converse":
            out.append(SseEvent(json.dumps(item[1]), item[0]))
        elif isinstance(item, str):
            out.append(SseEvent(item))
        else:
            named = name not in ("openai-chat", "gemini", "ollama-chat")
            out.append(SseEvent(json.dumps(item), item["type"] if named else ""))
    return out


@pytest.mark.parametrize("name", STREAMS)
def test_what_is_a_stream_passes(name: str) -> None:
    check(name, events(name, STREAMS[name]))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_without_its_end_is_found(name: str) -> None:
    with pytest.raises(GrammarError):
        check(name, events(name, STREAMS[name])[:-1])


@pytest.mark.parametrize("name", STREAMS)
def test_what_follows_the_end_is_found(name: str) -> None:
    whole = events(name, STREAMS[name])
    with pytest.raises(GrammarError) as wrong:
        check(name, [*whole, whole[-1]])
    assert wrong.value.position >= len(whole) - 1


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("data", ["{", "[]", "7", '{"type": 7}', "{}"])
def test_what_is_no_event_of_the_format_is_found_wherever_it_stands(name: str, data: str) -> None:
    whole = events(name, STREAMS[name])
    for place in range(len(whole)):
        with pytest.raises(GrammarError):
            check(name, [*whole[:place], SseEvent(data, "odd"), *whole[place:]])


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("openai-chat", [chunk({"content": "Hi"}), chunk({}, "stop"), "[DONE]"]),
        ("openai-chat", [chunk({"role": "assistant"}), chunk({}, "stop", id="d"), "[DONE]"]),
        ("openai-chat", [chunk({"role": "assistant"}, "stop", usage=USAGE), "[DONE]"]),
        ("anthropic-messages", [START, TEXT, DELTA, END]),
        ("anthropic-messages", [START, BLOCK, BLOCK, STOP, DELTA, END]),
        ("anthropic-messages", [START, BLOCK, TEXT, DELTA, END]),
        ("gemini", [candidate("Hi", "STOP"), candidate("!")]),
        ("bedrock-converse", [PLAN[0], PLAN[1], PLAN[3], PLAN[4]]),
    ],
)
def test_an_event_out_of_place_is_found(name: str, items: list[Any]) -> None:
    with pytest.raises(GrammarError):
        check(name, events(name, items))


def test_the_liberties_of_compatible_servers_pass_where_that_is_said() -> None:
    items = [
        chunk({"role": "assistant", "content": "Hi"}, usage=USAGE),
        chunk({"content": "!"}, "stop", usage=USAGE, created=2),
        "[DONE]",
    ]
    with pytest.raises(GrammarError):
        check("openai-chat", events("openai-chat", items))
    check("openai-chat", events("openai-chat", items), strict=False)


def aws(name: str, payload: bytes) -> bytes:
    label = b":event-type"
    headers = bytes((len(label),)) + label + b"\x07" + len(name).to_bytes(2) + name.encode()
    sizes = (16 + len(headers) + len(payload)).to_bytes(4) + len(headers).to_bytes(4)
    body = sizes + crc32(sizes).to_bytes(4) + headers + payload
    return body + crc32(body).to_bytes(4)


def test_a_body_is_cut_into_events_however_it_is_framed() -> None:
    plain = [json.dumps(item) for item in STREAMS["gemini"]]
    check_bytes("gemini", "".join(f"data: {item}\r\n\r\n" for item in plain).encode())
    check_bytes("gemini", f"[{','.join(plain)}]".encode())
    lines = "".join(json.dumps(item) + "\n" for item in STREAMS["ollama-chat"])
    check_bytes("ollama-chat", lines.encode())
    body = b"".join(aws(name, json.dumps(data).encode()) for name, data in PLAN)
    check_bytes("bedrock-converse", body)
    assert [event.event for event in events_of(body)] == [name for name, _ in PLAN]
    for broken in (body[:-1], body[:40] + b"x" + body[41:]):
        with pytest.raises(GrammarError):
            check_bytes("bedrock-converse", broken)


def test_an_unknown_format_is_no_stream_that_failed() -> None:
    with pytest.raises(LookupError, match="smoke"):
        check("smoke-signals", [])
