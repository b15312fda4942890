"""What a format can say of a request comes back as it was: A → neutral → A is the identity."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import (
    Media,
    Message,
    OutputFormat,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tidegate_ai_formats.registry import NAMES, get_format

WORDS = st.text(min_size=1, max_size=12)
JSON = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=5,
    ),
    max_size=3,
)
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
PIXEL = Media("image", "image/png", "aGk=")


@st.composite
def turns(draw, tools):
    """A talk: what a user says, perhaps a call and its result, what the assistant says."""
    messages = []
    if draw(st.booleans()):
        messages.append(Message("system", [Text(draw(WORDS))]))
    for number in range(draw(st.integers(1, 3))):
        asked = [Text(draw(WORDS))]
        if draw(st.booleans()):
            asked.append(copy.copy(PIXEL))
        messages.append(Message("user", asked))
        if tools and draw(st.booleans()):
            ids = [f"call_{number}_{n}" for n in range(draw(st.integers(1, 2)))]
            said = [Text(draw(WORDS))] if draw(st.booleans()) else []
            calls = [ToolCall(id, tools[0].name, json.dumps(draw(JSON))) for id in ids]
            messages.append(Message("assistant", [*said, *calls]))
            results = [ToolResult(id, [Text(draw(WORDS))], tools[0].name) for id in ids]
            messages.append(Message("tool", results))
        messages.append(Message("assistant", [Text(draw(WORDS))]))
    messages.append(Message("user", [Text(draw(WORDS))]))
    return messages


@st.composite
def requests(draw):
    """Requests of all that most formats can say."""
    tools = [Tool("look", draw(WORDS), copy.deepcopy(SCHEMA))] if draw(st.booleans()) else []
    request = Request("other", "a-model", draw(turns(tools)), tools=tools)
    request.stream = draw(st.booleans())
    request.max_tokens = draw(st.none() | st.integers(4096, 9000))
    request.temperature = draw(st.none() | st.sampled_from([0.0, 0.5, 1.0]))
    request.top_p = draw(st.none() | st.sampled_from([0.1, 0.9]))
    request.stop = draw(st.none() | st.lists(WORDS, min_size=1, max_size=3, unique=True))
    if tools:
        mode = draw(st.sampled_from(["", "auto", "required", "named"]))
        request.tool_choice = ToolChoice(mode, "look" * (mode == "named")) if mode else None
    elif draw(st.booleans()):
        request.output = OutputFormat("schema", copy.deepcopy(SCHEMA), "answer")
    if draw(st.booleans()):
        request.thinking = Thinking(True, draw(st.sampled_from(["low", "medium", "high"])))
    return request


@pytest.mark.parametrize("name", NAMES)
@given(request=requests())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_request_comes_back_as_it_was(name, request):
    format = get_format(name)
    once = json.loads(json.dumps(format.write_request(request, Losses(name))))
    parsed = format.parse_request(copy.deepcopy(once), format.path(request))
    again = format.write_request(parsed, losses := Losses(name))
    assert json.loads(json.dumps(again)) == once
    assert losses.warnings == []
    assert parsed.stream == request.stream
    assert format.path(parsed) == format.path(request)


def said(request):
    """Texts, calls and results of a talk, in order."""
    parts = [part for message in request.messages for part in message.parts]
    results = [part.parts for part in parts if isinstance(part, ToolResult)]
    return (
        "".join(part.text for part in parts if isinstance(part, Text)),
        [(p.name, json.loads(p.arguments or "{}")) for p in parts if isinstance(p, ToolCall)],
        ["".join(one.text for one in result if isinstance(one, Text)) for result in results],
        [part.data for part in parts if isinstance(part, Media)],
    )


@pytest.mark.parametrize("name", NAMES)
@given(request=requests())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_talk_is_the_same_in_every_format(name, request):
    format = get_format(name)
    written = json.loads(json.dumps(format.write_request(request, Losses(name))))
    parsed = format.parse_request(written, format.path(request))
    assert said(parsed) == said(request)
    assert parsed.tools == [] or parsed.tools[0].schema == SCHEMA
    assert request.max_tokens in (None, parsed.max_tokens)
