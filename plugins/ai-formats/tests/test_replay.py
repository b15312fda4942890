"""Answers read and written again: whole as a stream, a stream as whole."""

from __future__ import annotations

import copy
import json

import pytest
from tidegate_ai_formats.model import Request
from tidegate_ai_formats.registry import NAMES, get_format
from tidegate_ai_formats.replay import spread

from tidegate.testing.streams import check

PATHS = {"gemini": "/v1beta/models/m:streamGenerateContent"}


def asked(format, *, stream: bool) -> Request:
    return Request(format.family, "a-model", [], stream=stream, stream_usage=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_answer_replayed_as_a_stream_says_the_same(recordings, kit, name):
    format = get_format(name)
    for one in recordings:
        if one.format != name or one.kind != "json":
            continue
        answer = format.read_answer(one.body, stream=False)
        gist, sources = kit.gist(answer), kit.sources(answer)
        check(name, kit.write(format, list(spread(copy.deepcopy(answer)))))
        kind, body = format.write_answer(
            answer,
            asked(format, stream=True),
            stream=True,
            target=PATHS.get(name, "/") + "?alt=sse",
        )
        assert kind != "application/json"
        again = format.read_answer(body, stream=True)
        assert kit.gist(again) == gist, one.number
        assert kit.sources(again) == sources, one.number
        assert again.finishes == format.read_answer(one.body, stream=False).finishes


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_replayed_whole_says_the_same(recordings, kit, name):
    format = get_format(name)
    for one in recordings:
        if one.format != name or one.kind != "stream":
            continue
        answer = format.read_answer(one.body, stream=True)
        gist = kit.gist(answer)
        kind, body = format.write_answer(answer, asked(format, stream=False), stream=False)
        assert kind == "application/json"
        assert kit.gist(format.read_answer(body, stream=False)) == gist, one.number


def unread(format, body: bytes, *, stream: bool) -> bool:
    """Whether no answer that has ended is found in a body."""
    try:
        return not all(format.read_answer(body, stream=stream).finishes or [""])
    except ValueError:
        return True


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_was_cut_is_no_answer(recordings, name):
    format = get_format(name)
    streams = [one for one in recordings if one.format == name and one.kind == "stream"]
    if not streams:
        pytest.skip(f"no recorded streams of {name}")
    for one in streams[:10]:
        for share in (0.2, 0.5, 0.8):
            assert unread(format, one.body[: int(len(one.body) * share)], stream=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'{"error": {"message": "no"}}'])
def test_what_is_no_answer_is_said_to_be_none(name, body):
    assert unread(get_format(name), body, stream=False)
    assert unread(get_format(name), body, stream=True)


def test_a_refusal_is_told_from_an_answer():
    body = (
        b'{"id": "1", "model": "m", "choices": [{"index": 0, "finish_reason": "stop",'
        b' "message": {"role": "assistant", "content": null, "refusal": "I can not."}}]}'
    )
    answer = get_format("openai-chat").read_answer(body, stream=False)
    assert answer.finishes == ("refusal",)


@pytest.mark.parametrize("stream", [False, True])
def test_what_declines_in_words_ends_as_a_refusal_for_anthropics_callers(stream):
    message = {"role": "assistant", "content": None, "refusal": "No."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    said = json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()
    answer = get_format("openai-chat").read_answer(said, stream=False)
    messages = get_format("anthropic-messages")
    request = messages.parse_request({"model": "m", "messages": [], "stream": stream})
    _, body = messages.write_answer(answer, request, stream=stream)
    heard = messages.read_answer(body, stream=stream)
    assert heard.candidates[0].parts[0].text == "No."
    assert heard.finishes == ("refusal",)
