"""The event stream parser: WHATWG HTML §9.2, and nothing of the wire is lost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.api import SseEvent, SseParser

type Plain = tuple[str, str, str | None]


def parse(*chunks: bytes) -> list[SseEvent | bytes]:
    parser = SseParser()
    return [item for chunk in chunks for item in parser.feed(chunk)] + parser.end()


def events(items: list[SseEvent | bytes]) -> list[Plain]:
    return [(i.data, i.event, i.id) for i in items if isinstance(i, SseEvent)]


def wire(items: list[SseEvent | bytes]) -> bytes:
    return b"".join(i.encode() if isinstance(i, SseEvent) else i for i in items)


TABLE: list[tuple[bytes, list[Plain]]] = [
    (b"data: a\n\n", [("a", "", None)]),
    (b"data:a\n\n", [("a", "", None)]),
    (b"data:  a\n\n", [(" a", "", None)]),
    (b"data\n\n", [("", "", None)]),
    (b"data:\n\n", [("", "", None)]),
    (b"data\ndata\n\n", [("\n", "", None)]),
    (b"data: a\ndata: b\n\n", [("a\nb", "", None)]),
    (b"event: e\nid: 1\ndata: a\n\n", [("a", "e", "1")]),
    (b"id\ndata: a\n\n", [("a", "", "")]),
    (b"id: 1\0\ndata: a\n\n", [("a", "", None)]),
    (b"event: x\nevent: y\ndata: a\n\n", [("a", "y", None)]),
    (b": comment\n\n", []),
    (b": comment\ndata: a\n\n", [("a", "", None)]),
    (b"retry: 5\n\ndata: a\n\n", [("a", "", None)]),
    (b"id: 1\n\ndata: a\n\n", [("a", "", None)]),
    (b"event: only\n\n", []),
    (b"unknown: x\nDATA: x\n\n", []),
    (b"data: a:b\n\n", [("a:b", "", None)]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [("a", "", None), ("b", "", None)]),
    (b"data: a\r\rdata: b\r\r", [("a", "", None), ("b", "", None)]),
    (b"data: a\n\rdata: b\r\n\ndata: c\r\n\r", [(x, "", None) for x in "abc"]),
    (b"\xef\xbb\xbfdata: a\n\n", [("a", "", None)]),
    (b"\xef\xbb\xbf\n\ndata: a\n\n", [("a", "", None)]),
    (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("a", "", None)]),
    (b"\n\n\n\r\n\rdata: a\n\n", [("a", "", None)]),
    ("data: 🦊é\n\n".encode(), [("🦊é", "", None)]),
    (b"data: \xff\n\n", [("\N{REPLACEMENT CHARACTER}", "", None)]),
    (b"data: a\n\ndata: cut", [("a", "", None), ("cut", "", None)]),
    (b"data: a\n", [("a", "", None)]),
    (b": cut comment", []),
    (b"", []),
]
STREAMS = pytest.mark.parametrize(("stream", "expected"), TABLE)


@STREAMS
def test_a_stream_gives_its_events_and_keeps_its_bytes(stream, expected):
    items = parse(stream)
    assert events(items) == expected
    assert wire(items) == stream


@STREAMS
def test_every_split_in_two_and_every_single_byte_give_the_same(stream, expected):
    splits = [(stream[:at], stream[at:]) for at in range(len(stream) + 1)]
    splits.append(tuple(stream[i : i + 1] for i in range(len(stream))))
    for chunks in splits:
        items = parse(*chunks)
        assert events(items) == expected, chunks
        assert wire(items) == stream, chunks


PIECES = st.sampled_from(
    [b"data", b"event", b"id", b"retry", b":", b": ", b"\n", b"\r", b"\r\n", b"\n\n", b"a",
     b"data: x\n\n", b"\0", b"\xef\xbb\xbf", "é".encode(), b"\xff", b" "]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=30).map(b"".join), st.data())
def test_any_stream_split_anywhere_gives_the_same_events_and_loses_no_byte(stream, data):
    whole = parse(stream)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    split = parse(*(stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])))
    assert events(split) == events(whole)
    assert wire(split) == wire(whole) == stream


def reference(stream: bytes) -> list[Plain]:
    """The algorithm of the standard, line by line, with one difference: see `SseParser.end`."""
    text = stream.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found: list[Plain] = []
    data: list[str] = []
    event, id = "", None
    for line in [*lines, ""]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                found.append(("\n".join(data), event, id))
            data, event, id = [], "", None
        elif name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            id = value
    return found


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_any_stream_gives_what_the_standard_says(stream):
    assert events(parse(stream)) == reference(stream)


def test_a_keep_alive_comes_out_of_the_call_that_it_went_into():
    parser = SseParser()
    assert parser.feed(b": ping\n\n") == [b": ping\n\n"]
    assert parser.feed(b"\n") == [b"\n"]
    parser.feed(b"data: a\n\n")
    assert parser.feed(b":\r\n\r\n") == [b":\r\n\r\n"]


def test_an_event_is_not_held_back_for_the_lf_of_a_cr():
    parser = SseParser()
    (event,) = parser.feed(b"data: a\r\r")
    assert event.data == "a"
    assert parser.feed(b"\n") == [b"\n"]


def test_an_event_over_the_limit_is_refused_however_it_comes():
    with pytest.raises(ValueError, match="longer than 20 bytes"):
        SseParser(20).feed(b"data: " + b"x" * 20 + b"\n\n")
    parser = SseParser(20)
    parser.feed(b"data: xxxxxxxxxxx")
    with pytest.raises(ValueError, match="longer than 20 bytes"):
        parser.feed(b"xxxxxxxxx")
    exact = b"data: " + b"x" * 12 + b"\n\n"
    assert len(SseParser(20).feed(exact * 100)) == 100


def test_a_long_event_in_small_pieces_takes_linear_time():
    parser = SseParser()
    for _ in range(4000):
        assert parser.feed(b"data: " + b"x" * 100 + b"\n") == []
    (event,) = parser.feed(b"\n")
    assert len(event.data) == 4000 * 101 - 1


# -- events -----------------------------------------------------------------------------------


def test_a_changed_event_is_written_anew():
    (event,) = parse(b": note\nretry: 9\nid: 1\ndata: a\n\n")
    assert not event.changed
    event.data = "b\nc"
    assert event.changed
    assert event.encode() == b"id: 1\ndata: b\ndata: c\n\n"


@pytest.mark.parametrize("data", ["", "a", "a\nb", "a\rb", "a\r\nb", "\n", "é🦊", " a"])
def test_what_is_written_is_read_back(data):
    (event,) = parse(SseEvent(data, "name", "7").encode())
    normal = data.replace("\r\n", "\n").replace("\r", "\n")
    assert (event.data, event.event, event.id) == (normal, "name", "7")
