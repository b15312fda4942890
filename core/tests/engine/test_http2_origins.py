"""HTTP/2 towards origins: what they refuse, break off or get wrong, and what a client sees."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes
from pytest_asyncio import fixture as async_fixture

from tidegate.engine import Engine
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.settings import parse
from tidegate.testing.certificates import Authority

from .http2 import Http2Client

type Answer = Callable[[Origin, h2.connection.H2Connection, int, str], None]


class Origin:
    """An HTTP/2 origin whose answers are a function's, frame by frame."""

    def __init__(self) -> None:
        self.answer: Answer = ok
        self.connections = 0
        self.requests: list[str] = []
        self.reset: list[int] = []
        self.was_reset = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        config = h2.config.H2Configuration(client_side=False, validate_outbound_headers=False)
        conn = h2.connection.H2Connection(config)
        conn.initiate_connection()
        writer.write(conn.data_to_send())
        while data := await reader.read(65536):
            for event in conn.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    path = dict(event.headers)[b":path"].decode()
                    self.requests.append(path)
                    assert event.stream_id is not None
                    self.answer(self, conn, event.stream_id, path)
                elif isinstance(event, h2.events.StreamReset):
                    self.reset.append(int(event.error_code or 0))
                    self.was_reset.set()
            writer.write(conn.data_to_send())
        writer.close()


def ok(origin: Origin, conn: h2.connection.H2Connection, stream: int, path: str) -> None:
    conn.send_headers(stream, [(":status", "200"), ("x-path", path)])
    conn.send_data(stream, b"ok", end_stream=True)


@async_fixture
async def origin(tmp_path: Path) -> AsyncIterator[tuple[Origin, int]]:
    """The origin and its port; its CA is `tmp_path / "origin.pem"`."""
    authority, made = Authority(), Origin()
    (tmp_path / "origin.pem").write_bytes(authority.pem)
    context = authority.server("localhost")
    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    yield made, server.sockets[0].getsockname()[1]
    server.close()


@async_fixture
async def client(tmp_path: Path, origin: tuple[Origin, int]) -> AsyncIterator[Http2Client]:
    """A client of a reverse proxy before the origin."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        mode = f"reverse:https://localhost:{origin[1]}@127.0.0.1:{port}"
        text = f'[[intercept]]\nname = "in"\nmode = "{mode}"\nupstream_ca = "origin.pem"\n'
        settings = parse(text, base=tmp_path)
        runtime = Runtime(Host(tmp_path / "state"))
        runtime.commit(await runtime.prepare(settings))
        engine = Engine(runtime, settings)
        await engine.start({"in": sock})
        trust = ssl.create_default_context(
            cafile=str(tmp_path / "state" / "ca" / "mitmproxy-ca-cert.pem")
        )
        async with Http2Client(port, trust) as made:
            yield made
        await engine.stop()
        await runtime.close()


async def test_streams_share_a_connection(client: Http2Client, origin: tuple[Origin, int]) -> None:
    streams = [client.streams[client.open(f"/{n}")] for n in range(50)]
    await client.until(lambda: all(stream.ended for stream in streams))
    assert [stream.body for stream in streams] == [b"ok"] * 50
    assert (origin[0].connections, len(origin[0].requests)) == (1, 50)


async def test_a_refused_stream_is_asked_again_elsewhere(
    client: Http2Client, origin: tuple[Origin, int]
) -> None:
    def refuse(origin: Origin, conn: Any, stream: int, path: str) -> None:
        origin.answer = ok
        conn.reset_stream(stream, ErrorCodes.REFUSED_STREAM)

    origin[0].answer = refuse
    assert (await client.get("/again")).body == b"ok"
    assert origin[0].requests == ["/again", "/again"]


def go_away(origin: Origin, conn: Any, stream: int, path: str) -> None:
    conn.close_connection(ErrorCodes.INTERNAL_ERROR)


def reset(origin: Origin, conn: Any, stream: int, path: str) -> None:
    conn.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)


def no_status(origin: Origin, conn: Any, stream: int, path: str) -> None:
    conn.send_headers(stream, [(":status", "2x0")], end_stream=True)


def crlf(origin: Origin, conn: Any, stream: int, path: str) -> None:
    conn.send_headers(stream, [(":status", "200"), ("x-a", "b\r\nc: d")], end_stream=True)


@pytest.mark.parametrize("wrong", [reset, no_status, crlf])
async def test_what_an_origin_gets_wrong_is_502_and_the_next_request_works(
    client: Http2Client, origin: tuple[Origin, int], wrong: Answer
) -> None:
    origin[0].answer = wrong
    stream = await client.get("/wrong")
    assert (stream.status, b"upstream_protocol_error" in stream.body) == (502, True)
    origin[0].answer = ok
    assert (await client.get("/right")).body == b"ok"


async def test_a_stream_that_is_broken_off_is_reset(
    client: Http2Client, origin: tuple[Origin, int]
) -> None:
    def part(origin: Origin, conn: Any, stream: int, path: str) -> None:
        conn.send_headers(stream, [(":status", "200")])
        conn.send_data(stream, b"part")
        conn.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)

    origin[0].answer = part
    stream = await client.get("/part")
    assert (stream.ended, stream.reset is not None) == (False, True)
    origin[0].answer = ok
    assert (await client.get("/whole")).body == b"ok"
    assert origin[0].connections == 1


async def test_a_client_that_resets_is_told_to_the_origin_and_others_go_on(
    client: Http2Client, origin: tuple[Origin, int]
) -> None:
    def wait(origin: Origin, conn: Any, stream: int, path: str) -> None:
        if path == "/wait":
            conn.send_headers(stream, [(":status", "200")])
        else:
            ok(origin, conn, stream, path)

    origin[0].answer = wait
    waiting = client.open("/wait")
    await client.until(lambda: client.streams[waiting].fields)
    client.h2.reset_stream(waiting, ErrorCodes.CANCEL)
    client.flush()
    async with asyncio.timeout(20):
        await origin[0].was_reset.wait()
    assert origin[0].reset == [ErrorCodes.CANCEL]
    assert (await client.get("/other")).body == b"ok"
    assert origin[0].connections == 1


async def test_a_goaway_with_an_error_is_502_and_the_next_request_works(
    client: Http2Client, origin: tuple[Origin, int]
) -> None:
    origin[0].answer = go_away
    assert (await client.get("/gone")).status == 502
    origin[0].answer = ok
    assert (await client.get("/back")).body == b"ok"
    assert origin[0].requests == ["/gone", "/gone", "/back"]  # a refused one is asked once more
