"""mitmproxy's flow of an exchange: its messages are the exchange's, its connections are told."""

from __future__ import annotations

from typing import Any, Final

from cryptography import x509
from mitmproxy import certs, connection, http

from tidegate.api import Client, Exchange

from .surroundings import refuse

OPEN: Final = connection.ConnectionState.OPEN


def make_flow(exchange: Exchange) -> http.HTTPFlow:
    """The flow of an exchange whose request is known."""
    flow = http.HTTPFlow(
        client_of(exchange.client, exchange.now), connection.Server(address=None), live=True
    )
    flow.request = exchange.request
    flow.timestamp_created = exchange.now
    flow.intercept = _no_intercept  # type: ignore[method-assign]
    return flow


def _no_intercept(*_: Any) -> None:
    refuse("flow.intercept", "nobody is there to let the flow go on")


def client_of(client: Client, now: float) -> connection.Client:
    """The client's side. Its id is made anew: connections are not told apart here."""
    made = connection.Client(
        peername=(client.address, client.port),
        sockname=("", 0),  # which of our addresses it came to is not told
        state=OPEN,
        tls=client.tls,
        sni=client.sni,
        timestamp_start=now,
        timestamp_tls_setup=now if client.tls else None,
    )
    if client.certificate is not None:
        made.certificate_list = [certs.Cert(x509.load_der_x509_certificate(client.certificate))]
    return made


def tell_server(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """Fill in the upstream's side from the last attempt, or from what was routed to."""
    attempt = exchange.attempts[-1] if exchange.attempts else None
    upstream = attempt.upstream if attempt is not None else exchange.upstream
    if upstream is None:
        return
    server = flow.server_conn
    if server.address is None:
        server.address = (upstream.host, upstream.port)
    server.tls = upstream.scheme == "https"
    server.sni = (upstream.tls.sni or upstream.host) if server.tls else None
    if attempt is not None:
        wall = exchange.now - exchange.started
        server.timestamp_start = wall + attempt.started
        server.timestamp_tcp_setup = wall + (attempt.connected or attempt.started)


def pieces(result: Any) -> bytes:
    """What a function given to `stream` returned, as bytes."""
    return bytes(result) if isinstance(result, bytes | bytearray) else b"".join(result)


def run_stream(response: http.Response) -> None:
    """Pass the whole body through the function that a script gave to `stream`."""
    stream = response.stream
    if not callable(stream):
        response.stream = False  # it streams wherever no hook needs the body
        return
    response.stream = False
    content = response.content
    if content is None:
        refuse("response.stream", "a function needs the body, and this one is not gathered")
    out = pieces(stream(content)) if content else b""
    response.content = out + pieces(stream(b""))
