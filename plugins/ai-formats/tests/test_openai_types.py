"""What is written for OpenAI's SDK is of its types, every field that they require included."""

from __future__ import annotations

import json

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.registry import NAMES, get_format

OTHERS = [name for name in NAMES if name not in ("openai-chat", "openai-responses")]


def answered(recordings, kit, source, kind):
    for one in recordings:
        if one.format == source and one.kind == kind:
            yield one


@pytest.mark.parametrize("source", OTHERS)
def test_whole_answers_are_of_the_sdks_types(recordings, kit, source):
    format = get_format(source)
    chat, responses = get_format("openai-chat"), get_format("openai-responses")
    for one in answered(recordings, kit, source, "json"):
        answer = format.parse_response(json.loads(one.body))
        answer.id, answer.model = answer.id or "tg-1", answer.model or "m"
        ChatCompletion.model_validate(chat.write_response(answer, Losses()))
        Response.model_validate(responses.write_response(answer, Losses()))


@pytest.mark.parametrize("source", OTHERS)
def test_streams_are_of_the_sdks_types(recordings, kit, source):
    format = get_format(source)
    chat, responses = get_format("openai-chat"), get_format("openai-responses")
    event = TypeAdapter(ResponseStreamEvent)
    for one in answered(recordings, kit, source, "stream"):
        items = kit.write(chat, kit.events(format, one.body, one.framing))
        for item in items[:-1]:
            ChatCompletionChunk.model_validate_json(item.data)
        for item in kit.write(responses, kit.events(format, one.body, one.framing)):
            event.validate_json(item.data)
