"""Answers that no provider should send: callers get a well-formed one, or a well-formed error."""

from __future__ import annotations

import json
import random

import pytest
from mitmproxy import http
from tidegate_ai_formats.events import (
    Cited,
    Delta,
    End,
    Extra,
    Finished,
    PartStart,
    PartStop,
    Start,
    collect,
)
from tidegate_ai_formats.framing import decoder
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Citation, Finish, Text, ToolCall
from tidegate_ai_formats.order import Order
from tidegate_ai_formats.registry import NAMES, get_format
from tidegate_ai_formats.streaming import StreamTranslator
from tidegate_ai_formats.translation import Translation

from tidegate.api import SseEvent
from tidegate.testing import make_exchange
from tidegate.testing.streams import check

ODD = ["x", 1, [], {}, True, 1.5, None, [None], {"a": None}]


def objects(value):
    """Each object in a JSON value that is not empty."""
    if isinstance(value, dict):
        if value:
            yield value
        for one in value.values():
            yield from objects(one)
    elif isinstance(value, list):
        for one in value:
            yield from objects(one)


def damage(chance, value):
    """Change, empty or take out one field of a JSON value."""
    found = list(objects(value))
    if found:
        place = chance.choice(found)
        key = chance.choice(list(place))
        if chance.random() < 0.4:
            del place[key]
        else:
            place[key] = chance.choice(ODD)


def broken(chance, events):
    """Events of a stream, of which some are missing, twice, out of order, or not as they were."""
    out = [SseEvent(event.data, event.event) for event in events]
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(len(out))
        what = chance.random()
        if what < 0.2 and len(out) > 1:
            del out[place]
        elif what < 0.35:
            out.insert(chance.randrange(len(out)), SseEvent(out[place].data, out[place].event))
        elif out[place].data.startswith("{"):
            value = json.loads(out[place].data)
            damage(chance, value)
            out[place] = SseEvent(json.dumps(value), out[place].event)
    return out


@pytest.mark.parametrize("target", NAMES)
def test_a_broken_stream_is_a_well_formed_one_to_the_caller(recordings, target):
    chance = random.Random(f"broken {target}")
    other = get_format(target)
    for one in recordings:
        source = get_format(one.format)
        if one.kind != "stream" or source.family == other.family:
            continue
        wire = decoder(one.framing)
        whole = wire.feed(one.body) + wire.end()
        for _ in range(3):
            translator = StreamTranslator(
                other, source, Losses(target), defaults=("tg-1", "a-model", 1)
            )
            given = broken(chance, whole)
            out = [item for event in given for item in translator.event(event)]
            check(target, out + translator.finish())


@pytest.mark.parametrize("target", NAMES)
def test_a_broken_answer_is_an_answer_or_an_error_to_the_caller(recordings, target):
    chance = random.Random(f"whole {target}")
    other = get_format(target)
    for one in recordings:
        source = get_format(one.format)
        if one.kind != "json" or source is other:
            continue
        body = json.loads(one.body)
        for _ in range(2):
            damage(chance, body)
        codec = Translation(other, source)
        exchange = make_exchange("POST", "http://api.test/v1", body=ASKED[target])
        assert isinstance(codec.encode(exchange, exchange.request), http.Request)
        response = http.Response.make(200, json.dumps(body), {"content-type": "application/json"})
        sent = codec.decode(exchange, response)
        value = json.loads(sent.content)
        if sent.status_code == 200:
            other.parse_response(value)
        else:
            assert other.parse_error(sent.status_code, value).message, one.number


CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ASKED = {
    "anthropic-messages": {**CHAT, "max_tokens": 9},
    "bedrock-converse": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
    "cohere-chat": CHAT,
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "ollama-chat": {**CHAT, "stream": False},
    "openai-chat": CHAT,
    "openai-responses": {"model": "m", "input": "Hi"},
}
HEAD = Start("x", "i", "m")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([HEAD, HEAD, PartStart(0, Text("Hi")), PartStop(0), Finished(Finish("stop"))], "Hi"),
        ([PartStart(0, Text("Hi")), Finished(Finish("stop"))], "Hi"),
        ([HEAD, Delta(0, "Hi"), PartStop(0), PartStop(0)], "Hi"),
        ([HEAD, PartStart(0, Text("H")), PartStart(0, Text("")), Delta(0, "i")], "Hi"),
        ([HEAD, Delta(0, "Hi"), Finished(Finish("stop")), Delta(1, "!")], "Hi"),
        ([HEAD, Delta(0, "Hi"), Delta(0, "{}", "arguments"), Delta(0, None)], "Hi"),
        ([HEAD, Cited(3, Citation("u")), Delta(0, "Hi"), Extra({"a": 1})], "Hi"),
        ([HEAD, PartStart(0, ToolCall("t", "f")), Delta(0, "x"), Delta(1, "Hi")], "Hi"),
    ],
)
def test_events_are_put_in_order_once_for_all_formats(kit, given, text):
    order = Order("x", Losses("y"))
    events = [out for event in [*given, End()] for out in order.put([event])]
    assert isinstance(events[0], Start)
    assert sum(isinstance(event, Start) for event in events) == 1
    assert [type(event) for event in events[-2:]] == [Finished, End]
    answer = collect(events)
    assert kit.gist(answer)["text"] == text
    starts = [event.index for event in events if isinstance(event, PartStart)]
    assert starts == [event.index for event in events if isinstance(event, PartStop)]


def test_what_comes_after_the_end_is_reported():
    order = Order("x", losses := Losses("y"))
    order.put([HEAD, Delta(0, "Hi"), Finished(Finish("stop")), Delta(1, "!")])
    assert [warning.field for warning in losses.warnings] == ["choices[0]"]


BODIES = [
    b"", b"null", b"[]", b'"x"', b"<html>", b"\xff", b'{"error": null}', b'{"error": "No."}',
    b'data: {"error": {"message": "No."}}\n\n', b'{"error": {"message": {"a": 1}}}',
    b'{"detail": [{"msg": "No."}]}', b'{"error": {"message": "No.", "code": {"a": 1}, "type": 7}}',
    b'[{"error": {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT"}}]',
]  # fmt: skip


@pytest.mark.parametrize("target", NAMES)
def test_an_error_of_any_shape_is_one_of_the_callers_format(target):
    other = get_format(target)
    for source in NAMES:
        codec = Translation(other, get_format(source))
        for status, body in [(status, body) for status in (400, 429, 529) for body in BODIES]:
            exchange = make_exchange("POST", "http://api.test/v1", body=ASKED[target])
            codec.encode(exchange, exchange.request)
            response = codec.decode(exchange, http.Response.make(status, body))
            assert response.status_code >= 400
            if source != target:
                failure = other.parse_error(response.status_code, json.loads(response.content))
                assert failure.message, (source, body)
