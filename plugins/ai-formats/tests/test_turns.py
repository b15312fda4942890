"""A second turn: what a provider signed comes back to it, through every caller's format."""

from __future__ import annotations

import json

import pytest
from tidegate_ai_formats.events import collect
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Reasoning, Text, ToolCall
from tidegate_ai_formats.registry import get_format

THINKING = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [
        {"type": "thinking", "thinking": "Let me see.", "signature": "EqQBCgIYAhIM"},
        {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3p"},
        {"type": "text", "text": "I look it up."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"q": "é"}},
        {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 9},
}
GEMINI = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {
                        "functionCall": {"id": "f1", "name": "look", "args": {"q": "é"}},
                        "thoughtSignature": "CiwBjz1rX1V3xLK9",
                    },
                    {"functionCall": {"id": "f2", "name": "look", "args": {}}},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 9, "totalTokenCount": 14},
    "modelVersion": "gemini",
    "responseId": "r1",
}
RESPONSES = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt",
    "status": "completed",
    "output": [
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Looking."}],
            "encrypted_content": "gAAAAABqhb8a4mdR5",
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": "look",
            "arguments": '{"q": "é"}',
        },
    ],
    "usage": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14},
}
ANSWERS = {"anthropic-messages": THINKING, "gemini": GEMINI, "openai-responses": RESPONSES}
CALLERS = ["openai-chat", "anthropic-messages", "openai-responses", "gemini", "bedrock-converse"]


def second_turn(caller: str, answer: dict) -> dict:
    """The caller's request of the next turn: it sends back what it was given."""
    if caller == "openai-chat":
        message = answer["choices"][0]["message"]
        return {"model": "m", "messages": [{"role": "user", "content": "Hi"}, message]}
    if caller == "anthropic-messages":
        given = [{"role": "user", "content": "Hi"}]
        given.append({"role": "assistant", "content": answer["content"]})
        return {"model": "m", "max_tokens": 9, "messages": given}
    if caller == "openai-responses":
        return {"model": "m", "input": [{"role": "user", "content": "Hi"}, *answer["output"]]}
    if caller == "bedrock-converse":
        hi = {"role": "user", "content": [{"text": "Hi"}]}
        return {"messages": [hi, answer["output"]["message"]]}
    hi = {"role": "user", "parts": [{"text": "Hi"}]}
    return {"contents": [hi, answer["candidates"][0]["content"]]}


def proofs(parts):
    """What the provider wants back: signed thought and calls, in order."""
    out = []
    for part in parts:
        if isinstance(part, Reasoning) and (part.signature or part.encrypted):
            out.append(("thought", part.signature, part.encrypted, part.text))
        elif isinstance(part, ToolCall):
            out.append((part.name, json.loads(part.arguments or "{}"), part.signature))
    return out


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("provider", list(ANSWERS))
def test_signed_thought_comes_back_to_its_provider(provider, caller, streamed, kit):
    source, target = get_format(provider), get_format(caller)
    first = source.parse_response(json.loads(json.dumps(ANSWERS[provider])))
    want = proofs(first.candidates[0].parts)
    assert want
    if streamed:
        items = kit.write(source, kit.events(source, stream_of(source, kit)))
        events = kit.events(source, kit.bytes(source, items))
        answer = target.write_response(
            collect(kit.events(target, kit.bytes(target, kit.write(target, events)))), Losses()
        )
    else:
        answer = target.write_response(first, Losses(caller))
    body = json.loads(json.dumps(second_turn(caller, answer)))
    request = target.parse_request(body)
    losses = Losses(provider)
    sent = source.write_request(request, losses)
    again = source.parse_request(json.loads(json.dumps(sent)))
    turn = [m for m in again.messages if m.role == "assistant"]
    got = proofs([part for message in turn for part in message.parts])
    assert got == want
    assert losses.warnings == [] or provider == "gemini"


def stream_of(format, kit):
    """The bytes of the answer above as a stream of its own format."""
    from tidegate_ai_formats.events import (
        Delta,
        End,
        Finished,
        PartStart,
        PartStop,
        Start,
        UsageUpdate,
    )

    answer = format.parse_response(json.loads(json.dumps(ANSWERS[format.name])))
    events = [Start(answer.family, answer.id, answer.model, answer.created)]
    for index, part in enumerate(answer.candidates[0].parts):
        begun = type(part)(**{slot: getattr(part, slot) for slot in part.__slots__})
        pieces = []
        if isinstance(part, ToolCall):
            begun.arguments = ""
            pieces.append(Delta(index, part.arguments, "arguments"))
        elif isinstance(part, Text | Reasoning) and part.text:
            begun.text = ""
            pieces.append(Delta(index, part.text))
            if part.signature:
                begun.signature = ""
                pieces.append(Delta(index, part.signature, "signature", origin=part.origin))
        events += [PartStart(index, begun), *pieces, PartStop(index)]
    events += [Finished(answer.candidates[0].finish), UsageUpdate(answer.usage), End()]
    return kit.bytes(format, kit.write(format, events))
