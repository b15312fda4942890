"""The text of a cassette gives back the recording, byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.api.cassette import CassetteError, dumps, loads
from tidegate.api.recording import Answer, Chunk, Recording
from tidegate.api.scrub import MASK, Scrubber, json_paths
from tidegate.api.types import Principal

JSON = (("content-type", "application/json"),)
REQUEST = Recording("POST", "http://api.test/v1/x?a=1", JSON, b'{"model":"demo","n":1}')

bodies = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(str.encode),
    st.builds(
        lambda value, indent: json.dumps(value, indent=indent).encode(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
        st.sampled_from([None, 2, 4]),
    ),
)
delays = st.integers(0, 5000).map(lambda ms: ms / 1000)
events = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.text(max_size=40).map(lambda text: f"data: {text}\n\n".encode()),
    st.just(b"event: x\ndata: {}\nid: 7\n\n"),
    st.just(b": keep-alive\n\n"),
)
answers = st.one_of(
    st.builds(Answer, st.integers(200, 599), st.just("OK"), st.just(JSON), bodies),
    st.builds(
        lambda chunks: Answer(200, "OK", (), chunks=tuple(chunks)),
        st.lists(st.builds(Chunk, delays, events), max_size=5),
    ),
)


@given(body=bodies, answer=answers | st.none())
def test_any_recording_comes_back(body: bytes, answer: Answer | None) -> None:
    recording = Recording(
        "PUT", "http://h/p", JSON, body, answer, "id-1", 17.25, 42, "192.0.2.1", "gateway",
        Principal("dev", "team"),
    )  # fmt: skip
    assert loads(dumps(recording)) == recording


def test_it_reads_like_the_exchange() -> None:
    answer = Answer(
        200,
        "OK",
        (("content-type", "text/event-stream"),),
        chunks=(
            Chunk(0.2, b'event: delta\ndata: {"x":1}\n\n'),
            Chunk(0.015, b"data: [DONE]\n\n"),
        ),
    )
    text = dumps(Recording(**{**fields(REQUEST), "answer": answer, "id": "abc", "now": 1.5}))
    assert text == (
        "# tidegate cassette 1\n# id: abc\n# now: 1.5\n# seed: 0\n# listener: gateway\n\n"
        "> POST http://api.test/v1/x?a=1\n> content-type: application/json\n\n"
        'json compact\n{\n  "model": "demo",\n  "n": 1\n}\n\n'
        "< 200 OK\n< content-type: text/event-stream\n\n"
        'events\n+0.200 event: delta\n       |data: {"x":1}\n+0.015 data: [DONE]\n'
    )


def fields(recording: Recording) -> dict[str, object]:
    return {name: getattr(recording, name) for name in recording.__dataclass_fields__}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "line 1: a cassette begins with"),
        ("# tidegate cassette 1\n\nGET /", "`> METHOD URL` is missing"),
        ("# tidegate cassette 1\n\n> GET http://h/\n\nyaml x\n", "no form of a body"),
        ("# tidegate cassette 1\n\n> GET http://h/\n> x\n", "is not `name: value`"),
        ("# tidegate cassette 1\n\n> GET http://h/\n\n< 200\n\nevents\noops\n", "line 8: an event"),
        ("# tidegate cassette 1\n\n> GET http://h/\n\n< ok\n", "invalid literal"),
        ("# tidegate cassette 1\n\n> GET http://h/\n\njson compact\n{,}\n", "line 6"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(CassetteError, match=said):
        loads(text)


CANARY = "canary-4f1d9c7e2b"
KEY = "sk-proj-" + "a1B2" * 8


def test_no_canary_is_left_anywhere() -> None:
    events = (Chunk(0.0, f"data: you sent {CANARY}\n\n".encode()),)
    answers = [
        Answer(200, "OK", (("set-cookie", f"sid={CANARY}"),), f"echo {CANARY} {KEY}".encode()),
        Answer(200, "OK", (), chunks=events),
    ]
    for answer in answers:
        recording = Recording(
            "POST",
            f"http://api.test/v1/x?api_key={CANARY}&page_token=2",
            (("Authorization", f"Bearer {CANARY}"), ("x-note", f"again {CANARY}")),
            json.dumps({"said": CANARY, "key": KEY, "password": "short"}).encode(),
            answer,
        )
        clean = Scrubber(paths=json_paths(["password"])).recording(recording)
        text = dumps(clean)
        assert CANARY not in text
        assert KEY not in text
        assert '"password": "***"' in text
        assert "page_token=2" in text
        assert f"> Authorization: {MASK}" in text
        assert Scrubber(paths=json_paths(["password"])).recording(clean) == clean


def test_json_values_are_masked_in_bodies_and_in_events() -> None:
    scrubber = Scrubber(fields=["x-team"], query=["user"], paths=json_paths(["a.*.name"]))
    body = b'{"a":[{"name":"Ann","age":7},{"name":"Bob"}]}'
    recording = Recording(
        "POST", "http://h/?user=ann&x=1", (("X-Team", "red"),), body,
        Answer(200, chunks=(Chunk(0.0, b'data: {"a": [{"name": "Ann"}]}\n\n'),)),
    )  # fmt: skip
    clean = scrubber.recording(recording)
    assert clean.url == "http://h/?user=***&x=1"
    assert clean.headers == (("X-Team", "***"),)
    assert clean.body == b'{"a":[{"name":"***","age":7},{"name":"***"}]}'
    assert clean.answer is not None
    assert clean.answer.body == b'data: {"a": [{"name": "***"}]}\n\n'
    with pytest.raises(ValueError, match="no JSON path"):
        json_paths(["a..b"])
