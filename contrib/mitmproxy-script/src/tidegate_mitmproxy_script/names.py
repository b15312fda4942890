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

REFUSED: Final = frozenset(
    {
        *("client_connected", "client_disconnected", "next_layer"),
        *("server_connect", "server_connected", "server_connect_error", "server_disconnected"),
        *("tls_clienthello", "tls_start_client", "tls_established_client", "tls_failed_client"),
        *("tls_start_server", "tls_established_server", "tls_failed_server"),
        *("quic_start_client", "quic_start_server"),
        *("http_connect", "http_connected", "http_connect_upstream", "http_connect_error"),
        *("socks5_auth", "dns_request", "dns_response", "dns_error"),
        *("tcp_start", "tcp_message", "tcp_end", "tcp_error"),
        *("udp_start", "udp_message", "udp_end", "udp_error"),
    }
)
"""About connections, not exchanges: those are the carrier's, and no addon's, here."""
