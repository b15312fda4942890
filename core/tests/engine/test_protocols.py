"""WebSocket, HTTP/2, TLS, and the life of the engine."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from wsproto import ConnectionType, WSConnection, events

from tidegate.api import Plugin, Timeouts, Tls, WsMessage, hook
from tidegate.runtime.settings import parse
from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import body, chunk, head, silence, sleep, sse


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A self-signed certificate for `name` and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    import ipaddress

    names = x509.SubjectAlternativeName(
        [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


# -- WebSocket --------------------------------------------------------------------------------


class Socket:
    """A WebSocket client or server over a stream."""

    def __init__(self, kind: ConnectionType, reader: Any, writer: Any) -> None:
        self.ws = WSConnection(kind)
        self.reader = reader
        self.writer = writer
        self.got: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, event: Any) -> None:
        self.writer.write(self.ws.send(event))

    async def next(self) -> Any:
        async with asyncio.timeout(20):
            while self.got.empty():
                data = await self.reader.read(65536)
                self.ws.receive_data(data or None)
                for event in self.ws.events():
                    self.got.put_nowait(event)
            return self.got.get_nowait()


async def echo(reader: Any, writer: Any) -> None:
    side = Socket(ConnectionType.SERVER, reader, writer)
    assert isinstance(await side.next(), events.Request)
    side.send(events.AcceptConnection())
    while True:
        event = await side.next()
        if isinstance(event, events.CloseConnection):
            if side.ws.state.name != "CLOSED":
                side.send(event.response())
            break
        if isinstance(event, events.Message):
            side.send(type(event)(data=event.data))
    writer.close()


async def open_socket(serving: Any) -> Socket:
    side = Socket(ConnectionType.CLIENT, *await serving.connect())
    side.send(events.Request(host="api.test", target="/ws"))
    assert isinstance(await side.next(), events.AcceptConnection)
    return side


async def test_websocket_messages_pass_the_event_hooks(serve: Any, route_to: Any) -> None:
    class Edit(Plugin):
        @hook
        def transform_event(self, exchange: Any, event: Any) -> Any:
            assert isinstance(event, WsMessage)
            if event.content == b"drop":
                return []
            if event.content == b"two" and not event.from_client:
                return [event, WsMessage(b"three", from_client=False, text=True)]
            event.content = event.content + (b">" if event.from_client else b"<")
            return None if event.content != b"two>" else setattr(event, "content", b"two")

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    serving = await serve(Edit, route_to(f"http://127.0.0.1:{port}", websocket=True))
    side = await open_socket(serving)
    side.send(events.TextMessage(data="a"))
    assert (await side.next()).data == "a><"
    side.send(events.BytesMessage(data=b"drop"))
    side.send(events.BytesMessage(data=b"b"))
    assert (await side.next()).data == b"b><"
    side.send(events.TextMessage(data="two"))
    assert (await side.next()).data == "two"
    assert (await side.next()).data == "three"
    side.send(events.CloseConnection(code=1000))
    assert isinstance(await side.next(), events.CloseConnection)
    exchange = await serving.last()
    assert (exchange.outcome, exchange.response.status_code) == ("answered", 101)
    assert exchange.bytes_in == len(b"adropbtwo")
    assert serving.engine.active == 0
    side.writer.close()
    server.close()


async def test_a_failing_hook_closes_the_websocket(serve: Any, route_to: Any) -> None:
    from tidegate.testing.faults import crash_plugin

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    serving = await serve(
        crash_plugin("transform_event"), route_to(f"http://127.0.0.1:{port}", websocket=True)
    )
    side = await open_socket(serving)
    side.send(events.TextMessage(data="a"))
    closing = await side.next()
    assert (closing.code, closing.reason) == (1011, "plugin_failed")
    assert (await serving.last()).outcome == "failed"
    side.writer.close()
    server.close()


async def test_a_websocket_message_over_the_limit_closes_with_1009(
    serve: Any, route_to: Any
) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    serving = await serve(
        route_to(f"http://127.0.0.1:{port}", websocket=True), gateway="limits = { gather = 10 }"
    )
    side = await open_socket(serving)
    side.send(events.TextMessage(data="x" * 11))
    assert (await side.next()).code == 1009
    side.writer.close()
    server.close()


# -- HTTP/2 and TLS ---------------------------------------------------------------------------


async def test_http2_clients_are_served(
    serve: Any, upstream: Any, route_to: Any, tmp_path: Path
) -> None:
    cert, _ = certificate(tmp_path)
    upstream.handle(lambda r: sse("1", "2") if r.target == "/sse" else body(r.body or b"none"))
    serving = await serve(
        route_to(upstream.url),
        listener='cert = "localhost.crt"\nkey = "localhost.key"\nalpn = ["h2", "http/1.1"]',
    )
    url = f"https://localhost:{serving.port}"
    trust = ssl.create_default_context(cafile=str(cert))
    async with httpx.AsyncClient(http2=True, verify=trust, trust_env=False) as client:
        answers = await asyncio.gather(
            *(client.post(f"{url}/{n}", content=b"%d" % n) for n in range(8)),
            client.get(f"{url}/sse"),
        )
        assert {answer.http_version for answer in answers} == {"HTTP/2"}
        assert [a.content for a in answers[:8]] == [b"%d" % n for n in range(8)]
        assert answers[8].text.endswith("data: [DONE]\n\n")
        assert (await client.head(f"{url}/")).status_code == 200
    async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
        answer = await client.get(url)
        assert (answer.http_version, answer.text) == ("HTTP/1.1", "none")
    await serving.last(11)
    assert all(e.client.tls and e.client.sni == "localhost" for e in serving.logged)
    assert serving.engine.active == 0
    await upstream.until(lambda: upstream.open == 0)


async def test_http2_errors_carry_the_envelope(
    serve: Any, upstream: Any, route_to: Any, tmp_path: Path
) -> None:
    cert, _ = certificate(tmp_path)
    upstream.answers((*sse("1", done=False)[:2], silence()), [silence()])
    serving = await serve(
        route_to(upstream.url, timeouts=Timeouts(first_byte=0.3, idle=0.3)),
        listener='cert = "localhost.crt"\nkey = "localhost.key"\nalpn = ["h2"]',
    )
    url = f"https://localhost:{serving.port}"
    trust = ssl.create_default_context(cafile=str(cert))
    async with httpx.AsyncClient(http2=True, verify=trust, trust_env=False) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(url)
        answer = await client.get(url)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "upstream_timeout"
        answer = await client.get(f"{url}/%2e%2e/x")
        assert answer.json()["error"]["code"] == "bad_request_target"


async def test_an_upstreams_certificate_is_verified(
    serve: Any, route_to: Any, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path)
    other, _ = certificate(tmp_path, "other.test")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with ScriptedUpstream(tls=context) as upstream:
        target = f"https://localhost:{upstream.port}"
        for tls, expected in (
            (Tls(ca=str(cert)), 200),
            (Tls(ca=str(other)), 502),
            (Tls(ca=str(cert), sni="wrong.test"), 502),
            (Tls(), 502),
        ):
            serving = await serve(route_to(target, tls=tls))
            answer = await serving.get()
            assert answer.status == expected
            if expected == 502:
                assert answer.code == "upstream_tls_invalid"
            await serving.engine.stop()


async def test_an_upstream_that_does_not_speak_tls_is_502(serve: Any, route_to: Any) -> None:
    async def rude(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    serving = await serve(route_to(f"https://127.0.0.1:{port}"))
    answer = await serving.get()
    assert (answer.status, answer.code) == (502, "upstream_tls_invalid")
    server.close()


# -- what the lane hands over -----------------------------------------------------------------


async def test_a_websocket_on_a_lane_listener_is_carried_by_the_engine(
    serve: Any, route_to: Any
) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    serving = await serve(route_to(f"http://127.0.0.1:{port}", websocket=True), carrier="lane")
    side = await open_socket(serving)
    side.send(events.TextMessage(data="a"))
    assert (await side.next()).data == "a"
    assert serving.engine.active == 1
    side.send(events.CloseConnection(code=1000))
    assert isinstance(await side.next(), events.CloseConnection)
    exchange = await serving.last()
    assert (exchange.listener, exchange.client.address) == ("main", "127.0.0.1")
    side.writer.close()
    server.close()


async def test_alpn_on_a_lane_listener_chooses_the_carrier(
    serve: Any, upstream: Any, route_to: Any, tmp_path: Path
) -> None:
    cert, _ = certificate(tmp_path)
    serving = await serve(
        route_to(upstream.url),
        listener='cert = "localhost.crt"\nkey = "localhost.key"\nalpn = ["h2", "http/1.1"]',
        carrier="lane",
    )
    url = f"https://localhost:{serving.port}"
    trust = ssl.create_default_context(cafile=str(cert))
    for http2, expected in ((True, "HTTP/2"), (False, "HTTP/1.1")):
        async with httpx.AsyncClient(http2=http2, verify=trust, trust_env=False) as client:
            answer = await client.get(url)
            assert (answer.http_version, answer.text) == (expected, "ok")


# -- life -------------------------------------------------------------------------------------


async def test_a_drain_waits_for_streams_and_closes_idle_connections(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    gate = asyncio.Event()

    async def wait(_: Any) -> None:
        await gate.wait()

    stream = sse("1", "2")
    upstream.answers(body(b"idle"), [*stream[:2], wait, *stream[2:]], [wait, *body(b"slow")])
    serving = await serve(route_to(upstream.url))
    idle_reader, idle_writer = await serving.connect()
    idle_writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await idle_reader.readuntil(b"idle")
    streaming = asyncio.ensure_future(serving.get())
    await upstream.until(lambda: len(upstream.requests) == 2)
    reader, writer = await serving.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await upstream.until(lambda: len(upstream.requests) == 3)
    assert serving.engine.active == 2
    draining = asyncio.ensure_future(serving.engine.drain(30))
    assert await idle_reader.read() == b""
    assert not draining.done()
    gate.set()
    assert b"[DONE]" in (await streaming).body
    assert b"connection: close" in await reader.read()
    await draining
    assert serving.engine.active == 0
    assert serving.sock.fileno() >= 0  # still the caller's, and still open
    assert serving.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    idle_writer.close()
    writer.close()


async def test_a_drain_that_is_over_its_time_ends_streams_with_an_error_event(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    kind = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    upstream.answer(head(200, kind), chunk(b"data: 1\n\n"), sleep(60))
    serving = await serve(route_to(upstream.url))
    streaming = asyncio.ensure_future(serving.get())
    await upstream.until(lambda: len(upstream.requests) == 1)
    await serving.engine.drain(0.2)
    assert b"server_draining" in (await streaming).body
    assert (await serving.last()).outcome == "failed"


async def test_an_exchange_keeps_the_pipeline_it_started_with(
    serve: Any, upstream: Any, route_to: Any, tmp_path: Path
) -> None:
    gate = asyncio.Event()

    class Mark(Plugin):
        @hook
        def transform_response(self, exchange: Any) -> None:
            exchange.response.headers["x-old"] = "yes"

    async def wait(_: Any) -> None:
        await gate.wait()

    upstream.answer(wait, *body(b"ok"))
    route = route_to(upstream.url)
    serving = await serve(Mark, route)
    before = asyncio.ensure_future(serving.get())
    await upstream.until(lambda: len(upstream.requests) == 1)
    settings = parse(
        '[gateway]\n[[gateway.listen]]\nname="main"\naddress="127.0.0.1:0"\n[[addon]]\nuse="p1"\n',
        base=tmp_path,
    )
    serving.runtime.commit(await serving.runtime.prepare(settings))
    serving.engine.reconfigure(settings)
    gate.set()
    assert (await before)["x-old"] == "yes"
    assert "x-old" not in await serving.get()


async def test_connections_over_the_limit_are_told_so(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    serving = await serve(route_to(upstream.url), gateway="limits = { connections = 1 }")
    reader, writer = await serving.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"ok")
    answer = await serving.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, answer.code) == (503, "overloaded")
    writer.close()
