"""Scripts in a running gateway, on both carriers, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tidegate_mitmproxy_script import MitmproxyScript
from wsproto import ConnectionType, WSConnection, events

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import body, chunked, sse

SCRIPTS = Path(__file__).parent / "scripts"
ADDON = """
[[addon]]
use = "mitmproxy-script"
name = "{name}"
script = "{folder}/{name}.py"
{more}
"""
ROUTE = """
[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{upstream}", websocket = true }}]
"""

type Start = Callable[..., Awaitable[Gateway]]


def config(upstream: str, *scripts: str, **more: str) -> str:
    addons = [ADDON.format(name=s, folder=SCRIPTS, more=more.get(s, "")) for s in scripts]
    return "[gateway]\nworkers = 1\n" + "".join(addons) + ROUTE.format(upstream=upstream)


@pytest.fixture(params=["lane", "engine"])
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def elsewhere() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(*body(b"from elsewhere")) as server:
        yield server


async def test_requests_and_responses_are_changed(
    gateway: Start, upstream: ScriptedUpstream, elsewhere: ScriptedUpstream, carrier: str
) -> None:
    port = f"options = {{ elsewhere = {elsewhere.port} }}\nprivate_upstreams = true"
    scripts = (
        "http_add_header",
        "http_modify_query_string",
        "http_reply_from_proxy",
        "http_redirect_requests",
        "filter_flows",
        "nonblocking",
    )
    text = config(
        upstream.url,
        *scripts,
        http_redirect_requests=port,
        nonblocking='scope = { paths = ["/slow"] }',
    )
    running = await gateway(text, carrier=carrier)
    async with httpx.AsyncClient(base_url=running.url) as client:
        answer = await client.get("/a?x=1")
        assert (answer.status_code, answer.text, answer.headers["count"]) == (200, "ok", "1")
        assert upstream.requests[-1].target == "/a?x=1&mitmproxy=rocks"
        answer = await client.get("/path?x")
        assert answer.text == "ok"
        answer = await client.get("/secret")
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "flow_killed"
        answer = await client.get("/b", headers={"host": "example.org"})
        assert answer.text == "from elsewhere"
        host = f"127.0.0.1:{elsewhere.port}"
        assert elsewhere.requests[-1].values("host") == [host]
        answer = await client.get("/slow")
        assert answer.headers["slept"] == "1"
        assert upstream.requests[-1].values("waited") == ["1"]


async def test_a_reply_from_the_proxy_needs_no_upstream(gateway: Start, carrier: str) -> None:
    running = await gateway(config("http://127.0.0.1:9", "http_reply_from_proxy"), carrier=carrier)
    async with httpx.AsyncClient(base_url=running.url) as client:
        answer = await client.get("/path")
        assert (answer.status_code, answer.text) == (200, "Hello World")
        assert answer.headers["content-type"] == "text/html"


async def test_bodies_are_changed_and_framed_anew(
    gateway: Start, upstream: ScriptedUpstream, carrier: str
) -> None:
    upstream.handle(lambda r: body(r.body) if r.method == "POST" else chunked(b"a foo", b" bc foo"))
    running = await gateway(
        config(upstream.url, "http_stream_modify", "http_modify_form"), carrier=carrier
    )
    async with httpx.AsyncClient(base_url=running.url) as client:
        assert (await client.get("/")).text == "a bar bc bar"
        answer = await client.post("/", data={"a": "foo"})
        assert answer.text == "a=bar&mitmproxy=rocks"


async def test_an_event_stream_passes_a_script_that_needs_no_body(
    gateway: Start, upstream: ScriptedUpstream, carrier: str
) -> None:
    upstream.answer(*sse("1", "2"))
    running = await gateway(config(upstream.url, "http_stream_simple"), carrier=carrier)
    async with httpx.AsyncClient(base_url=running.url) as client:
        answer = await client.get("/")
        assert answer.text == "data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
        assert answer.headers["streamed"] == "yes"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A WebSocket server that sends everything back."""
    ws = WSConnection(ConnectionType.SERVER)
    while data := await reader.read(65536):
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, events.Request):
                writer.write(ws.send(events.AcceptConnection()))
            elif isinstance(event, events.TextMessage):
                writer.write(ws.send(events.TextMessage(data=event.data)))
            elif isinstance(event, events.CloseConnection):
                writer.write(ws.send(event.response()))
    writer.close()


async def talk(
    gateway: Start, carrier: str, script: str, say: tuple[str, ...], n: int
) -> list[str]:
    """The first `n` messages that come back through a script, from a server that echoes."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    running = await gateway(config(url, script), carrier=carrier)
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(running.url).port)
    ws = WSConnection(ConnectionType.CLIENT)
    writer.write(ws.send(events.Request(host="x", target="/ws")))
    got: list[str] = []
    async with asyncio.timeout(20):
        while len(got) < n:
            data = await reader.read(65536)
            assert data, "closed"
            ws.receive_data(data)
            for event in ws.events():
                if isinstance(event, events.AcceptConnection):
                    for text in say:
                        writer.write(ws.send(events.TextMessage(data=text)))
                elif isinstance(event, events.TextMessage):
                    got.append(event.data)
    writer.close()
    server.close()
    return got


async def test_websocket_messages_are_changed(gateway: Start, carrier: str) -> None:
    got = await talk(gateway, carrier, "websocket_simple", ("Hello you", "FOOBAR", "last"), 2)
    assert got == ["HAPPY you", "last"]


async def test_websocket_messages_are_sent_by_the_script_itself(
    gateway: Start, carrier: str
) -> None:
    got = await talk(gateway, carrier, "websocket_inject", ("a", "the secret"), 5)
    assert set(got) == {"a", "ssssssh", "tick"}
    assert got.count("tick") == 3


async def test_an_edited_script_is_taken_up_and_a_broken_one_is_not(
    gateway: Start, upstream: ScriptedUpstream, carrier: str, tmp_path: Path
) -> None:
    script = tmp_path / "mine.py"
    text = "def response(flow):\n    flow.response.headers['version'] = '{}'\n"
    script.write_text(text.format(1))
    addon = f'[[addon]]\nuse = "mitmproxy-script"\nscript = "{script}"\n'
    running = await gateway(
        "[gateway]\nworkers = 1\n" + addon + ROUTE.format(upstream=upstream.url), carrier=carrier
    )
    async with httpx.AsyncClient(base_url=running.url) as client:
        assert (await client.get("/")).headers["version"] == "1"
        script.write_text("def response(flow:\n")
        async with asyncio.timeout(30):
            while f"{script}:1: `def response(flow:`" not in running.logs:
                await asyncio.sleep(0.05)
        assert (await client.get("/")).headers["version"] == "1"
        script.write_text(text.format(2))
        async with asyncio.timeout(30):
            while (await client.get("/")).headers["version"] != "2":
                await asyncio.sleep(0.05)


def test_the_entry_point_is_the_plugin() -> None:
    from tidegate.runtime.registry import available

    assert available()["mitmproxy-script"].load() is MitmproxyScript
