"""The hooks of mitmproxy, by what they mean here. A test compares them with its own list."""

from __future__ import annotations

from typing import Final

REQUEST: Final = ("requestheaders", "request")
RESPONSE: Final = ("responseheaders", "response")
WEBSOCKET: Final = ("websocket_start", "websocket_message", "websocket_end")
FLOW: Final = (*REQUEST, *RESPONSE, "error", *WEBSOCKET)
"""Called for exchanges."""

LIFE: Final = ("load", "configure", "running", "done")
"""Called once."""

IGNORED: Final = frozenset({"add_log", "update"})
"""Only a person at mitmproxy's own screen would miss them."""

CONNECTION: Final = frozenset(
    {
        *("client_connected", "client_disconnected"),
        *("server_connect", "server_connected", "server_connect_error", "server_disconnected"),
        *("tls_clienthello", "tls_start_client", "tls_established_client", "tls_failed_client"),
    }
)
"""About connections: the engine calls them."""

_TLS: Final = "TLS towards upstreams is not mitmproxy's here"
_TUNNEL: Final = "what is not HTTP passes unseen"
_PROXY: Final = "how clients ask a proxy for a tunnel is not a policy's business"
REFUSED: Final = {
    **dict.fromkeys(("tls_start_server", "tls_established_server", "tls_failed_server"), _TLS),
    **dict.fromkeys(("quic_start_client", "quic_start_server"), "there is no HTTP/3 here"),
    **dict.fromkeys(("tcp_start", "tcp_message", "tcp_end", "tcp_error"), _TUNNEL),
    **dict.fromkeys(("udp_start", "udp_message", "udp_end", "udp_error"), _TUNNEL),
    **dict.fromkeys(("dns_request", "dns_response", "dns_error"), _TUNNEL),
    **dict.fromkeys(("http_connect", "http_connected", "socks5_auth"), _PROXY),
    **dict.fromkeys(("http_connect_upstream", "http_connect_error"), _PROXY),
    "next_layer": "`[[intercept]]` says what is taken over",
}
"""Never called, and why."""


def why_not(name: str, carriers: frozenset[str]) -> str:
    """Why a hook is never called on a node with these carriers; "" where it is."""
    if name in REFUSED:
        return REFUSED[name]
    if name not in CONNECTION or "intercept" in carriers:
        return ""
    if name.startswith("tls_"):
        return "clients' TLS is mitmproxy's in an [[intercept]] alone, and there is none here"
    return "" if "engine" in carriers else "the lane calls no hooks about connections"
