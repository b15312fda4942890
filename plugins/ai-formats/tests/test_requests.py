"""Requests across formats: recorded ones, and what each format says in its own way."""

from __future__ import annotations

import copy
import json

import pytest
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Media, Reasoning, Refusal, Text, ToolCall, ToolResult
from tidegate_ai_formats.registry import NAMES, get_format


def said(request):
    """What every format can say of a talk."""
    texts, calls, results = [], [], []
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Text | Refusal) and part.text:
                if not part.text.startswith("Result of "):  # what a tool shows, moved
                    texts.append(part.text)
            elif isinstance(part, Media) and part.text:
                texts.append(part.text)  # a document of plain text is text where there is none
            elif isinstance(part, ToolCall):
                calls.append((part.name, json.loads(part.arguments or "{}")))
            elif isinstance(part, ToolResult):
                text = "".join(one.text for one in part.parts if isinstance(one, Text))
                try:
                    results.append(json.loads(text))
                except ValueError:
                    results.append(text)
    return {
        "texts": "".join(texts),
        "calls": calls,
        "results": results,
        "tools": [(t.name, t.description or "", t.schema) for t in request.tools if not t.builtin],
        "temperature": request.temperature,
        "schema": request.output.schema if request.output else None,
        "limit": request.max_tokens,
    }


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", NAMES)
def test_recorded_requests_say_the_same_in_every_format(recordings, source, target):
    one_format, other = get_format(source), get_format(target)
    for one in recordings:
        if one.format != source or not one.request:
            continue
        request = one_format.parse_request(copy.deepcopy(one.request), one.path)
        before = copy.deepcopy(request)
        losses = Losses(target)
        written = other.write_request(request, losses)
        assert request == before, "a writer changes nothing"
        again = other.parse_request(json.loads(json.dumps(written)), other.path(request))
        assert again.model == request.model, one.number
        assert again.stream == request.stream, one.number
        want, got = said(request), said(again)
        for key, value in want.items():
            if got[key] == value:
                continue
            if key == "limit":  # one that has to be said where it is not
                assert value is None, one.number
            elif key == "tools":  # a tool without a schema takes nothing
                assert [t[2] for t in value if t[2] is None], one.number
            else:
                word = {"schema": "response_format"}.get(key, key)
                assert [w for w in losses.warnings if word in w.field], (one.number, key)


def test_thought_goes_back_only_to_whom_it_belongs():
    body = {
        "model": "m",
        "max_tokens": 10,
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "text", "text": "Hello"},
                ],
            },
        ],
    }
    anthropic = get_format("anthropic-messages")
    for name in NAMES:
        losses = Losses(name)
        written = get_format(name).write_request(
            anthropic.parse_request(copy.deepcopy(body)), losses
        )
        assert ("c2ln" in json.dumps(written)) == (name == "anthropic-messages")
        assert "Hello" in json.dumps(written)
        if name not in ("anthropic-messages", "cohere-chat", "ollama-chat"):
            assert [w.field for w in losses.warnings if "content[0]" in w.field], name
    assert isinstance(anthropic.parse_request(body).messages[1].parts[0], Reasoning)


def test_what_a_tool_shows_follows_its_results_where_they_are_text_only():
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
    }
    shown = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "text", "text": "Here."}, image],
    }
    other = {"type": "tool_result", "tool_use_id": "t2", "content": "Two."}
    calls = [{"type": "tool_use", "id": id, "name": "look", "input": {}} for id in ("t1", "t2")]
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "Look"},
            {"role": "assistant", "content": calls},
            {"role": "user", "content": [shown, other, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": calls[:1]},
            {"role": "user", "content": [shown]},
        ],
    }  # fmt: skip
    request = get_format("anthropic-messages").parse_request(json.loads(json.dumps(body)))
    losses = Losses("openai-chat", "strict")
    messages = get_format("openai-chat").write_request(request, losses)["messages"]
    roles = ["user", "assistant", "tool", "tool", "user", "assistant", "tool", "user"]
    assert [message["role"] for message in messages] == roles
    assert [message["content"] for message in messages[2:4]] == [
        [{"type": "text", "text": "Here."}],
        "Two.",
    ]
    kinds = [[part["type"] for part in messages[n]["content"]] for n in (4, 7)]
    assert kinds == [["text", "image_url", "text"], ["text", "image_url"]]
    assert messages[4]["content"][1]["image_url"]["url"] == "data:image/png;base64,aGk="
    assert len(losses.warnings) == 2


def test_cache_breakpoints_go_to_those_who_know_them():
    mark = {"type": "ephemeral"}
    text = {"type": "text", "text": "Be brief.", "cache_control": mark}
    tool = {"name": "f", "input_schema": {"type": "object"}, "cache_control": mark}
    messages = [{"role": "user", "content": [text]}, {"role": "assistant", "content": [text]}]
    body = {"model": "m", "max_tokens": 9, "system": [text], "messages": messages, "tools": [tool]}
    for name, count in (("openai-chat", 0), ("openai-chat/groq", 0), ("openai-chat/openrouter", 4)):
        request = get_format("anthropic-messages").parse_request(json.loads(json.dumps(body)))
        losses = Losses(name, "strict")
        written = get_format(name).write_request(request, losses)
        assert json.dumps(written).count("cache_control") == count, name
        assert len(losses.warnings) == (0 if count else 4), name
