"""What matches what, how answers are recorded, and the addon in a pipeline."""

import asyncio
import json
import socket
from pathlib import Path

import orjson
import pytest
from tidegate_record_cassette import RecordCassette
from tidegate_record_cassette.library import Library
from tidegate_record_cassette.matching import Matching, key_of, loose
from tidegate_record_cassette.player import Player
from tidegate_record_cassette.recorder import Recorder

from tidegate.api.cassette import CassetteError, loads
from tidegate.api.recording import Answer, Chunk, Recording
from tidegate.testing import Harness, Use, make_answer, make_exchange
from tidegate.testing.contracts import PluginContract, RouteContract

SSE = (("content-type", "text/event-stream"),)
CHAT = "http://127.0.0.1/v1/chat/completions"


def asked(body=None, url=CHAT, method="POST", headers=()):
    content = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else b""
    return Recording(method, url, headers, content)


def chat(**more):
    return asked({"model": "m", "messages": [{"role": "user", "content": "hi"}], **more})


def same(one, other, **options):
    matching = Matching(**options)
    return key_of(matching.canonical(one)) == key_of(matching.canonical(other))


def tool_turn(id):
    call = {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": "1"},
    ]


@pytest.mark.parametrize(
    ("one", "other", "matches"),
    [
        (chat(), chat(user="ann", metadata={"a": "1"}, store=True), True),
        (chat(), asked(orjson.loads(chat().body), headers=(("user-agent", "x"),)), True),
        (chat(temperature=0), chat(temperature=1), False),
        (chat(), chat(stream=True), False),
        (chat(model="n"), chat(), False),
        (chat(tools=[{"name": "a"}]), chat(tools=[{"name": "b"}]), False),
        (chat(messages=tool_turn("call_1")), chat(messages=tool_turn("call_2")), True),
        (chat(), asked(orjson.loads(chat().body), url=CHAT.replace("127.0.0.1", "x")), True),
        (asked({"a": 1, "b": 2}, "http://h/x"), asked(b'{"b": 2, "a": 1}', "http://h/x"), True),
        (asked({"a": 1}, "http://h/x"), asked({"a": 1}, "http://h/y"), False),
        (asked({"a": 1}, "http://h/x"), asked({"a": 1}, "http://h/x", "PUT"), False),
        (asked(b"\x00a", "http://h/x"), asked(b"\x00b", "http://h/x"), False),
        (asked(None, "http://h/x?a=1&b=2"), asked(None, "http://h/x?b=2&a=1"), True),
        (asked(None, "http://h/x?a=1"), asked(None, "http://h/x?a=2"), False),
    ],
)
def test_what_counts_of_a_request(one, other, matches):
    assert same(one, other) is matches


@pytest.mark.parametrize(
    ("path", "body", "call"),
    [
        ("/v1/chat/completions", {"messages": []}, "openai chat"),
        ("/openai/deployments/x/chat/completions", {"messages": []}, "openai chat"),
        ("/v1/responses", {"model": "m"}, "openai responses"),
        ("/v1/embeddings", {"input": "x"}, "openai embeddings"),
        ("/v1/messages", {"messages": []}, "anthropic messages"),
        ("/v1beta/models/g:streamGenerateContent", {"contents": []}, "gemini"),
        ("/v1beta/models/g:embedContent", {"content": {}}, "gemini embeddings"),
        ("/inbox/messages", {"text": "not a model"}, None),
    ],
)
def test_llm_calls_are_told_by_path_and_shape(path, body, call):
    assert Matching().canonical(asked(body, f"http://h{path}")).get("call") == call


def test_matching_is_configurable():
    one, other = asked({"a": {"b": 1}}, "http://h/x?t=1"), asked({"a": {"b": 2}}, "http://h/x?t=2")
    assert same(one, other, ignore=["a.b"], ignore_query=["t"])
    assert not same(one, other, ignore=["a.b"])
    here, there = asked(url="http://a/", method="GET"), asked(url="http://b/", method="GET")
    assert not same(here, there, host=True)
    red, blue = asked(headers=(("X-T", "red"),)), asked(headers=(("x-t", "blue"),))
    assert not same(red, blue, headers=["x-t"])


def test_a_form_matches_whatever_boundary_chance_made():
    def form(boundary):
        kind = (("content-type", f'multipart/form-data; boundary="{boundary}"'),)
        return asked(f"--{boundary}\r\nx\r\n--{boundary}--".encode(), "http://h/", headers=kind)

    assert same(form("abc123"), form("xyz789"))


def test_dates_and_uuids_in_texts_are_passed_over():
    def said(text):
        return key_of(Matching().canonical(chat(messages=[{"role": "user", "content": text}])))

    first = said("on 2025-01-31T10:00:00Z, 6f1c1f5e-1b1f-4a57-8c44-b5a6ad3b0001")
    assert loose(first) == loose(said("on 2026-02-01, 6f1c1f5e-1b1f-4a57-8c44-b5a6ad3b0002"))
    assert loose(first) != loose(said("on 2026-02-01, none"))


# -- the folder -------------------------------------------------------------------------------


def library(folder, repeat="last", **match):
    return Library(folder, Matching(**match), repeat, lambda recording: recording)


def filled(folder, *recordings, **options):
    made = library(folder)
    for recording in recordings:
        made.write(made.add(recording))
    again = library(folder, **options)
    again.load()
    return again


def answered(recording, text):
    return Recording(
        recording.method, recording.url, recording.headers, recording.body,
        Answer(200, "OK", (), text),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("repeat", "played"),
    [("last", [b"1", b"2", b"2", b"2"]), ("cycle", [b"1", b"2", b"1", b"2"]),
     ("miss", [b"1", b"2", None, None])],
)  # fmt: skip
def test_several_answers_to_one_request_come_in_order(tmp_path, repeat, played):
    folder = filled(tmp_path, answered(chat(), b"1"), answered(chat(), b"2"), repeat=repeat)
    found = [folder.take(chat()) for _ in range(4)]
    assert [c and c.recording.answer.body for c in found] == played


def test_one_that_matches_exactly_goes_before_one_that_nearly_does(tmp_path):
    def on(day):
        return chat(messages=[{"role": "user", "content": f"what was on {day}?"}])

    folder = filled(
        tmp_path, answered(on("2025-01-01"), b"old"), answered(on("2025-02-02"), b"new")
    )
    assert folder.take(on("2025-02-02")).recording.answer.body == b"new"
    assert folder.take(on("2026-09-09")).recording.answer.body in (b"old", b"new")
    strict = library(tmp_path, ignore_text=False)
    strict.load()
    assert strict.take(on("2026-09-09")) is None


def test_recording_again_gives_the_same_files(tmp_path):
    filled(tmp_path, answered(chat(), b"1"), answered(chat(), b"2"))
    names = sorted(path.name for path in tmp_path.iterdir())
    filled(tmp_path, answered(chat(), b"3"), answered(chat(), b"4"))
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len(names) == 2
    assert names[0].startswith("post-v1-chat-completions-")


def test_a_broken_file_is_named_with_its_line(tmp_path):
    (tmp_path / "x.cassette").write_text("# tidegate cassette 1\n\nGET /\n")
    with pytest.raises(CassetteError, match=r"x\.cassette: line 2"):
        library(tmp_path).load()


def test_an_empty_folder_says_so(tmp_path):
    assert "the folder holds none" in library(tmp_path).explain(chat())


# -- answers ----------------------------------------------------------------------------------


class Stopwatch:
    now = 0.0

    def __call__(self):
        return self.now


def watched(head, *pieces, limit=1000, complete=True):
    seen, clock = [], Stopwatch()
    recorder = Recorder(head, limit, seen.append, clock)
    for seconds, piece in pieces:
        clock.now += seconds
        recorder.write(piece)
    recorder.close(complete=complete, trailers=None)
    return seen[0]


def test_events_are_recorded_with_their_times_however_they_are_cut():
    head = make_answer(200, b"", SSE)
    answer = watched(head, (0.5, b"data: 1\n\nda"), (0.25, b"ta: 2\n\n: x\n\n"), (1, b"data: 3"))
    assert answer.chunks == (
        Chunk(0.5, b"data: 1\n\n"), Chunk(0.25, b"data: 2\n\n"), Chunk(0.0, b": x\n\n"),
        Chunk(1.0, b"data: 3"),
    )  # fmt: skip


def test_what_breaks_off_or_is_too_large_is_not_recorded():
    head = make_answer(200, b"")
    assert watched(head, (0, b"part"), complete=False) is None
    assert watched(head, (0, b"x" * 11), limit=10) is None
    assert watched(head, (0, b"x" * 10), limit=10).body == b"x" * 10


def test_an_encoded_stream_is_kept_as_it_is():
    head = make_answer(200, b"", (*SSE, ("content-encoding", "gzip")))
    assert watched(head, (0, b"\x1f\x8b\x00")).content == b"\x1f\x8b\x00"


async def test_the_player_frames_each_kind_of_answer():
    answers = {
        "0": Answer(200, "Fine", (("x-a", "b"),), b"body"),
        "1": Answer(200, "", SSE, chunks=(Chunk(0.01, b"data: 1\n\n"),)),
        "2": Answer(204),
    }
    player = Player(answers.get, 1.0)
    await player.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", player.port)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    writer.write(
        b"GET /0/x HTTP/1.1\r\n\r\nHEAD /0/x HTTP/1.1\r\n\r\nPOST /1/x HTTP/1.1\r\n" + chunked
        + b"POST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET /9 HTTP/1.1\r\n\r\n"
    )  # fmt: skip
    writer.write_eof()
    said = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await player.close()
    assert said == (
        b"HTTP/1.1 200 Fine\r\nx-a: b\r\ncontent-length: 4\r\n\r\nbody"
        b"HTTP/1.1 200 Fine\r\nx-a: b\r\ncontent-length: 4\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\n\r\n"
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"
    )


# -- the addon --------------------------------------------------------------------------------


def use(folder, action, **options):
    return Use(RecordCassette, {"dir": str(folder), "action": action, **options})


async def recorded(folder, *exchanges, **options):
    async with Harness(use(folder, "record", **options)) as harness:
        for exchange in exchanges:
            await harness.send(exchange)
    return [loads(path.read_text()) for path in sorted(Path(folder).rglob("*.cassette"))]


async def test_secrets_are_not_in_the_files_and_do_not_count(tmp_path):
    def call(secret):
        headers = {"authorization": f"Bearer {secret}", "x-team": "red"}
        return make_exchange("POST", f"http://api.test/x?key={secret}", headers, {"t": secret})

    await recorded(tmp_path, call("canary-0123456789"), scrub={"headers": ["x-team"]})
    (file,) = tmp_path.iterdir()
    assert "canary" not in file.read_text()
    assert "> x-team: ***" in file.read_text()
    async with Harness(use(tmp_path, "replay", scrub={"headers": ["x-team"]})) as harness:
        exchange = await harness.send(call("another-key-9876543210"))
        assert exchange.denial is None
        assert harness.counters()["cassettes_played_total"] == 1


async def test_a_miss_is_told_with_the_nearest_and_is_not_asked_again(tmp_path):
    await recorded(tmp_path, make_exchange("POST", "http://api.test/x", body={"a": 1}))
    async with Harness(use(tmp_path, "replay")) as harness:
        exchange = await harness.send(make_exchange("POST", "http://api.test/x", body={"a": 2}))
        assert harness.sent == []
    assert exchange.response.status_code == 424
    assert exchange.response.headers["x-should-retry"] == "false"
    error = json.loads(exchange.response.content)["error"]
    assert error["code"] == "cassette_miss"
    assert '-    "a": 1' in error["message"]
    assert '+    "a": 2' in error["message"]


async def test_answers_are_asked_for_in_the_clear_only_where_they_are_recorded(tmp_path):
    for action, sent in (("record", "identity"), ("passthrough", "gzip")):
        async with Harness(use(tmp_path, action)) as harness:
            await harness.send(make_exchange(headers={"accept-encoding": "gzip"}))
            assert harness.sent[0].headers["accept-encoding"] == sent


async def test_it_asks_for_one_worker_and_stays_out_of_production(tmp_path):
    from tidegate.runtime.problems import ConfigError

    with pytest.raises(ConfigError, match="workers = 1"):
        async with Harness(use(tmp_path, "record"), workers=2):
            pass
    with pytest.raises(ConfigError, match="production"):
        async with Harness(use(tmp_path, "replay"), gateway={"environment": "production"}):
            pass


async def test_a_folder_that_cannot_be_written_costs_no_answer(tmp_path):
    (tmp_path / "file").write_text("")
    async with Harness(use(tmp_path / "file" / "below", "record")) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.status_code == 200
        counters = harness.counters()
    assert counters["cassette_write_failures_total"] == 1


class TestPlugin(PluginContract):
    name = "record-cassette"


class TestRoute(RouteContract):
    name = "record-cassette"

    @pytest.fixture(autouse=True)
    async def _recorded(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self.folder = tmp_path / "tapes"
        await recorded(self.folder, self.good_exchange())

    def options(self):
        return {"dir": str(self.folder), "port": self.port, "action": "record-missing"}

    def good_exchange(self):
        return make_exchange("POST", "http://api.test/x", body={"a": 1})

    def unrouted_exchange(self):
        return make_exchange("POST", "http://api.test/x", body={"a": 2})
