"""The seams where our classes take the place of mitmproxy's, in all proxy modes: the only ones.

mitmproxy looks these names up in its modules when a connection or a stream begins, and has no
other way to replace them. Each replaced name is a public or module-level name of mitmproxy
12.2. `test_patches` fails where one is gone, and where mitmproxy has closed the gap for which it
is replaced: then the patch can go.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mitmproxy.proxy import layer as mitm_layer
from mitmproxy.proxy import layers as mitm_layers
from mitmproxy.proxy import mode_servers
from mitmproxy.proxy.layers import http as mitm_http
from mitmproxy.proxy.layers import websocket as mitm_websocket

from . import handler, http1, http2, http2_client, http3, layers, modes, passing, stream, websocket


class Seam(NamedTuple):
    """One replaced name.

    `where` says when mitmproxy looks it up, `why` what it lacks. `issue` is mitmproxy's own of
    that, or "" where none is known.
    """

    module: Any
    name: str
    ours: Any
    where: str
    why: str
    issue: str = ""


SEAMS: Final = (
    Seam(
        mitm_http, "HttpStream", stream.Stream,
        "HttpLayer.make_stream",
        "An answer given for a head is only sent once the whole body is read; errors are pages.",
    ),
    Seam(
        mitm_http, "Http1Server", http1.Server,
        "HttpLayer, at the start of a connection",
        "Heads have no limit (a FIXME in its source); chunks are not read to the letter.",
    ),
    Seam(
        mitm_http, "Http2Server", http2.Server,
        "HttpLayer, at the start of a connection",
        "Windows of 2 GiB, no budget for resets and control frames, no pace by stream.",
        "https://github.com/mitmproxy/mitmproxy/issues/4456",
    ),
    Seam(
        mitm_http, "Http1Client", http1.Client,
        "HttpClient, at the start of a connection",
        "An interim answer is taken for the final one; trailers raise NotImplementedError.",
        "https://github.com/mitmproxy/mitmproxy/issues/2229, /2474",
    ),
    Seam(
        mitm_http, "Http2Client", http2_client.Client,
        "HttpClient, at the start of a connection",
        "Windows of 2 GiB: an origin is read faster than its client takes it.",
    ),
    Seam(
        mitm_http, "Http3Server", http3.Server,
        "HttpLayer, at the start of a connection",
        "Ended streams are kept for good; a malformed request ends the connection; no budgets.",
    ),
    Seam(
        mitm_layer, "NextLayer", passing.Undecided,
        "layers whose child is not known yet",
        "A server that speaks first is waited out until the client has said something.",
    ),
    Seam(
        mitm_layers, "HttpLayer", layers.HttpLayer,
        "the next_layer addon",
        "Closed and failed upstream connections are kept, with their outcome, for good.",
        "https://github.com/mitmproxy/mitmproxy/issues/4786",
    ),
    Seam(
        mode_servers, "ProxyConnectionHandler", handler.Handler,
        "ServerInstance.handle_stream",
        "One idle timer is the only deadline; a layer that crashes leaves its client waiting.",
    ),
    Seam(
        mode_servers.AsyncioServerInstance, "listen", modes.listen,
        "when a mode is started",
        "It opens sockets itself; ours are the supervisor's, shared by workers and over restarts.",
    ),
    Seam(
        mode_servers.ServerInstance, "handle_stream", modes.handle_stream,
        "for each connection that is accepted",
        "Connections have no limit; one that leads back to its own listener goes round for ever.",
    ),
    Seam(
        mitm_websocket, "WebsocketConnection", websocket.Connection,
        "WebsocketLayer.start",
        "Messages have no limit, and meet no hook that could change or refuse a piece of them.",
    ),
    Seam(
        mitm_websocket, "WebsocketLayer", websocket.Layer,
        "HttpStream, after a 101",
        "All messages of a connection are kept.",
        "https://github.com/mitmproxy/mitmproxy/issues/6620",
    ),
)  # fmt: skip


def install() -> None:
    """Put our classes in place. Again does nothing."""
    for seam in SEAMS:
        setattr(seam.module, seam.name, seam.ours)
