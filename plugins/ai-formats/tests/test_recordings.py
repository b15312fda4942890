"""Every recorded call of a real provider, through every translator."""

from __future__ import annotations

import copy
import json
import re

import pytest
from tidegate_ai_formats.events import End, Failed, collect
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.registry import NAMES, get_format

from tidegate.testing.streams import check, check_bytes

TEXTS = ("content", "system", "input")
SNAKE = re.compile(r"_([a-z])")
LITERAL = ("args", "response", "responseSchema", "parameters", "properties", "json", "schema")


def canonical(value, *, gemini=False):
    """A request with what may be said in two ways said in one."""
    if isinstance(value, list):
        return [canonical(one, gemini=gemini) for one in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, one in value.items():
        if gemini:
            key = SNAKE.sub(lambda m: m[1].upper(), key)
        if key in LITERAL:
            out[key] = one
            continue
        one = canonical(one, gemini=gemini)
        if key in TEXTS and isinstance(one, list) and len(one) == 1 and isinstance(one[0], dict):
            text = one[0]
            if text.keys() == {"type", "text"} and text["type"] in ("text", "output_text"):
                one = text["text"]
        if key == "mode" and isinstance(one, str):
            one = one.upper()
        out[key] = one
    return out


# Reviewed: what a request may say besides, without a difference in meaning.
SILENT = (
    (".stream", False, None),  # not streaming is the default
    (".stream_options", None, {"include_usage": True}),  # asked for by us, for the accounts
    (".generationConfig", {}, None),  # an empty object says nothing
    (".inferenceConfig", {}, None),
    (".thinking", {"type": "disabled"}, None),  # this dialect says it as reasoning_effort
    (".thinking", {"type": "enabled"}, None),
    (".reasoning_effort", None, "none"),
    (".input[].type", None, "message"),  # the type of an item with a role
)


@pytest.mark.parametrize("name", NAMES)
def test_a_request_comes_back_as_it_was(recordings, diff, name):
    format = get_format(name)
    seen = []
    for one in recordings:
        if one.format != name or not one.request or one.kind == "error":
            continue
        losses = Losses(name, "strict")
        request = format.parse_request(copy.deepcopy(one.request), one.path)
        written = format.write_request(request, losses)
        gemini = name == "gemini"
        given, got = canonical(one.request, gemini=gemini), canonical(written, gemini=gemini)
        for path, was, is_ in diff(given, got):
            if (path, was, is_) not in SILENT:
                seen.append((one.number, path, was, is_))
        assert losses.warnings == []
    assert seen == []


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_answer_comes_back_field_by_field(recordings, diff, name):
    format = get_format(name)
    for one in recordings:
        if one.format != name or one.kind != "json":
            continue
        losses = Losses(name)
        written = format.write_response(format.parse_response(json.loads(one.body)), losses)
        assert list(diff(json.loads(one.body), written)) == [], one.number
        assert losses.warnings == []


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_comes_back_as_the_same_answer(recordings, kit, name):
    format = get_format(name)
    for one in recordings:
        if one.format != name or one.kind != "stream":
            continue
        direct = kit.events(format, one.body, one.framing)
        assert isinstance(direct[-1], End), one.number
        items = kit.write(format, kit.events(format, one.body, one.framing))
        check(name, items)
        again = kit.collect(format, kit.bytes(format, items))
        assert again == collect(direct), one.number


SAYS = {
    "anthropic-messages": ("cache_read", "cache_write", "reasoning"),
    "bedrock-converse": ("cache_read", "cache_write"),
    "cohere-chat": ("cache_read", "reasoning"),
    "gemini": ("cache_read", "reasoning"),
    "ollama-chat": (),
    "openai-chat": ("cache_read", "cache_write", "reasoning"),
    "openai-responses": ("cache_read", "cache_write", "reasoning"),
}
CITES = ("anthropic-messages", "bedrock-converse", "openai-chat", "openai-responses")


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", NAMES)
def test_answers_agree_across_formats_and_back(recordings, kit, source, target):
    one_format, other = get_format(source), get_format(target)
    for one in recordings:
        if one.format != source or one.kind != "json":
            continue
        parsed = one_format.parse_response(json.loads(one.body))
        gist = kit.gist(parsed)
        there = other.write_response(parsed, Losses(target))
        abroad = other.parse_response(json.loads(json.dumps(there)))
        assert kit.gist(abroad) == gist, one.number
        kept = kit.details(abroad)
        for place, name in enumerate(("cache_read", "cache_write", "reasoning")):
            if kit.details(parsed)[place:] and name in SAYS[target]:
                assert kept[place] == kit.details(parsed)[place], (one.number, name)
        if target in CITES:
            assert kit.sources(abroad) == kit.sources(parsed), one.number
        back = one_format.write_response(abroad, Losses(source))
        home = one_format.parse_response(json.loads(json.dumps(back)))
        assert kit.gist(home) == gist, one.number


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", NAMES)
def test_streams_agree_across_formats_and_back(recordings, kit, source, target):
    one_format, other = get_format(source), get_format(target)
    for one in recordings:
        if one.format != source or one.kind != "stream":
            continue
        gist = kit.gist(kit.collect(one_format, one.body, one.framing))
        items = kit.write(other, kit.events(one_format, one.body, one.framing))
        check(target, items)
        events = kit.events(other, kit.bytes(other, items))
        items = kit.write(one_format, events)
        check(source, items)
        home = kit.collect(one_format, kit.bytes(one_format, items))
        assert (
            kit.gist(
                kit.collect(
                    other,
                    kit.bytes(
                        other, kit.write(other, kit.events(one_format, one.body, one.framing))
                    ),
                )
            )
            == gist
        ), one.number
        assert kit.gist(home) == gist, one.number


def cuts(body: bytes, most: int = 400) -> list[int]:
    """Places to cut at: all of a short body; of a long one around every character and line."""
    if len(body) <= most:
        return list(range(1, len(body)))
    wanted = {m.start() + k for m in re.finditer(rb"[\x80-\xff]|\n\n|\\", body) for k in (0, 1)}
    step = max(1, len(body) // most)
    return sorted({*range(1, len(body), step), *list(wanted)[:most]} - {0, len(body)})


def test_no_cut_of_the_bytes_changes_the_events(recordings, kit):
    from tidegate_ai_formats.framing import decoder

    for one in recordings:
        if one.kind != "stream":
            continue
        whole = decoder(one.framing)
        expected = [item.data for item in [*whole.feed(one.body), *whole.end()]]
        for cut in cuts(one.body):
            wire = decoder(one.framing)
            items = wire.feed(one.body[:cut]) + wire.feed(one.body[cut:]) + wire.end()
            assert [item.data for item in items] == expected, (one.number, cut)
        wire = decoder(one.framing)
        single = [item for n in range(len(one.body)) for item in wire.feed(one.body[n : n + 1])]
        assert [item.data for item in single + wire.end()] == expected, one.number


@pytest.mark.parametrize("target", NAMES)
def test_errors_keep_their_kind_in_every_format(recordings, target):
    other = get_format(target)
    count = 0
    for one in recordings:
        if one.kind != "error":
            continue
        format = get_format(one.format)
        failure = format.parse_error(one.status, json.loads(one.body))
        assert not failure.message.startswith("status")
        status, body = other.write_error(failure)
        again = other.parse_error(status, body)
        assert again.message == failure.message
        assert again.kind == failure.kind, (one.number, body)
        count += 1
    assert count


def test_no_recorded_stream_fails(recordings, kit):
    for one in recordings:
        if one.kind == "stream":
            events = kit.events(get_format(one.format), one.body, one.framing)
            assert not any(isinstance(event, Failed) for event in events), one.number


def test_recorded_streams_have_the_grammar_of_their_format(recordings):
    for one in recordings:
        if one.kind == "stream":
            check_bytes(one.format, one.body, strict=False)
