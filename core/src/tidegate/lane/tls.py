"""TLS contexts: a listener's, chosen by SNI and reloaded; an upstream's, cached."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tidegate.api.upstream import Tls
from tidegate.runtime.settings import Listener

log = logging.getLogger("tidegate.lane.tls")

ALPN: Final = ["http/1.1"]


class ServerTls:
    """The TLS side of one listener. `context` is given to `loop.create_server`.

    Certificates are chosen by SNI among the listener's; a file that changed is loaded by
    `refresh` without a restart: the context that listens only dispatches to the current ones.
    """

    def __init__(self, listener: Listener, base: Path) -> None:
        self._listener = listener
        self._base = base
        self._stamp: tuple[int, ...] = ()
        self._names: dict[str, ssl.SSLContext] = {}
        self._default: ssl.SSLContext
        self._load()
        self.context = self._default
        self.context.sni_callback = self._choose

    def _pairs(self) -> list[tuple[Path, Path]]:
        listener = self._listener
        assert listener.cert is not None
        assert listener.key is not None
        pairs = [(listener.cert, listener.key)]
        pairs += [(extra.cert, extra.key) for extra in listener.certificates]
        return [(self._base / cert, self._base / key) for cert, key in pairs]

    def _stamps(self) -> tuple[int, ...]:
        files = [file for pair in self._pairs() for file in pair]
        if self._listener.client_ca:
            files.append(self._base / self._listener.client_ca)
        return tuple(os.stat(file).st_mtime_ns for file in files)

    def _load(self) -> None:
        stamp = self._stamps()
        names: dict[str, ssl.SSLContext] = {}
        default: ssl.SSLContext | None = None
        for cert, key in self._pairs():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(cert, key)
            context.set_alpn_protocols(ALPN)
            if self._listener.client_ca:
                context.load_verify_locations(self._base / self._listener.client_ca)
                context.verify_mode = ssl.CERT_OPTIONAL
            default = default or context
            for name in certificate_names(cert):
                names.setdefault(name, context)
        assert default is not None
        self._names, self._default, self._stamp = names, default, stamp

    def refresh(self) -> None:
        """Load what has changed on disk. A pair that does not load leaves the old in force."""
        try:
            if self._stamps() != self._stamp:
                self._load()
                log.info("listener %s: certificates reloaded", self._listener.name)
        except (OSError, ssl.SSLError, ValueError) as error:
            log.error(
                "listener %s: certificates not reloaded, the old ones stay: %s",
                self._listener.name,
                error,
            )

    def _choose(self, connection: Any, name: str | None, _context: ssl.SSLContext) -> None:
        chosen = self._default
        if name is not None:
            lowered = name.lower()
            parent = "*." + lowered.partition(".")[2]
            chosen = self._names.get(lowered) or self._names.get(parent) or chosen
        connection.context = chosen
        connection.tidegate_sni = name  # for `Client.sni`: ssl tells it to nobody else


def certificate_names(file: Path) -> list[str]:
    """The DNS names of a PEM certificate, lower case."""
    certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


class ResumingContext(ssl.SSLContext):
    """A client context that offers the last session again (asyncio has no argument for it)."""

    session: ssl.SSLSession | None = None

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Passes the session on, where there is one for this host."""
        if self.session is not None and not options.get("server_side"):
            options["session"] = self.session
        return super().wrap_bio(*args, **options)

    def remember(self, connection: ssl.SSLObject | None) -> None:
        """Keep the session of a connection that ends: its tickets have come by then."""
        if connection is not None and connection.session is not None:
            self.session = connection.session


def client_context(tls: Tls, base: Path) -> ResumingContext:
    """The context for an upstream: verified against the system's CAs or `tls.ca`."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca is not None:
        context.load_verify_locations(base / tls.ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.certificate is not None:
        context.load_cert_chain(base / tls.certificate, base / tls.key if tls.key else None)
    context.set_alpn_protocols(ALPN)
    return context
