"""TLS contexts: of listeners, and towards upstreams."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any

from mitmproxy.addons import tlsconfig

from tidegate.api.upstream import Tls
from tidegate.runtime.settings import Listener

from .ca import LeafStore


@lru_cache(maxsize=256)
def upstream_context(
    tls: Tls, extra_ca: str | None = None, *, http2: bool = False
) -> ssl.SSLContext:
    """The context for an upstream. Verification is always on.

    `extra_ca`: a PEM file of authorities that are believed beside the others. `http2`: the
    upstream may choose it.
    """
    context = ssl.create_default_context(cafile=tls.ca)
    if extra_ca is not None:
        context.load_verify_locations(extra_ca)
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def listener_context(listener: Listener, base: Path) -> ssl.SSLContext | None:
    """The context of a listener, or None where it speaks cleartext. `base`: of relative paths."""
    if listener.cert is None or listener.key is None:
        return None
    context = _server_context(listener, base, listener.cert, listener.key)
    by_name: dict[str, ssl.SSLContext] = {}
    for certificate in listener.certificates:
        other = _server_context(listener, base, certificate.cert, certificate.key)
        by_name.update(dict.fromkeys(_names(base / certificate.cert), other))

    def choose(connection: Any, name: str | None, _context: ssl.SSLContext) -> None:
        connection.sni = name
        if name is None:
            return
        name = name.lower()
        chosen = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if chosen is not None:
            connection.context = chosen

    context.sni_callback = choose
    return context


def _server_context(listener: Listener, base: Path, cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(base / cert, base / key)
    context.set_alpn_protocols(list(listener.alpn))
    if listener.client_ca is not None:
        context.load_verify_locations(base / listener.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _names(cert: Path) -> list[str]:
    """The DNS names that a certificate holds."""
    from cryptography import x509

    parsed = x509.load_pem_x509_certificate(cert.read_bytes())
    found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name.lower() for name in found.get_values_for_type(x509.DNSName)]


class TlsConfig(tlsconfig.TlsConfig):
    """mitmproxy's, with certificates of the node's own CA and no store of mitmproxy's."""

    def __init__(self, leaves: LeafStore) -> None:
        self.certstore = leaves

    def configure(self, updated: set[str]) -> None:
        """The options that name a store are not used; the others keep their defaults."""

    def running(self) -> None:
        """mitmproxy makes its own CA here."""
