"""What real providers answer besides the ordinary: every format can take it from every other.

`fixtures/variety.jsonl` holds answers in recorded shapes that nobody had to wait for: null and
missing fields, tools of the provider's own, errors in the middle, images, calls of old, events of
types unknown. Each says what of it must come across.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from tidegate_ai_formats.events import Failed
from tidegate_ai_formats.framing import decoder, encoder
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.registry import NAMES, get_format
from tidegate_ai_formats.streaming import StreamTranslator

from tidegate.api import SseEvent
from tidegate.testing.streams import check

LINES = (Path(__file__).parent / "fixtures/variety.jsonl").read_text().splitlines()
CASES = [json.loads(line) for line in LINES]
WHOLE = [case for case in CASES if case["kind"] == "json"]
STREAMS = [case for case in CASES if case["kind"] == "stream"]
UNSAYABLE = {"cohere-chat": ("content_filter",), "ollama-chat": ("content_filter",)}
"""Reasons that a format has no word for."""


def compare(kit, case, target, answer):
    got = json.loads(json.dumps(kit.gist(answer)))
    for key, want in case["want"].items():
        if key == "id" or want in UNSAYABLE.get(target, ()):
            continue
        assert got[key] == want, (case["name"], key)


@pytest.mark.parametrize("target", NAMES)
def test_whole_answers_of_all_kinds_come_across(kit, target):
    other = get_format(target)
    for case in WHOLE:
        answer = get_format(case["format"]).parse_response(copy.deepcopy(case["answer"]))
        written = json.loads(json.dumps(other.write_response(answer, Losses(target))))
        compare(kit, case, target, other.parse_response(written))


def wire_of(case):
    if case["format"] != "bedrock-converse":
        return case["answer"].encode()
    aws = encoder("aws")
    return b"".join(aws.feed(SseEvent(json.dumps(data), name)) for name, data in case["answer"])


@pytest.mark.parametrize("target", NAMES)
def test_streams_of_all_kinds_come_across_and_are_well_formed(kit, target):
    other = get_format(target)
    for case in STREAMS:
        provider = get_format(case["format"])
        stream = StreamTranslator(other, provider, Losses(target), defaults=("tg-1", "a-model", 1))
        body = b"".join(stream.feed(bytes((byte,))) for byte in wire_of(case)) + stream.end()
        wire = decoder(stream.framing)
        items = wire.feed(body) + wire.end()
        check(target, items)
        parser = other.stream_parser()
        events = [event for item in items for event in parser.feed(item)] + parser.end()
        failures = [event.failure.message for event in events if isinstance(event, Failed)]
        if "failed" in case["want"]:
            assert failures == [case["want"]["failed"]], case["name"]
            continue
        assert failures == [], case["name"]
        compare(kit, case, target, kit.collect(other, body))


def test_the_id_is_that_of_the_first_chunk_that_has_one(kit):
    case = next(case for case in STREAMS if "id" in case["want"])
    assert kit.collect(get_format(case["format"]), wire_of(case)).id == case["want"]["id"]


@pytest.mark.parametrize("name", NAMES)
def test_whole_answers_of_all_kinds_come_back_as_they_were(diff, name):
    format = get_format(name)
    for case in WHOLE:
        if case["format"] != name:
            continue
        parsed = format.parse_response(copy.deepcopy(case["answer"]))
        written = format.write_response(parsed, losses := Losses(name))
        assert losses.warnings == []
        for path, was, is_ in diff(case["answer"], written):
            assert was is None, (case["name"], path, is_)
