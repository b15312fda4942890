"""The seams in mitmproxy that the engine stands on: they are there, and they are needed.

Where a test of a gap fails, mitmproxy has closed it: look whether our class can go.
"""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from mitmproxy.proxy.layers import http as mitm_http

from tidegate.engine.patches import SEAMS

PLAIN = """
import asyncio
from mitmproxy import connection, http, options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import commands, context, events, layer, mode_servers, server
from mitmproxy.proxy.layers import http as layers, websocket
from mitmproxy.proxy.layers.http import _http1, _http2, _http3, _http_h2, _hooks, HTTPMode
from mitmproxy.proxy.layers.quic import QuicStreamDataReceived
from mitmproxy.proxy.layers.http._events import *
from mitmproxy.test import taddons
from inspect import getsource

async def main():
    with taddons.context(Proxyserver()) as tctx:
        client = connection.Client(
            peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0,
            state=connection.ConnectionState.OPEN,
        )
        ctx = context.Context(client, tctx.options)
        ctx.server.address = ("a.test", 80)
        ctx.server.state = connection.ConnectionState.OPEN
        GAP

asyncio.run(main())
"""
"""mitmproxy without the engine: `GAP` is what must hold of it."""

GAPS = {
    "HttpStream": """
        stream = layers.HttpStream(ctx, 1)
        stream.mode = HTTPMode.transparent
        head = http.Request.make("POST", "http://a.test/", b"", {"Content-Length": "9"})
        out = list(stream.handle_event(events.Start()))
        out += list(stream.handle_event(RequestHeaders(1, head, False)))
        [hook] = [x for x in out if isinstance(x, _hooks.HttpRequestHeadersHook)]
        hook.flow.response = http.Response.make(401)
        out = list(stream.handle_event(events.HookCompleted(hook)))
        assert not [x for x in out if isinstance(x, layers.SendHttp)]
    """,
    "Http1Server": """
        one = _http1.Http1Server(ctx)
        list(one.handle_event(events.Start()))
        for piece in [b"GET / HTTP/1.1\\r\\n"] + [b"x: " + b"y" * 65536] * 20:
            out = list(one.handle_event(events.DataReceived(client, piece)))
            assert not [x for x in out if isinstance(x, commands.SendData)]
    """,
    "Http2Server": """
        client.alpn = b"h2"
        one = _http2.Http2Server(ctx)
        list(one.handle_event(events.Start()))
        assert one.h2_conn.local_settings.initial_window_size == 2**31 - 1
        preface = b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"
        start = preface + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
        list(one.handle_event(events.DataReceived(client, start)))
        ping = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + b"12345678"
        for _ in range(50):
            out = list(one.handle_event(events.DataReceived(client, ping * 100)))
            assert not [x for x in out if isinstance(x, commands.CloseConnection)]
    """,
    "Http3Server": """
        one = _http3.Http3Server(ctx)
        out = list(one.handle_event(events.Start()))
        for stream_id in range(0, 40, 4):
            head = b"\\x01\\x10\\0\\0\\xd1\\xd7\\x50\\x09localhost\\xc1"
            out = list(one.handle_event(QuicStreamDataReceived(client, stream_id, head, True)))
            assert [x for x in out if isinstance(x, layers.ReceiveHttp)]
            answer = http.Response.make(200)
            list(one.handle_event(ResponseHeaders(stream_id, answer, True)))
            list(one.handle_event(ResponseEndOfMessage(stream_id)))
        assert len(one.h3_conn._stream) == 10
    """,
    "Http1Client": """
        one = _http1.Http1Client(ctx)
        list(one.handle_event(events.Start()))
        head = http.Request.make("GET", "http://a.test/")
        list(one.handle_event(RequestHeaders(1, head, True)))
        list(one.handle_event(RequestEndOfMessage(1)))
        out = list(one.handle_event(events.DataReceived(
            ctx.server, b"HTTP/1.1 103 Early Hints\\r\\n\\r\\n")))
        assert [x for x in out if isinstance(x, layers.ReceiveHttp)]
        assert "NotImplementedError" in getsource(_http1.Http1Connection)
    """,
    "Http2Client": """
        one = _http2.Http2Client(ctx)
        assert one.h2_conn.local_settings.initial_window_size == 2**31 - 1
    """,
    "NextLayer": """
        one = layer.NextLayer(ctx)
        assert list(one.handle_event(events.Start())) == []
    """,
    "HttpLayer": """
        text = getsource(layers.HttpLayer)
        assert "del self.connections[" not in text and "self.connections.pop(" not in text
    """,
    "ProxyConnectionHandler": """
        text = getsource(server.ConnectionHandler)
        assert text.count("Watchdog(") == 1 and "mitmproxy has crashed!" in text
    """,
    "listen": """
        assert "sock=" not in getsource(mode_servers.AsyncioServerInstance.listen)
    """,
    "handle_stream": """
        text = getsource(mode_servers.ServerInstance.handle_stream)
        assert "len(self.manager.connections)" not in text
    """,
    "WebsocketConnection": """
        assert "limit" not in getsource(websocket.WebsocketConnection)
    """,
    "WebsocketLayer": """
        text = getsource(websocket.WebsocketLayer)
        assert "messages.append(" in text and "messages.clear(" not in text
    """,
}


def test_every_seam_replaces_a_class_that_ours_derives_from() -> None:
    code = (
        "from tidegate.engine import patches\n"
        "for seam in patches.SEAMS:\n"
        "    theirs = getattr(seam.module, seam.name)\n"
        "    assert theirs is not seam.ours, seam\n"
        "    if isinstance(seam.ours, type): assert issubclass(seam.ours, theirs), seam\n"
        "    else: assert callable(theirs), seam\n"
        "patches.install()\n"
        "patches.install()\n"
        "for seam in patches.SEAMS:\n"
        "    assert getattr(seam.module, seam.name) is seam.ours, seam\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", [seam.name for seam in SEAMS])
def test_mitmproxy_still_has_the_gap_for_which_it_is_patched(name: str) -> None:
    code = PLAIN.replace("GAP", "\n".join(line for line in GAPS[name].splitlines()))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_mitmproxy_looks_the_replaced_names_up_when_they_are_needed() -> None:
    source = inspect.getsource(mitm_http)
    for call in ("HttpStream(ctx", "Http1Server(self", "Http2Server(self", "Http1Client(self"):
        assert call in source
