"""Recordings to and from HAR, flow files and access logs; the verbs `cassettes` and `record`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mitmproxy import http, io
from mitmproxy.test import tflow, tutils

from tidegate.api.cassette import dumps
from tidegate.api.recording import Answer, Chunk, Recording
from tidegate.api.types import Principal
from tidegate.cli.cassettes import with_addon
from tidegate.cli.recordings import Unreadable, read, write
from tidegate.cli.source import Source

JSON = (("content-type", "application/json"),)
SSE = (("content-type", "text/event-stream"),)
STREAM = Recording(
    "POST", "http://api.test/v1/chat/completions?x=1", JSON, b'{"model":"demo"}',
    Answer(200, "OK", SSE, chunks=(Chunk(0.25, b"data: 1\n\n"), Chunk(0.0, b": x\r\n\r\n"))),
    "id-1", 1_750_000_000.125, 2**90, "192.0.2.7", "gateway", Principal("dev", "team"),
)  # fmt: skip
BINARY = Recording(
    "PUT", "http://api.test/file", (), b"\xff\x00", Answer(201, "Created", (), b"\x00\xfe"), "id-2"
)
UNANSWERED = Recording("GET", "http://api.test/", id="id-3", now=1.0)
type Run = Callable[..., subprocess.CompletedProcess[str]]


def unnamed(recordings: list[Recording]) -> list[str]:
    return [dumps(recording) for recording in recordings]


@pytest.mark.parametrize("kind", ["har", "flows"])
def test_what_goes_out_comes_back(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"all.{kind}"
    sent = [STREAM, BINARY, UNANSWERED]
    write(sent, file, kind)
    assert unnamed(read(file)) == unnamed(sent)


def test_a_browsers_har_is_read(tmp_path: Path) -> None:
    request = {
        "method": "POST", "url": "https://api.test/a?b=c#d",
        "headers": [{"name": ":method", "value": "POST"}, {"name": "X-A", "value": "é"},
                    {"name": "host", "value": "api.test"}],
        "postData": {"mimeType": "text/plain", "text": "hello"},
    }  # fmt: skip
    response = {
        "status": 200, "statusText": "", "content": {"text": "data: 1\n\ndata: 2\n\n"},
        "headers": [*({"name": n, "value": v} for n, v in SSE),
                    {"name": "content-encoding", "value": "gzip"}],
    }  # fmt: skip
    blocked = {"status": 0, "headers": [], "content": {}}
    entries = [
        {"startedDateTime": "2025-06-15T15:06:40.5Z", "request": request, "response": r}
        for r in (response, blocked)
    ]
    file = tmp_path / "x.har"
    file.write_text(json.dumps({"log": {"entries": entries}}))
    first, second = read(file)
    assert (first.url, first.body, first.now) == ("https://api.test/a?b=c", b"hello", 1750000000.5)
    assert first.headers == (("X-A", "é".encode().decode("latin-1")),)
    assert first.answer is not None
    assert first.answer.headers == SSE
    assert [chunk.data for chunk in first.answer.chunks or ()] == [b"data: 1\n\n", b"data: 2\n\n"]
    assert second.answer is None


def test_mitmproxys_own_flows_are_read_decoded(tmp_path: Path) -> None:
    flow = tflow.tflow(resp=tutils.tresp(content=b"plain"))
    assert flow.response is not None
    flow.response.encode("gzip")
    file = tmp_path / "x.flows"
    with file.open("wb") as out:
        writer = io.FlowWriter(out)
        for one in (flow, tflow.ttcpflow(), tflow.twebsocketflow(), tflow.tflow(err=True)):
            writer.add(one)
    first, broken = read(file)
    assert first.url == flow.request.pretty_url
    assert first.answer is not None
    assert first.answer.content == b"plain"
    assert "content-encoding" not in dict(first.answer.headers)
    assert broken.answer is None


def test_what_we_write_mitmproxy_reads(tmp_path: Path) -> None:
    file = tmp_path / "x.flows"
    write([STREAM], file, "flows")
    with file.open("rb") as source:
        (flow,) = list(io.FlowReader(source).stream())
    assert isinstance(flow, http.HTTPFlow)
    assert flow.request.pretty_url == STREAM.url
    assert flow.response is not None
    assert flow.response.content == b"data: 1\n\n: x\r\n\r\n"


def test_lines_of_an_access_log_tell_of_heads(tmp_path: Path) -> None:
    lines = [
        {"time": "2025-06-15T15:06:40Z", "request_id": "r1", "client": "192.0.2.9",
         "principal": "team/dev", "method": "GET", "host": "api.test", "path": "/x",
         "query": "a&b", "status": 200, "outcome": "answered"},
        {"method": "GET", "path": "/y", "status": 403, "outcome": "denied"},
    ]  # fmt: skip
    file = tmp_path / "access.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read(file)
    assert (first.url, first.now, first.client) == ("http://api.test/x?a&b", 1.75e9, "192.0.2.9")
    assert first.principal == Principal("dev", "team")
    assert first.answer == Answer(200)
    assert second.answer is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.har", '{"x": 1}', "not a HAR document"),
        ("a.flows", "hello", "not a flow file"),
        ("a.jsonl", '{"x": 1}', '"method" and "path" are needed'),
        ("a.cassette", "hello", "line 1"),
        ("a.har", "{", "not JSON: .*expected"),
        ("a.har", "hello", "not JSON"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(Unreadable, match=said) as error:
        read(file)
    assert name in str(error.value)


def test_the_verbs_work_together(tidegate: Run, tmp_path: Path) -> None:
    secret = "sk-" + "canary0123" * 3
    held = Recording(
        "POST", f"http://api.test/x?api_key={secret}", (("authorization", f"Bearer {secret}"),),
        json.dumps({"user": "ann", "said": secret}).encode(), Answer(200, "OK", JSON, b"{}"), now=5,
    )  # fmt: skip
    write([held, STREAM], tmp_path / "in.har", "har")
    done = tidegate("cassettes", "import", "in.har", "--to", "tapes", "--scrub", "user")
    assert "2 cassettes written to tapes" in done.stdout, done.stderr
    files = sorted((tmp_path / "tapes").iterdir())
    text = "".join(file.read_text() for file in files)
    assert "canary" not in text
    assert '"user": "***"' in text

    listed = json.loads(tidegate("cassettes", "list", "tapes", "--json").stdout)
    assert sorted(one["events"] or 0 for one in listed) == [0, 2]
    assert "2 events" in tidegate("cassettes", "list", "tapes").stdout
    assert "> POST http://api.test/v1/chat" in tidegate("cassettes", "show", "tapes").stdout
    out = tidegate("cassettes", "export", "tapes", "--to", "out.flows")
    assert "2 exchanges written to out.flows" in out.stdout
    assert len(read(tmp_path / "out.flows")) == 2

    (tmp_path / "used").write_text(f"{files[0].name}\n")
    unused = tidegate("cassettes", "unused", "tapes", "--used", "used")
    assert (unused.returncode, unused.stdout.split()) == (1, [files[1].name])
    told = tidegate("cassettes", "unused", "tapes", "--used", "used", "--json")
    assert json.loads(told.stdout) == {"unused": unused.stdout.split(), "deleted": False}
    tidegate("cassettes", "unused", "tapes", "--used", "used", "--delete")
    assert list((tmp_path / "tapes").iterdir()) == [files[0]]
    wrong = tidegate("cassettes", "unused", "tapes")
    assert wrong.returncode == 2
    assert "name it with --used" in wrong.stderr


@pytest.mark.parametrize("text", ["", '# c\n[gateway]\nworkers = 4\n\n[[addon]]\nuse = "x"\n'])
def test_the_addon_stands_before_all_others(text: str) -> None:
    made = with_addon(text, {"action": "replay", "dir": 'a"b', "speed": 1.0})
    settings = Source(made, "f", "/", workers=1).settings()
    assert settings.addons[0].use == "record-cassette"
    assert settings.addons[0].options == {"action": "replay", "dir": 'a"b', "speed": 1.0}
    assert [a.use for a in settings.addons[1:]] == (["x"] if text else [])
    assert settings.gateway.workers == 1
