"""Streams of any shape, through every writer and parser, cut anywhere."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidegate_ai_formats.events import (
    Delta,
    End,
    Finished,
    PartStart,
    PartStop,
    Start,
    UsageUpdate,
    collect,
)
from tidegate_ai_formats.framing import decoder, encoder
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Finish, Reasoning, Text, ToolCall, Usage
from tidegate_ai_formats.registry import NAMES, get_format

from tidegate.api import SseEvent
from tidegate.testing.streams import GrammarError, check

PIECES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4)
ARGUMENTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=5,
    ),
    max_size=3,
)


@st.composite
def streams(draw):
    """Neutral events: thought, text and calls in any order, calls perhaps interleaved."""
    events = []
    calls = []
    count = draw(st.integers(1, 5))
    for index in range(count):
        kind = draw(st.sampled_from(["text", "thought", "call"]))
        if kind == "call":
            text = json.dumps(draw(ARGUMENTS), ensure_ascii=draw(st.booleans()))
            cut = draw(st.integers(0, len(text)))
            pieces = [piece for piece in (text[:cut], text[cut:]) if piece]
            one = [PartStart(index, ToolCall(f"call_{index}", f"tool_{index}"))]
            one += [Delta(index, piece, "arguments") for piece in pieces]
            one.append(PartStop(index))
            calls.append(one)
            continue
        part = Text("") if kind == "text" else Reasoning()
        events += [PartStart(index, part), *[Delta(index, p) for p in draw(PIECES)]]
        events.append(PartStop(index))
    events += interleaved(draw, calls)
    reason = "tool_calls" if calls else draw(st.sampled_from(["stop", "length"]))
    usage = Usage(draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6)))
    ending = [Finished(Finish(reason)), UsageUpdate(usage)]
    return [Start("other", "id-1", "m", 1_750_000_000), *events, *ending, End()]


def interleaved(draw, calls):
    """The events of some calls: one after the other, or mixed."""
    if not draw(st.booleans()):
        return [event for call in calls for event in call]
    out = []
    queues = [list(call) for call in calls]
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        out.append(queue.pop(0))
    return out


@pytest.mark.parametrize("name", NAMES)
@given(events=streams(), data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_stream_keeps_text_calls_usage_and_end_in_every_format(kit, name, events, data):
    format = get_format(name)
    want = collect(copy.deepcopy(events))
    items = kit.write(format, copy.deepcopy(events))
    check(name, items)
    body = kit.bytes(format, items)
    got = kit.collect(format, body)
    gist, expected = kit.gist(got), kit.gist(want)
    assert sorted(map(repr, gist.pop("calls"))) == sorted(map(repr, expected.pop("calls")))
    thought = "".join(p.text for p in want.candidates[0].parts if isinstance(p, Reasoning))
    assert gist.pop("thought") == thought.strip()
    expected.pop("thought")
    assert gist == expected
    cut = data.draw(st.integers(0, len(body)))
    wire = decoder(format.framing)
    cut_items = wire.feed(body[:cut]) + wire.feed(body[cut:]) + wire.end()
    assert [item.data for item in cut_items] == [item.data for item in items]


@pytest.mark.parametrize("other", NAMES)
@pytest.mark.parametrize("name", NAMES)
@given(events=streams())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_stream_survives_two_formats(kit, name, other, events):
    one, two = get_format(name), get_format(other)
    first = kit.events(one, kit.bytes(one, kit.write(one, copy.deepcopy(events))))
    items = kit.write(two, first)
    check(other, items)
    got = kit.gist(kit.collect(two, kit.bytes(two, items)))
    want = kit.gist(collect(events))
    assert got["text"] == want["text"]
    assert got["usage"] == want["usage"]
    assert got["finish"] == want["finish"]
    assert sorted(map(repr, got["calls"])) == sorted(map(repr, want["calls"]))


@pytest.mark.parametrize("name", NAMES)
@given(events=streams())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_a_format_can_say_comes_back_as_it_was(name, events):
    format = get_format(name)
    once = format.write_response(collect(events), Losses(name))
    parsed = format.parse_response(json.loads(json.dumps(once)))
    assert format.write_response(parsed, losses := Losses(name)) == once
    assert losses.warnings == []


@pytest.mark.parametrize("framing", ["sse", "ndjson", "json-array", "aws"])
@given(texts=st.lists(st.text(max_size=20), max_size=6), data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_framing_loses_an_event_wherever_it_is_cut(framing, texts, data):
    items = [SseEvent(json.dumps({"x": text}, ensure_ascii=False), "e") for text in texts]
    wire = encoder(framing)
    body = b"".join(map(wire.feed, items)) + wire.end()
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    read = decoder(framing)
    out = []
    for start, end in zip([0, *places], [*places, len(body)], strict=True):
        out += read.feed(body[start:end])
    out += read.end()
    assert [item.data for item in out] == [item.data for item in items]


def refused(body):
    """Whether a decoder says that these bytes are no whole event stream."""
    read = decoder("aws")
    try:
        read.feed(body)
        read.end()
    except ValueError:
        return True
    return False


def test_a_wrong_checksum_or_a_cut_message_is_refused():
    body = encoder("aws").feed(SseEvent('{"a":1}', "e"))
    for place in range(len(body)):
        broken = bytearray(body)
        broken[place] ^= 1
        assert refused(bytes(broken)), place
    read = decoder("aws")
    read.feed(body[:-1])
    with pytest.raises(ValueError, match="cut"):
        read.end()


def test_the_encoding_of_aws_is_that_of_its_documentation():
    """The example of smithy.io's Amazon Event Stream test vectors: headers, payload, checksums."""
    vector = bytes.fromhex(
        "0000003d0000002007fd83960c636f6e74656e742d74797065070010"
        "6170706c69636174696f6e2f6a736f6e7b27666f6f273a27626172277d8d9c08b1"
    )
    from tidegate_ai_formats.framing.aws import AwsMessage, AwsParser, encode_message

    (message,) = AwsParser().feed(vector)
    assert message == AwsMessage({"content-type": "application/json"}, b"{'foo':'bar'}")
    assert encode_message(message) == vector


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_finds_what_is_missing_or_twice(kit, name):
    format = get_format(name)
    events = [
        Start("other", "id-1", "m", 1),
        PartStart(0, Text("")),
        Delta(0, "Hi"),
        PartStop(0),
        Finished(Finish("stop")),
        UsageUpdate(Usage(1, 1)),
        End(),
    ]
    items = kit.write(format, events)
    check(name, items)
    with pytest.raises(GrammarError):
        check(name, items[:-1])
    with pytest.raises(GrammarError):
        check(name, [*items, items[-1]])
