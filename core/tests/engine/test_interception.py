"""Connections taken over, passed and closed, on loopback: explicit proxies of all kinds.

Transparent mode needs network namespaces: `tests/intercept`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from mitmproxy.connection import Client
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import UDPLayer
from mitmproxy.proxy.layers.modes import TransparentProxy
from mitmproxy.proxy.mode_specs import ProxyMode
from pytest_asyncio import fixture as async_fixture

from tidegate.api import Plugin, hook
from tidegate.engine import Engine
from tidegate.engine.master import StartError
from tidegate.engine.passing import Closed, NextLayer
from tidegate.runtime.ca import rotate_ca
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.settings import parse
from tidegate.testing import ScriptedUpstream
from tidegate.testing.certificates import Authority

from .http2 import Http2Client


class Node:
    """An engine with one intercept on a free port, and what its hooks saw."""

    def __init__(self, engine: Engine, runtime: Runtime, port: int, state: Path) -> None:
        self.engine = engine
        self.runtime = runtime
        self.port = port
        self.state = state
        self.seen: list[str] = []

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client believes that trusts nothing but the node's CA."""
        return ssl.create_default_context(cafile=str(self.state / "ca" / "mitmproxy-ca-cert.pem"))

    def count(self, name: str) -> int:
        return self.runtime.counters.values.get(name, 0)

    async def close(self) -> None:
        await self.engine.stop()
        await self.runtime.close()


type Start = Callable[..., Awaitable[Node]]


@async_fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """`await start(mode, "toml lines of the intercept")`."""
    nodes: list[Node] = []

    async def begin(mode: str, lines: str = 'allow_hosts = ["*"]') -> Node:
        class Mark(Plugin):
            @hook
            def transform_request(self, exchange: Any) -> None:
                exchange.request.headers["x-listener"] = exchange.listener
                nodes[0].seen.append(exchange.host)

        sock = socket.create_server(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        kind, mark, data = mode.partition(":")
        lines += "" if "local = " in lines else "\nlocal = true"
        text = f'[[intercept]]\nname = "inside"\n{lines}\n'
        text += f'mode = "{kind}{mark}{data}@127.0.0.1:{port}"\n[[addon]]\nuse = "mark"\n'
        settings = parse(text, base=tmp_path)
        runtime = Runtime(Host(tmp_path / "state", plugins={"mark": Mark}))
        runtime.commit(await runtime.prepare(settings))
        engine = Engine(runtime, settings)
        await engine.start({"inside": sock})
        nodes.append(Node(engine, runtime, port, tmp_path / "state"))
        return nodes[0]

    yield begin
    for node in nodes:
        await node.close()


@async_fixture
async def origin(tmp_path: Path) -> AsyncIterator[ScriptedUpstream]:
    """An HTTPS origin at `localhost`, whose CA is `tmp_path / "origin.pem"`."""
    authority = Authority()
    (tmp_path / "origin.pem").write_bytes(authority.pem)
    async with ScriptedUpstream(tls=authority.server("localhost", "127.0.0.1")) as upstream:
        yield upstream


def trusting(path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(path))


TAKE = 'allow_hosts = ["localhost"]\nupstream_ca = "origin.pem"'


async def test_cleartext_through_an_explicit_proxy_meets_the_hooks(
    start: Start, upstream: Any
) -> None:
    node = await start("regular")
    async with httpx.AsyncClient(proxy=f"http://127.0.0.1:{node.port}", trust_env=False) as client:
        assert (await client.get(upstream.url)).text == "ok"
        assert (await client.get(upstream.url)).text == "ok"
    assert upstream.requests[0].values("x-listener") == ["inside"]
    assert upstream.requests[0].values("x-forwarded-for") == []
    assert upstream.connections == 1  # the second exchange used the first one's


async def test_cleartext_to_a_host_that_is_not_listed_meets_no_hook(
    start: Start, upstream: Any
) -> None:
    node = await start("regular", 'allow_hosts = ["listed.test"]')
    async with httpx.AsyncClient(proxy=f"http://127.0.0.1:{node.port}", trust_env=False) as client:
        assert (await client.get(upstream.url)).text == "ok"
    assert upstream.requests[0].values("x-listener") == []
    assert node.seen == []


async def test_tls_to_a_listed_host_is_taken_over(start: Start, origin: ScriptedUpstream) -> None:
    node = await start("regular", TAKE)
    proxy = f"http://127.0.0.1:{node.port}"
    async with httpx.AsyncClient(proxy=proxy, verify=node.trust, trust_env=False) as client:
        for _ in range(2):
            assert (await client.get(f"https://localhost:{origin.port}/x")).text == "ok"
    assert [r.values("x-listener") for r in origin.requests] == [["inside"]] * 2
    assert (node.seen, origin.connections) == (["localhost"] * 2, 1)


@pytest.mark.parametrize(
    "lines",
    [
        "",
        'allow_hosts = ["other.test"]',
        'allow_hosts = ["*"]\nignore_hosts = ["localhost"]',
    ],
)
async def test_tls_to_any_other_host_passes_untouched(
    start: Start, origin: ScriptedUpstream, tmp_path: Path, lines: str
) -> None:
    node = await start("regular", lines)
    proxy = f"http://127.0.0.1:{node.port}"
    theirs = trusting(tmp_path / "origin.pem")
    async with httpx.AsyncClient(proxy=proxy, verify=theirs, trust_env=False) as client:
        assert (await client.get(f"https://localhost:{origin.port}/x")).text == "ok"
    assert origin.requests[0].values("x-listener") == []
    assert (node.seen, node.count("passed_connections_total")) == ([], 1)


async def test_a_host_that_the_ca_may_not_sign_for_passes(
    start: Start, origin: ScriptedUpstream, tmp_path: Path
) -> None:
    rotate_ca(tmp_path / "state", permit=("example.com",))
    node = await start("regular", TAKE)
    proxy = f"http://127.0.0.1:{node.port}"
    theirs = trusting(tmp_path / "origin.pem")
    async with httpx.AsyncClient(proxy=proxy, verify=theirs, trust_env=False) as client:
        assert (await client.get(f"https://localhost:{origin.port}/x")).text == "ok"
    assert node.seen == []


@pytest.mark.parametrize(("without_sni", "taken"), [("pass", False), ("intercept", True)])
async def test_tls_that_names_no_host_is_decided_by_the_configuration(
    start: Start, origin: ScriptedUpstream, tmp_path: Path, without_sni: str, taken: bool
) -> None:
    node = await start("regular", f'{TAKE}\nwithout_sni = "{without_sni}"')
    trust = node.trust if taken else trusting(tmp_path / "origin.pem")
    proxy = f"http://127.0.0.1:{node.port}"
    async with httpx.AsyncClient(proxy=proxy, verify=trust, trust_env=False) as client:
        assert (await client.get(f"https://127.0.0.1:{origin.port}/x")).text == "ok"
    assert node.seen == (["127.0.0.1"] if taken else [])


async def test_an_origin_whose_certificate_is_not_valid_is_502(
    start: Start, origin: ScriptedUpstream
) -> None:
    node = await start("regular")
    proxy = f"http://127.0.0.1:{node.port}"
    async with httpx.AsyncClient(proxy=proxy, verify=node.trust, trust_env=False) as client:
        answer = await client.get(f"https://localhost:{origin.port}/x")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_tls_invalid"
    assert origin.requests == []


async def tunnel(node: Node, port: int, first: bytes) -> bytes:
    """What comes back through CONNECT for these bytes, until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    target = f"localhost:{port}"
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    async with asyncio.timeout(20):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(("raw", "expected"), [("true", b"\x00\x01hello"), ("false", b"")])
async def test_what_is_neither_tls_nor_http_passes_only_where_it_may(
    start: Start, raw: str, expected: bytes
) -> None:
    async def echo(reader: Any, writer: Any) -> None:
        writer.write(await reader.readexactly(7))
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    node = await start("regular", f"raw_tcp = {raw}")
    assert await tunnel(node, port, b"\x00\x01hello") == expected
    server.close()


async def test_socks_clients_are_intercepted(start: Start, origin: ScriptedUpstream) -> None:
    node = await start("socks5", TAKE)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    host = b"localhost"
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + origin.port.to_bytes(2, "big"))
    assert (await reader.readexactly(10))[:2] == b"\x05\x00"
    await writer.start_tls(node.trust, server_hostname="localhost")
    writer.write(b"GET /s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(20):
        answer = await reader.read()
    assert answer.endswith(b"ok")
    assert node.seen == ["localhost"]
    writer.close()


async def test_a_chain_goes_through_the_next_proxy(
    start: Start, origin: ScriptedUpstream, upstream: Any
) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0])
        method, target, _ = asked[-1].split(b" ")
        port = int(target.rsplit(b":", 1)[1].split(b"/")[0])
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            up_writer.write(head)

        async def copy(source: Any, sink: Any) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    node = await start(f"upstream:http://127.0.0.1:{port}", TAKE)
    options: dict[str, Any] = {"proxy": f"http://127.0.0.1:{node.port}", "trust_env": False}
    async with httpx.AsyncClient(verify=node.trust, **options) as client:
        answer = await client.get(f"https://localhost:{origin.port}/x")
        assert answer.text == "ok"
        assert (await client.get(f"{upstream.url}/clear")).text == "ok"
    assert asked == [
        f"CONNECT localhost:{origin.port} HTTP/1.1".encode(),
        f"GET {upstream.url}/clear HTTP/1.1".encode(),
    ]
    assert node.seen == ["localhost"]  # the other host is not listed
    server.close()


async def test_reverse_mode_speaks_http2_to_clients(start: Start, origin: ScriptedUpstream) -> None:
    node = await start(f"reverse:https://localhost:{origin.port}", 'upstream_ca = "origin.pem"')
    async with Http2Client(node.port, node.trust) as client:
        answer = await client.get("/r", authority="localhost")
        assert (answer.status, answer.body) == (200, b"ok")
    assert origin.requests[0].values("host") == [f"localhost:{origin.port}"]
    assert node.seen == ["localhost"]


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\x01\x02\x03"])
async def test_an_explicit_proxy_does_not_lead_to_its_own_machine(
    start: Start, upstream: Any, first: bytes
) -> None:
    node = await start("regular", "raw_tcp = true\nlocal = false")
    assert await tunnel(node, upstream.port, first) == b""
    async with httpx.AsyncClient(proxy=f"http://127.0.0.1:{node.port}", trust_env=False) as client:
        answer = await client.get(upstream.url)
        assert answer.json()["error"]["code"] == "upstream_address_forbidden"
    assert upstream.requests == []


async def test_a_mode_that_can_not_start_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = parse(f'[[intercept]]\nmode = "regular@127.0.0.1:{port}"\n', base=tmp_path)
        runtime = Runtime(Host(tmp_path / "state"))
        runtime.commit(await runtime.prepare(settings))
        with pytest.raises(StartError, match=str(port)):
            await Engine(runtime, settings).start({})
        await runtime.close()


# -- clients that refuse ----------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["report", "pass"])
async def test_a_client_that_refuses_the_ca_is_reported_and_by_policy_passed(
    start: Start,
    origin: ScriptedUpstream,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    policy: str,
) -> None:
    node = await start("regular", f'{TAKE}\non_refused = "{policy}"')
    proxy, url = f"http://127.0.0.1:{node.port}", f"https://localhost:{origin.port}/"
    theirs = trusting(tmp_path / "origin.pem")
    async with httpx.AsyncClient(proxy=proxy, verify=theirs, trust_env=False) as client:
        for _ in range(2 if policy == "report" else 1):
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
        if policy == "pass":
            assert (await client.get(url)).text == "ok"
    async with httpx.AsyncClient(proxy=proxy, verify=node.trust, trust_env=False) as client:
        if policy == "report":
            assert (await client.get(url)).text == "ok"
    told = [r.getMessage() for r in caplog.records if "refuses the certificate" in r.message]
    assert len(told) == 1
    assert told[0].startswith("client 127.0.0.1 refuses the certificate for localhost: ")
    assert "not trust the CA" in told[0]
    assert node.count("ca_refused_total") == (2 if policy == "report" else 1)
    assert len(node.engine.refusals()) == (0 if policy == "report" else 1)


async def test_a_client_that_only_ever_shakes_hands_may_be_pinning(
    start: Start, origin: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start("regular", TAKE)
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        target = f"localhost:{origin.port}"
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(node.trust, server_hostname="localhost")
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(20):
        while not node.engine.refusals():
            await asyncio.sleep(0.01)
    assert "may pin" in node.engine.refusals()[0]["reason"]


@pytest.mark.parametrize(("host", "kind"), [("localhost", Closed), ("other.test", UDPLayer)])
async def test_quic_to_a_listed_host_is_dropped_so_that_tcp_is_used(
    start: Start, host: str, kind: type
) -> None:
    node = await start("regular", TAKE)
    quic = QuicConnection(
        configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=host)
    )
    quic.connect(("192.0.2.1", 443), now=0.0)
    first, _ = quic.datagrams_to_send(now=0.0)[0]
    master = node.engine._master
    assert master is not None
    client = Client(peername=("192.0.2.9", 1), sockname=("192.0.2.1", 443))
    client.proxy_mode = ProxyMode.parse(f"regular@127.0.0.1:{node.port}")
    client.transport_protocol = "udp"
    context = Context(client, master.options)
    context.server.address = ("192.0.2.1", 443)
    context.layers = [TransparentProxy(context)]
    asked = next(a for a in master.addons.chain if isinstance(a, NextLayer))
    assert isinstance(asked._next_layer(context, first, b""), kind)
