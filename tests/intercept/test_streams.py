"""Streams through the interception: WebSocket, events one by one, bodies larger than memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Final

import pytest

from .conftest import CONFIG
from .network import LISTED, V4, Network, Node, needs_network, python

pytestmark = [needs_network, pytest.mark.xdist_group("intercept-streams")]

SIZE: Final = int(os.environ.get("TIDEGATE_INTERCEPT_BYTES", "67108864"))
"""Bytes of a large body. In full: `TIDEGATE_INTERCEPT_BYTES=1073741824 pytest tests/intercept`."""
GROWTH: Final = 24 * 1024 * 1024
"""Bytes that two workers may grow by while such a body passes."""

WEBSOCKET = f"""
import socket, ssl
from wsproto import ConnectionType, WSConnection, events
raw = socket.create_connection(("{LISTED}", 443))
sock = ssl.create_default_context().wrap_socket(raw, server_hostname="{LISTED}")
ws = WSConnection(ConnectionType.CLIENT)
sock.sendall(ws.send(events.Request(host="{LISTED}", target="/ws")))
def message():
    while True:
        for event in ws.events():
            return event
        ws.receive_data(sock.recv(65536) or None)
print(type(message()).__name__)
sock.sendall(ws.send(events.TextMessage(data="first")))
print(message().data)
sock.sendall(ws.send(events.BytesMessage(data=b"x" * 100_000)))
got = b""
while len(got) < 100_000:
    got += message().data
print(len(got))
sock.sendall(ws.send(events.CloseConnection(code=1000)))
print(message().code)
"""

EVENTS = f"""
import httpx
with httpx.Client(timeout=15) as client, httpx.Client(timeout=15) as other:
    with client.stream("GET", "https://{LISTED}/sse?4") as answer:
        for line in answer.iter_lines():
            if line:
                print(line, flush=True)
                if "3" not in line:
                    other.get("https://{LISTED}/next")
"""


@pytest.fixture(scope="module")
def node(up: Callable[..., Node]) -> Node:
    made = up(CONFIG.replace("limits = { ", f"limits = {{ body = {SIZE}, ", 1))
    made.redirect(80, 443)
    return made


def test_a_websocket(network: Network, node: Node) -> None:
    got = network.run(*python(WEBSOCKET), env=node.trust)
    assert got.stdout.split() == ["AcceptConnection", "first", "100000", "1000"], got.stderr
    line = node.logs(1, path="/ws")[0]
    assert (line["status"], line["outcome"], line["bytes_in"]) == (101, "answered", 100_005)


def test_events_come_one_by_one(network: Network, node: Node) -> None:
    """The origin sends each event when the client has seen the one before it."""
    got = network.run(*python(EVENTS), env=node.trust)
    assert got.stdout.splitlines() == [f"data: event {n}" for n in range(4)], got.stderr


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_large_answer_in_bounded_memory(network: Network, node: Node, version: str) -> None:
    url = f"https://{LISTED}/big?{SIZE}"
    network.run("curl", "-sS", version, "-o", "/dev/null", f"https://{LISTED}/warm", env=node.trust)
    before = node.rss
    got = network.run("curl", "-sS", version, "-o", "/dev/null", "-w", "%{size_download}", url,
                      env=node.trust, timeout=600)  # fmt: skip
    assert got.stdout == str(SIZE), got.stderr
    assert node.rss - before < GROWTH


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_large_request_in_bounded_memory(network: Network, node: Node, version: str) -> None:
    before = node.rss
    upload = f"head -c {SIZE} /dev/zero | curl -sS {version} -T - https://{LISTED}/up"
    got = network.run("sh", "-c", upload, env=node.trust, timeout=600)
    assert json.loads(got.stdout)["size"] == SIZE, got.stderr
    assert node.rss - before < GROWTH


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_slow_reader_does_not_fill_the_memory(network: Network, node: Node, version: str) -> None:
    """The origin would send at once; the client takes a hundredth of it, and leaves."""
    before = node.rss
    url = f"https://{LISTED}/big?{SIZE}"
    slow = f"timeout 3 curl -sS {version} --limit-rate 200k -o /dev/null {url}"
    network.run("sh", "-c", slow, env=node.trust)
    assert node.rss - before < GROWTH


def test_many_streams_on_one_connection(network: Network, node: Node) -> None:
    urls = [f"https://{LISTED}/many/{n}" for n in range(60)]
    got = network.run(
        "curl", "-sS", "--http2", "--parallel", "--parallel-max", "60", "-w", "%{http_code}\n",
        *(word for url in urls for word in ("-o", "/dev/null", url)), env=node.trust,
    )  # fmt: skip
    assert got.stdout.split() == ["200"] * 60, got.stderr
    assert len(network.seen("/many/")) == 60


def test_the_same_host_by_address_passes(network: Network, node: Node) -> None:
    """No name, no interception, unless the address is listed."""
    got = network.run(
        "curl", "-sS", "-v", f"https://{V4}/by-address", env={"CURL_CA_BUNDLE": str(network.ca)}
    )
    assert "issuer: CN=Origin's CA" in got.stderr, got.stderr
