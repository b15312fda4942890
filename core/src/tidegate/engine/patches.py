"""The seams where our classes take the place of mitmproxy's, in all proxy modes.

mitmproxy looks these names up in its modules when a connection or a stream begins, and has no
other way to replace them. Each replaced name is a public or module-level name of mitmproxy
12.2; `test_patches` fails where one is gone.
"""

from __future__ import annotations

from typing import Any, Final

from mitmproxy.proxy import layer as mitm_layer
from mitmproxy.proxy import layers as mitm_layers
from mitmproxy.proxy import mode_servers
from mitmproxy.proxy.layers import http as mitm_http
from mitmproxy.proxy.layers import websocket as mitm_websocket

from . import handler, http1, http2, http2_client, layers, modes, passing, stream, websocket

SEAMS: Final[tuple[tuple[Any, str, Any], ...]] = (
    # HttpLayer.make_stream: every exchange becomes ours.
    (mitm_http, "HttpStream", stream.Stream),
    # HttpLayer and HttpClient at the start of a connection: our limits and error answers.
    (mitm_http, "Http1Server", http1.Server),
    (mitm_http, "Http2Server", http2.Server),
    (mitm_http, "Http1Client", http1.Client),
    (mitm_http, "Http2Client", http2_client.Client),
    # layers whose child is not known yet: servers that speak first are not waited out.
    (mitm_layer, "NextLayer", passing.Undecided),
    # the next_layer addon: upstream connections chosen by `Upstream`.
    (mitm_layers, "HttpLayer", layers.HttpLayer),
    # ServerInstance.handle_stream: the connection's I/O, hooks and deadlines.
    (mode_servers, "ProxyConnectionHandler", handler.Handler),
    # AsyncioServerInstance.listen: the sockets of intercepts are the supervisor's.
    (mode_servers.AsyncioServerInstance, "listen", modes.listen),
    # ServerInstance.handle_stream: too many connections, and loops, are refused.
    (mode_servers.ServerInstance, "handle_stream", modes.handle_stream),
    # WebsocketLayer.start: messages pass the event hooks.
    (mitm_websocket, "WebsocketConnection", websocket.Connection),
    (mitm_websocket, "WebsocketLayer", websocket.Layer),
)


def install() -> None:
    """Put our classes in place. Again does nothing."""
    for module, name, ours in SEAMS:
        setattr(module, name, ours)
