"""Which connections are taken over: mitmproxy's next_layer, with rules of ours per intercept.

A connection is judged by its first bytes. Three ways lead on: its TLS ends here and its HTTP is
an exchange; it passes as a tunnel, byte by byte and unseen by any hook; it is closed.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from mitmproxy import ctx
from mitmproxy.addons import next_layer
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers import DNSLayer, TCPLayer, UDPLayer, modes
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.tls import HTTP_ALPNS, ClientTLSLayer, TLSLayer, parse_client_hello
from mitmproxy.tls import ClientHello
from OpenSSL import SSL

from .gateway import GatewayMode
from .layers import HttpLayer
from .policies import Policy
from .quic import ClientQuic
from .sparse import Sparse

if TYPE_CHECKING:
    from .handler import Handler
    from .master import Master

told = Sparse(logging.getLogger("tidegate.engine"))

DNS: Final = 53
FIRST_BYTES: Final = 64 * 1024
"""Bytes of a ClientHello, or of a head without a Host field, that are waited for."""

_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}( |$)")
_HOST_FIELD: Final = re.compile(rb"\r?\nhost:[ \t]*([^\r\n]*?)[ \t]*\r?\n", re.IGNORECASE)


class Undecided(layer.NextLayer):
    """Waits for a connection's first bytes, but not where its server may be the first to speak."""

    def __init__(self, context: Context, ask_on_start: bool = False) -> None:
        super().__init__(context, ask_on_start or is_raw(context))


def is_raw(context: Context) -> bool:
    """Whether a connection goes to one of the `raw_ports` of its way in."""
    address, mode = context.server.address, context.client.proxy_mode
    if address is None or isinstance(mode, GatewayMode):
        return False
    policy = cast("Master", ctx.master).policies[mode.full_spec]
    return address[1] in policy.intercept.raw_ports and context.client.transport_protocol == "tcp"


def tell_silence(handler: Handler) -> None:
    """A connection that was taken in is closed, since its client never said a word."""
    context = handler.layer.context
    if context.server.address is not None:
        told.warning(
            "client %s waits in silence at %s port %d: closed. Servers that speak first are"
            " reached by `raw_ports`",
            context.client.peername[0],
            *context.server.address[:2],
        )


class NextLayer(next_layer.NextLayer):
    """Says what a connection is. Must not be asked on gateway listeners."""

    def __init__(self, master: Master) -> None:
        self.master = master

    def configure(self, updated: set[str]) -> None:
        """The options of mitmproxy are not used."""

    def _next_layer(self, context: Context, data_client: bytes, data_server: bytes) -> Layer | None:
        policy = self.master.policies[context.client.proxy_mode.full_spec]
        if is_raw(context):
            return self._pass(policy, context)
        top = context.layers[-1]
        if len(context.layers) == 1 and isinstance(top, modes.ReverseProxy):
            return self._reverse(context, data_client)
        if len(context.layers) == 1 and not isinstance(top, modes.DestinationKnown):
            return self._setup_explicit_http_proxy(context, data_client)
        if isinstance(top, ClientTLSLayer):
            return self._inside(context, data_client)
        if context.client.transport_protocol == "udp":
            return self._datagrams(policy, context, data_client)
        if starts_like_tls_record(data_client):
            return self._tls(policy, context, data_client)
        return self._clear(policy, context, data_client)

    def _reverse(self, context: Context, data: bytes) -> Layer:
        """Clients of a reverse proxy mean it and no one else: nothing passes."""
        if context.client.transport_protocol == "udp":
            http3 = ClientQuic(context)
            http3.child_layer = HttpLayer(context, HTTPMode.transparent)
            return http3
        stack = tunnel.LayerStack()
        if starts_like_tls_record(data):
            stack /= ClientTls(context)
        stack /= HttpLayer(context, HTTPMode.transparent)
        return stack[0]

    # -- first bytes --------------------------------------------------------------------------

    def _tls(self, policy: Policy, context: Context, data: bytes) -> Layer:
        """TLS, before its handshake."""
        try:
            hello: ClientHello | None = parse_client_hello(data)
        except ValueError:
            return self._pass(policy, context)
        if hello is None:
            if len(data) > FIRST_BYTES:
                return self._close(context)
            raise next_layer.NeedsMoreData
        known = names(context)
        if not policy.takes(hello.sni, known):
            return self._pass(policy, context)
        name = (hello.sni or known[0]).lower()
        if policy.intercept.on_refused == "pass" and self.master.refusals.holds(
            context.client.peername[0], name
        ):
            return self._pass(policy, context)
        self.master.count("intercepted_connections_total")
        context.server.tls = True
        return ClientTls(context)

    def _clear(self, policy: Policy, context: Context, data: bytes) -> Layer:
        """Anything but TLS: HTTP, the beginning of it, or something else."""
        found = _METHOD.match(data)
        if found is None:
            if policy.intercept.raw_tcp:
                return self._pass(policy, context)
            return self._refuse(context)
        head, end, _ = data.replace(b"\r\n", b"\n").partition(b"\n\n")
        host = _HOST_FIELD.search(data)
        if host is None and not end and len(head) < FIRST_BYTES:
            raise next_layer.NeedsMoreData
        known = names(context)
        if host is not None:
            known = (bare(host[1].decode("latin-1")), *known)
        if not policy.lists(known):
            return self._pass(policy, context)
        self.master.count("intercepted_connections_total")
        return HttpLayer(context, HTTPMode.transparent)

    def _inside(self, context: Context, data: bytes) -> Layer:
        """What came out of TLS that ends here."""
        if context.client.alpn in HTTP_ALPNS:
            return HttpLayer(context, HTTPMode.transparent)
        if not data:
            raise next_layer.NeedsMoreData
        if _METHOD.match(data):
            return HttpLayer(context, HTTPMode.transparent)
        return self._refuse(context)

    def _datagrams(self, policy: Policy, context: Context, data: bytes) -> Layer:
        """UDP passes, but QUIC to listed hosts does not: clients then come by TCP."""
        if context.server.address and context.server.address[1] == DNS:
            return DNSLayer(context)  # within WireGuard it is answered by the node
        hello = self._get_client_hello(context, data)
        if hello is not None and policy.takes(hello.sni, names(context)):
            return self._close(context)
        return UDPLayer(context, ignore=True)

    # -- ways on ------------------------------------------------------------------------------

    def _pass(self, policy: Policy, context: Context) -> Layer:
        self.master.count("passed_connections_total")
        handler = self.master.handler_by(context.client)
        handler.tunnel_idle = policy.intercept.idle
        handler.idle_since = time.monotonic()
        return TCPLayer(context, ignore=True)

    def _refuse(self, context: Context) -> Layer:
        """Close what is neither TLS nor HTTP, and say so."""
        host, port = (context.server.address or ("its host", 0))[:2]
        told.warning(
            "client %s: what it says to %s port %d is neither TLS nor HTTP: closed (see `raw_tcp`)",
            context.client.peername[0],
            host,
            port,
        )
        return self._close(context)

    def _close(self, context: Context) -> Layer:
        self.master.count("closed_connections_total")
        return Closed(context)


class Closed(Layer):
    """Says nothing and hangs up."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


class ClientTls(ClientTLSLayer):
    """TLS that ends here: says goodbye, and leaves reports to `refusals`."""

    def on_handshake_error(self, err: str) -> layer.CommandGenerator[None]:
        """As mitmproxy's, without its log lines."""
        yield from TLSLayer.on_handshake_error(self, err)
        self.event_to_child = self.errored  # type: ignore[method-assign]

    def send_close(self, command: commands.CloseConnection) -> layer.CommandGenerator[None]:
        """Close with close_notify: a body that the close ends is whole (RFC 9112 §9.8)."""
        if self.conn.tls_established:
            with suppress(SSL.Error):  # it has been said already
                self.tls.shutdown()
            yield from self.tls_interact()
        yield from super().send_close(command)


def names(context: Context) -> tuple[str, ...]:
    """What the destination is known by: the host that was asked for, or its address."""
    address = context.server.address
    return (bare(address[0]),) if address else ()


def bare(host: str) -> str:
    """A host without port, brackets and trailing dot, lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name = host if host.count(":") > 1 else host.partition(":")[0]
    return name.lower().rstrip(".")
