"""The Autobahn cases (WebSocket conformance), through a gateway, on both carriers.

The origin echoes with wsproto. Addons that see messages must not change what passes. Left out:
most of 9.*, 12.* and 13.*: large messages, and compression of many.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from pytest_asyncio import fixture as async_fixture
from wsproto import ConnectionType, WSConnection, events
from wsproto.connection import ConnectionState
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from tidegate.testing import Gateway, install_plugin

KOSOKU = Path(sys.executable).with_name("kosoku")
CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.2", "9.2.2", "12.1.1", "13.1.1")
LOOK = """
from tidegate.api import Plugin, hook

class Look(Plugin):
    @hook
    def transform_event(self, exchange, event):
        exchange.notes["messages"] = exchange.notes.get("messages", 0) + 1
        return event
"""

needs_kosoku = pytest.mark.skipif(not KOSOKU.exists(), reason="uv sync")


def answer(peer: WSConnection, event: events.Event) -> bytes:
    """What an echo says to an event."""
    match event:
        case events.Request():
            return peer.send(events.AcceptConnection(extensions=[PerMessageDeflate()]))
        case events.Message():
            return peer.send(event)
        case events.Ping() | events.CloseConnection():
            return peer.send(event.response())
    return b""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = WSConnection(ConnectionType.SERVER)
    with suppress(ConnectionError, LocalProtocolError, RemoteProtocolError):
        while data := await reader.read(65536):
            peer.receive_data(data)
            for event in peer.events():
                writer.write(answer(peer, event))
            await writer.drain()
            if peer.state in (ConnectionState.CLOSED, ConnectionState.REMOTE_CLOSING):
                break
    writer.close()


@async_fixture
async def origin() -> AsyncIterator[str]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.close()


@needs_kosoku
@pytest.mark.parametrize("looked_at", [False, True], ids=["unseen", "seen by an addon"])
async def test_the_autobahn_cases_pass(
    tmp_path: Path,
    gateway: Callable[..., Awaitable[Gateway]],
    origin: str,
    carrier: str,
    looked_at: bool,
) -> None:
    env = install_plugin(tmp_path / "plugins", "look", LOOK)
    running = await gateway(
        '[gateway]\nworkers = 1\n[gateway.limits]\ngather = "20MiB"\n'
        + '[[addon]]\nuse = "look"\n' * looked_at
        + '[[addon]]\nuse = "route-static"\n'
        + f'routes = [{{ path = "/", upstream = "{origin}", websocket = true }}]\n',
        carrier=carrier,
        env=env,
    )
    report = tmp_path / "report"
    process = await asyncio.create_subprocess_exec(
        str(KOSOKU), *("-m", "fuzzingclient", "-o", str(report), "-p", "2"),
        *(word for case in CASES for word in ("-i", case)),
        running.url.replace("http:", "ws:"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        told, _ = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, told.decode()
    [cases] = json.loads((report / "index.json").read_text()).values()
    assert len(cases) > 230
    assert {case["behavior"] for case in cases.values()} <= {"OK", "NON-STRICT", "INFORMATIONAL"}
